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


TOO_FEW = "too_few"
"""The method of an interval that does not exist: all units come from one patient."""


@dataclass(frozen=True)
class Interval:
    """A two-sided 95 % confidence interval, and the method that made it: see `interval_of_sums`."""

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


def beta_interval(successes: float, n: float) -> tuple[float, float]:
    """95 % interval of a proportion by the beta distribution (Clopper and Pearson 1934); (NaN, NaN) for no trial.

    Neither number need be whole (Korn and Graubard 1998).
    """
    if n <= 0:
        return math.nan, math.nan
    failures = n - successes
    low = float(special.betaincinv(successes, failures + 1, 0.025)) if successes > 0 else 0.0
    return low, float(special.betaincinv(successes + 1, failures, 0.975)) if failures > 0 else 1.0


@dataclass(frozen=True)
class ClusterSums:
    """Sums over clusters (patients): all that the interval of a proportion in clusters needs.

    clusters: those with a unit. positive_clusters, negative_clusters: those with a positive unit, and with one that is
    not. units, positives: all of them. The last three are sums of squares and of products, cluster by cluster.
    """

    clusters: int
    positive_clusters: int
    negative_clusters: int
    units: float
    positives: float
    units_squared: float
    positives_squared: float
    products: float

    @classmethod
    def of(cls, positives: npt.ArrayLike, sizes: npt.ArrayLike) -> ClusterSums:
        """The sums of units found positive and units examined, per cluster; clusters of size 0 do not count."""
        x, n = np.asarray(positives, np.float64), np.asarray(sizes, np.float64)
        x, n = x[n > 0], n[n > 0]
        kinds = int((x > 0).sum()), int((x < n).sum())
        return cls(len(n), *kinds, n.sum().item(), x.sum().item(), float(n @ n), float(x @ x), float(x @ n))

    @property
    def is_independent(self) -> bool:
        """Whether each cluster has one unit."""
        return self.units == self.clusters

    @property
    def effective_size(self) -> float:
        """The number of independent units with the same information, at most the number of units.

        It is p(1 - p) over the cluster-robust variance of the ratio. That variance is estimated from the clusters that
        differ from the rest: those with a positive unit, if the finding is rare. So the t quantile that pays for the
        estimate has their number as degrees of freedom, not that of all clusters. The units of a cluster are at most
        all alike: each cluster then counts as one unit (less, if sizes differ), and the size is never below that.
        """
        if self.clusters <= 1 or self.is_independent:
            return float(min(self.units, self.clusters))
        if self.positives in (0, self.units):
            return self._alike
        rate = self.positives / self.units
        spread = self.positives_squared - 2 * rate * self.products + rate**2 * self.units_squared
        variance = self.clusters / (self.clusters - 1) * spread / self.units**2
        freedom = min(self.positive_clusters, self.negative_clusters, self.clusters - 1)
        return effective_size(rate, variance, freedom, self._alike, self.units)

    @property
    def _alike(self) -> float:
        """The effective size if all units of a cluster are alike (Kish 1965)."""
        return self.units**2 / self.units_squared


def effective_size(share: float, variance: float, freedom: float, least: float, most: float) -> float:
    """The independent units under which `share` (between 0 and 1) has this variance, estimated with `freedom` degrees.

    From `least` to `most`. freedom: at least 1.
    """
    independent = min(share * (1 - share) / max(variance, 1e-12), most)
    few = Z_95 / special.stdtrit(freedom, 0.975)
    return float(np.clip(independent * few**2, least, most))


def proportion_interval(positives: npt.ArrayLike, sizes: npt.ArrayLike) -> Interval:
    """`interval_of_sums` of units found positive and units examined, per cluster."""
    return interval_of_sums(ClusterSums.of(positives, sizes))


def interval_of_sums(sums: ClusterSums) -> Interval:
    """The 95 % interval of positives / units, of units in clusters (vertebrae of patients).

    With one unit per cluster this is the exact interval (`clopper_pearson`). With more, the same formula gets the
    effective sample size instead of the number of units (`korn_graubard`: Korn and Graubard 1998; compared with others,
    also for rare findings, by Franco et al. 2019). `tests/bench/README.md` shows how often it covers the truth; an
    interval with the usual degrees of freedom covers rare, clustered findings in 85 of 100.

    Both ends are NaN if nothing was examined, or if several units come from one cluster: then nothing tells how
    clusters differ (TOO_FEW).
    """
    if not sums.units or (sums.clusters == 1 and not sums.is_independent):
        return Interval(math.nan, math.nan, TOO_FEW)
    effective = sums.effective_size
    method = "clopper_pearson" if sums.is_independent else "korn_graubard"
    return Interval(*beta_interval(sums.positives / sums.units * effective, effective), method)


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


def format_share(share: float, low: float, high: float, method: str) -> str:
    """A share and its interval in percent: `42.9 [15.8, 75.0]`; `100.0 (too few)` by the method TOO_FEW."""
    text = format_interval(share, low, high, percent=True)
    return f"{text} (too few)" if method == TOO_FEW and not math.isnan(share) else text
