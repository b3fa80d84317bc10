"""Confidence intervals of proportions whose units come in clusters: vertebrae of one patient are not independent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from spinemet.statistics.measures import Z_95, wilson_interval


@dataclass(frozen=True)
class Interval:
    """A two-sided 95 % confidence interval, and the method that made it (`wilson` or `clustered_wilson`)."""

    low: float
    high: float
    method: str


def proportion_interval(positives: npt.ArrayLike, sizes: npt.ArrayLike) -> Interval:
    """The 95 % interval of sum(positives) / sum(sizes), where each entry is one cluster (one patient).

    With one unit per cluster this is Wilson's interval. With more, Wilson's formula gets the effective sample size
    n / deff instead of n: deff is the cluster-robust variance of the ratio over the binomial one (never under 1), and
    the t quantile of the number of clusters pays for estimating it from few (Korn and Graubard 1998; compared with
    others, also for rare findings, by Franco et al. 2019). A bootstrap would give [0, 0] where nothing was found;
    here a proportion of 0 or 1 tells nothing of the correlation, so each cluster then counts as one unit.

    positives, sizes: per cluster the units found positive and the units looked at; clusters of size 0 are dropped.
    Both ends are NaN where nothing was looked at.
    """
    found, looked = np.asarray(positives, np.float64), np.asarray(sizes, np.float64)
    found, looked = found[looked > 0], looked[looked > 0]
    total, clusters = looked.sum(), len(looked)
    if clusters == 0:
        return Interval(float("nan"), float("nan"), "wilson")
    if looked.max() == 1:
        return Interval(*wilson_interval(found.sum(), total), "wilson")
    rate = found.sum() / total
    effective = _effective_size(found, looked, rate)
    return Interval(*wilson_interval(rate * effective, effective), "clustered_wilson")


def _effective_size(found: npt.NDArray[np.float64], looked: npt.NDArray[np.float64], rate: float) -> float:
    """How many independent units tell as much as these clusters: between 1 and the number of units."""
    total, clusters = float(looked.sum()), len(looked)
    if clusters == 1:
        return 1.0
    if rate in (0.0, 1.0):
        return float(clusters)
    variance = clusters / (clusters - 1) * float(((found - rate * looked) ** 2).sum()) / total**2
    independent = rate * (1 - rate) / max(variance, 1e-12)
    few = Z_95 / special.stdtrit(clusters - 1, 0.975)
    return float(np.clip(min(independent, total) * few**2, 1.0, total))
