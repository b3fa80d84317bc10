"""Directly standardised shares: those that a cohort would have with the strata (ages) of a standard population.

Units are clustered in patients, and a patient can have units in several strata. Axes: P patients, K strata.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spinemet.statistics.intervals import TOO_FEW, FloatArray, Interval, beta_interval, effective_size


@dataclass(frozen=True)
class StandardSums:
    """All that a standardised share and its interval need; each unit counts its stratum's weight / units there.

    share: the weighted sum of the strata's shares. squares: sum over patients of (sum over the units of what each
    counts)². residuals: the same of what each positive unit counts less what its stratum's share lets expect.
    unit_squares: sum over units of what each counts². worst: the variance if all units of a patient in one stratum
    were alike. positive_squares: as squares, of positive units alone. clusters: patients. negative_clusters: those with
    a unit that is not positive.
    """

    share: float
    squares: float
    residuals: float
    unit_squares: float
    worst: float
    positive_squares: float
    clusters: int
    negative_clusters: int

    @classmethod
    def of(cls, positives_PK: npt.ArrayLike, sizes_PK: npt.ArrayLike, weight_K: npt.ArrayLike) -> StandardSums:
        """The sums of units found positive and units examined. weight_K: adding up to 1; every stratum has a unit."""
        positive, sizes = np.asarray(positives_PK, np.float64), np.asarray(sizes_PK, np.float64)
        weight = np.asarray(weight_K, np.float64)
        positive, sizes = positive[sizes.any(axis=1)], sizes[sizes.any(axis=1)]
        units = sizes.sum(axis=0)
        rate, counts = positive.sum(axis=0) / units, weight / units
        residuals = (positive - rate * sizes) @ counts
        return cls(
            float(weight @ rate),
            float(((sizes @ counts) ** 2).sum()),
            float((residuals**2).sum()),
            float(counts**2 @ units),
            worst_variance(rate, counts, (sizes**2).sum(axis=0)),
            float(((positive @ counts) ** 2).sum()),
            len(sizes),
            int((positive < sizes).any(axis=1).sum()),
        )

    @property
    def variance(self) -> float:
        """The variance of the share with patients as clusters (linearised, with the correction P / (P - 1))."""
        return self.clusters / (self.clusters - 1) * self.residuals if self.clusters > 1 else math.nan

    @property
    def effective_size(self) -> float:
        """The number of independent units with the same information: see `ClusterSums.effective_size`."""
        if self.clusters <= 1:
            return math.nan
        spread = self.share * (1 - self.share)
        if spread <= 0:
            return 1 / self.squares
        least = min(1 / self.squares, spread / self.worst if self.worst else math.inf)
        # One degree of freedom fewer than patients have the finding, and still fewer if some of these weigh much.
        having = max(1.0, self.share**2 / self.positive_squares - 1)
        freedom = min(having, self.negative_clusters, self.clusters - 1)
        return effective_size(self.share, self.variance, freedom, least, max(least, 1 / self.unit_squares))

    @property
    def interval(self) -> Interval:
        """The 95 % interval by the beta distribution with the effective size; none of one patient."""
        size = self.effective_size
        if math.isnan(size):
            return Interval(size, size, TOO_FEW)
        return Interval(*beta_interval(self.share * size, size), "korn_graubard")


def worst_variance(rate_K: FloatArray, counts_K: FloatArray, squares_K: FloatArray) -> float:
    """The variance if all units of a patient in one stratum were alike. squares_K: sums of patients' squared units."""
    return float((counts_K**2 * squares_K) @ (rate_K * (1 - rate_K)))
