"""Means, slopes, differences, ratios and kappa of units in patients, with 95 % intervals that count patients.

Vertebrae of one patient are alike, so each patient is one observation: an estimate is linearised, the contributions of
a patient's units are added up, and their spread over the patients gives its variance, with Student's t for the number
of patients (Liang and Zeger 1986; Cameron and Miller 2015). Axes: P patients, C classes. What cannot be estimated is
NaN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from spinemet.statistics.intervals import FloatArray

LEAST_PATIENTS = 5
"""A comparison needs so many patients with and without a finding on each side, else its interval is too narrow."""


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; the ends are NaN if the data cannot tell them."""

    value: float
    low: float = math.nan
    high: float = math.nan


UNKNOWN = Estimate(math.nan)


def clustered_mean(n_P: npt.ArrayLike, sum_P: npt.ArrayLike) -> Estimate:
    """The mean of all units, of each patient's number of units and their sum."""
    n, y = _arrays(n_P, sum_P)
    if n.sum() == 0:
        return UNKNOWN
    mean = float(y.sum() / n.sum())
    return _estimate(mean, (y - mean * n) / n.sum(), _few(len(n), n.sum(), 1))


def clustered_slope(
    n_P: npt.ArrayLike, x_P: npt.ArrayLike, y_P: npt.ArrayLike, xx_P: npt.ArrayLike, xy_P: npt.ArrayLike
) -> Estimate:
    """The slope of the least-squares line of y on x, of each patient's number of units and sums of x, y, x x and x y.

    Take x and y as distances from a usual value: sums of large numbers lose digits. Unknown if x does not vary.
    """
    n, x, y, xx, xy = _arrays(n_P, x_P, y_P, xx_P, xy_P)
    total = n.sum()
    if total < 3:
        return UNKNOWN
    center = x.sum() / total
    spread = xx.sum() - total * center**2
    if spread <= 1e-9 * max(xx.sum(), 1.0):
        return UNKNOWN
    slope = float((xy.sum() - center * y.sum()) / spread)
    level = y.sum() / total - slope * center
    # Of each patient the sum of (x - center) * residual.
    parts = xy - level * x - slope * xx - center * (y - level * n - slope * x)
    return _estimate(slope, parts / spread, _few(len(n), total, 2))


def difference(x_P2: npt.ArrayLike, n_P2: npt.ArrayLike) -> Estimate:
    """The proportion on the second side less that on the first, of each patient's positive and all units on both sides.

    A patient may have units on both sides. Unknown interval with fewer than LEAST_PATIENTS with or without a finding.
    """
    x, n = _arrays(x_P2, n_P2)
    if not n.sum(axis=0).all():
        return UNKNOWN
    share = x.sum(axis=0) / n.sum(axis=0)
    value = float(share[1] - share[0])
    return Estimate(value) if _rare(x, n) else _estimate(value, _parts(x, n, n.sum(axis=0)), _few(len(n)))


def ratio(x_P2: npt.ArrayLike, n_P2: npt.ArrayLike) -> Estimate:
    """The proportion on the second side over that on the first, its interval on the logarithmic scale; as `difference`.

    Unknown if nothing is positive on the first side.
    """
    x, n = _arrays(x_P2, n_P2)
    if not n.sum(axis=0).all() or not x[:, 0].sum():
        return UNKNOWN
    share = x.sum(axis=0) / n.sum(axis=0)
    value = float(share[1] / share[0])
    if _rare(x, n):
        return Estimate(value)
    found = _estimate(math.log(value), _parts(x, n, x.sum(axis=0)), _few(len(n)))
    return Estimate(value, math.exp(found.low), math.exp(found.high))


def kappa(counts_PCC: npt.ArrayLike) -> Estimate:
    """Cohen's kappa of two readers, of each patient's counts of their pairs of answers.

    With one unit per patient the variance is that of Fleiss, Cohen and Everitt (1969), times P / (P - 1). Unknown if
    both gave one and the same class to all.
    """
    (counts,) = _arrays(counts_PCC)
    total_CC = counts.sum(axis=0)
    total = total_CC.sum()
    if not total:
        return UNKNOWN
    rows, columns = total_CC.sum(axis=1) / total, total_CC.sum(axis=0) / total
    found, by_chance = np.trace(total_CC) / total, float(rows @ columns)
    if by_chance > 1 - 1e-12:
        return UNKNOWN
    value = float((found - by_chance) / (1 - by_chance))
    # The derivative of kappa by the share of each pair; what it is on average drops out.
    pair_CC = columns[:, None] + rows[None, :]
    slope_CC = (np.eye(len(total_CC)) - pair_CC * (1 - found) / (1 - by_chance)) / (1 - by_chance)
    slope_CC = slope_CC - (slope_CC * total_CC).sum() / total
    parts = np.tensordot(counts, slope_CC, axes=2) / total
    estimate = _estimate(value, parts, _few(len(counts)))
    return Estimate(value, max(estimate.low, -1.0), min(estimate.high, 1.0))


def _arrays(*values: npt.ArrayLike) -> list[FloatArray]:
    return [np.asarray(one, np.float64) for one in values]


def _few(patients: int, units: float = math.inf, parameters: int = 0) -> float:
    """The factor on a variance that pays for few patients, and for parameters fitted to few units."""
    if patients < 2 or units <= parameters:
        return math.nan
    return patients / (patients - 1) * ((units - 1) / (units - parameters) if parameters else 1.0)


def _estimate(value: float, parts_P: FloatArray, factor: float) -> Estimate:
    """The interval of an estimate to which each patient contributes one of `parts_P`, which add up to 0."""
    if math.isnan(factor):
        return Estimate(value)
    half = float(special.stdtrit(len(parts_P) - 1, 0.975)) * math.sqrt(factor * float(parts_P @ parts_P))
    return Estimate(value, value - half, value + half) if half > 0 else Estimate(value)


def _parts(x_P2: FloatArray, n_P2: FloatArray, over_2: FloatArray) -> FloatArray:
    """(P,) what each patient adds to the difference: residuals of each side over `over_2`, second less first."""
    share = x_P2.sum(axis=0) / n_P2.sum(axis=0)
    parts: FloatArray = ((x_P2 - share * n_P2) / over_2) @ np.array([-1.0, 1.0])
    return parts


def _rare(x_P2: FloatArray, n_P2: FloatArray) -> bool:
    """Whether one side has too few patients with a positive unit, or with a negative one."""
    return bool(min((x_P2 > 0).sum(axis=0).min(), (n_P2 > x_P2).sum(axis=0).min()) < LEAST_PATIENTS)
