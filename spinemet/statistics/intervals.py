"""95 % confidence intervals: of proportions, of proportions in clusters, of resampled patients; and their text.

The vertebrae of one patient are not independent, so patients are the units that intervals count or resample. Axes: P
patients, B resamples. Anything undefined is NaN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

FloatArray = npt.NDArray[np.float64]

Z_95 = 1.959963984540054
RESAMPLES = 2000
DEFINED_SHARE = 0.5
"""A measure must be defined in this share of the resamples to have an interval."""


@dataclass(frozen=True)
class Interval:
    """A two-sided 95 % confidence interval, and the method that made it (`wilson` or `clustered_wilson`)."""

    low: float
    high: float
    method: str


def wilson_interval(successes: float, n: float) -> tuple[float, float]:
    """95 % interval of a proportion of independent trials (Wilson 1927); (NaN, NaN) for no trial."""
    if n <= 0:
        return math.nan, math.nan
    share, square = successes / n, Z_95 * Z_95
    center = (share + square / (2 * n)) / (1 + square / n)
    half = Z_95 * math.sqrt(share * (1 - share) / n + square / (4 * n * n)) / (1 + square / n)
    # Rounding would put the end beside a share of 0 or 1 about 1e-17 off it.
    return (center - half if share > 0 else 0.0), (center + half if share < 1 else 1.0)


@dataclass(frozen=True)
class ClusterSums:
    """Sums over clusters (patients): all that the interval of a proportion in clusters needs.

    clusters: those with a unit. largest: units of the largest. units, positives: all of them. The last three are sums
    of squares and of products, cluster by cluster.
    """

    clusters: int
    largest: int
    units: int
    positives: int
    units_squared: float
    positives_squared: float
    products: float

    @classmethod
    def of(cls, positives: npt.ArrayLike, sizes: npt.ArrayLike) -> ClusterSums:
        """The sums of units found positive and units examined, per cluster; clusters of size 0 do not count."""
        x, n = np.asarray(positives, np.float64), np.asarray(sizes, np.float64)
        x, n = x[n > 0], n[n > 0]
        return cls(len(n), int(n.max(initial=0)), int(n.sum()), int(x.sum()), float(n @ n), float(x @ x), float(x @ n))

    @property
    def effective_size(self) -> float:
        """The number of independent units with the same information, from 1 to the number of units."""
        if self.clusters <= 1 or self.largest <= 1:
            return float(min(self.units, 1) if self.clusters <= 1 else self.units)
        rate = self.positives / self.units
        if rate in (0.0, 1.0):
            return float(self.clusters)
        spread = self.positives_squared - 2 * rate * self.products + rate**2 * self.units_squared
        variance = self.clusters / (self.clusters - 1) * spread / self.units**2
        independent = min(rate * (1 - rate) / max(variance, 1e-12), self.units)
        few = Z_95 / special.stdtrit(self.clusters - 1, 0.975)
        return float(np.clip(independent * few**2, 1.0, self.units))


def proportion_interval(positives: npt.ArrayLike, sizes: npt.ArrayLike) -> Interval:
    """`interval_of_sums` of units found positive and units examined, per cluster."""
    return interval_of_sums(ClusterSums.of(positives, sizes))


def interval_of_sums(sums: ClusterSums) -> Interval:
    """The 95 % interval of positives / units, of units in clusters (vertebrae of patients).

    With one unit per cluster this is Wilson's interval. With more, Wilson's formula gets the effective sample size
    n / deff instead of n. deff is the cluster-robust variance of the ratio over the binomial one, at least 1; the t
    quantile of the number of clusters pays for estimating it from few clusters (Korn and Graubard 1998; compared with
    others, also for rare findings, by Franco et al. 2019). A proportion of 0 or 1 tells nothing about the correlation,
    so each cluster then counts as one unit; a bootstrap would give [0, 0] for a finding never seen.

    Both ends are NaN if nothing was examined.
    """
    if not sums.units:
        return Interval(math.nan, math.nan, "wilson")
    effective = sums.effective_size
    rate = sums.positives / sums.units
    method = "wilson" if sums.largest == 1 else "clustered_wilson"
    return Interval(*wilson_interval(rate * effective, effective), method)


def resample_patients(patients: int, resamples: int, seed: int) -> npt.NDArray[np.int64]:
    """(B, P) how often each patient is drawn if `patients` are drawn with replacement; equal for equal seeds."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(patients, np.full(patients, 1 / patients), size=resamples)


def percentile_interval(value: float, values_B: FloatArray) -> tuple[float, float]:
    """The 2.5 and 97.5 percentiles of a measure's resamples; (NaN, NaN) if `value` or too many of them are NaN."""
    defined = values_B[~np.isnan(values_B)]
    if math.isnan(value) or len(defined) < max(1.0, DEFINED_SHARE * len(values_B)):
        return math.nan, math.nan
    low, high = np.percentile(defined, [2.5, 97.5])
    return float(low), float(high)


def format_interval(
    value: float | None, low: float | None, high: float | None, *, percent: bool = False, signed: bool = False
) -> str:
    """`0.83 [0.71, 0.92]`; `0.83` if the interval is unknown (None or NaN), `–` if the value is.

    percent: `83.1 [71.0, 92.4]`. signed: with a plus sign, for differences. Text before the first space is the value.
    """

    def text(number: float) -> str:
        return f"{100 * number:{'+' if signed else ''}.1f}" if percent else f"{number:{'+' if signed else ''}.2f}"

    if value is None or math.isnan(value):
        return "–"
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return text(value)
    return f"{text(value)} [{text(low)}, {text(high)}]"
