"""Standardised differences of two groups: how far their characteristics lie apart, whatever the number of patients."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt


def of_means(means: tuple[float, float], deviations: tuple[float, float]) -> float:
    """The difference of two means (second less first) over the root of the mean variance (Austin 2009).

    NaN if nothing varies in either group, or a group has fewer than two values.
    """
    variance = (deviations[0] ** 2 + deviations[1] ** 2) / 2
    return (means[1] - means[0]) / math.sqrt(variance) if variance > 0 else math.nan


def of_shares(counts_2K: npt.ArrayLike) -> float:
    """The distance of two groups' shares of K categories (Yang and Dalton 2012), never negative.

    counts_2K: units of both groups in each category. NaN if a group is empty, or both are all in one category.
    """
    counts = np.asarray(counts_2K, np.float64)
    counts = counts[:, counts.sum(axis=0) > 0]
    totals = counts.sum(axis=1)
    if not totals.all() or counts.shape[1] < 2:
        return math.nan
    # One category follows from the others.
    shares = (counts / totals[:, None])[:, 1:]
    spread = np.mean([np.diag(one) - np.outer(one, one) for one in shares], axis=0)
    apart = shares[1] - shares[0]
    if np.linalg.matrix_rank(spread) < len(spread):
        return math.nan if not apart.any() else math.inf
    return float(math.sqrt(apart @ np.linalg.solve(spread, apart)))
