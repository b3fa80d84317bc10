"""95 % confidence intervals: of proportions, of proportions in clusters, of resampled patients; and their text.

The vertebrae of one patient are not independent, so patients are the units that intervals count or resample. Axes: P
patients, B resamples. Anything undefined is NaN.
"""

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


def proportion_interval(positives: npt.ArrayLike, sizes: npt.ArrayLike) -> Interval:
    """The 95 % interval of sum(positives) / sum(sizes), with one entry per cluster (per patient).

    With one unit per cluster this is Wilson's interval. With more, Wilson's formula gets the effective sample size
    n / deff instead of n. deff is the cluster-robust variance of the ratio over the binomial one, at least 1; the t
    quantile of the number of clusters pays for estimating it from few clusters (Korn and Graubard 1998; compared with
    others, also for rare findings, by Franco et al. 2019). A proportion of 0 or 1 tells nothing about the correlation,
    so each cluster then counts as one unit; a bootstrap would give [0, 0] for a finding never seen.

    positives, sizes: units found positive and units examined, per cluster; clusters of size 0 are dropped. Both ends
    are NaN if nothing was examined.
    """
    positive, examined = np.asarray(positives, np.float64), np.asarray(sizes, np.float64)
    positive, examined = positive[examined > 0], examined[examined > 0]
    total = examined.sum()
    if not len(examined):
        return Interval(math.nan, math.nan, "wilson")
    if examined.max() == 1:
        return Interval(*wilson_interval(positive.sum(), total), "wilson")
    rate = positive.sum() / total
    effective = _effective_size(positive, examined, rate)
    return Interval(*wilson_interval(rate * effective, effective), "clustered_wilson")


def _effective_size(positive: FloatArray, examined: FloatArray, rate: float) -> float:
    """The number of independent units with the same information as these clusters, from 1 to the number of units."""
    total, clusters = float(examined.sum()), len(examined)
    if clusters == 1:
        return 1.0
    if rate in (0.0, 1.0):
        return float(clusters)
    variance = clusters / (clusters - 1) * float(((positive - rate * examined) ** 2).sum()) / total**2
    independent = rate * (1 - rate) / max(variance, 1e-12)
    few = Z_95 / special.stdtrit(clusters - 1, 0.975)
    return float(np.clip(min(independent, total) * few**2, 1.0, total))


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
