"""Changes of class between two examinations, seen through a classifier's errors.

Both examinations err independently, and as they did in the evaluation. Axes: B resamples, Q patterns of counts that
patients share, C classes; in every CC of changes the first axis is the class before, the second the class after.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from spinemet.statistics.correction import Errors
from spinemet.statistics.intervals import FloatArray, percentile_interval

RESAMPLES, SEED = 200, 0
_STEPS, _CLOSE = 5000, 1e-8
_CLOSE_OF_RESAMPLES = 1e-6
_AT_END = 1e-5


def true_shares(called_BCC: FloatArray, errors_BCC: FloatArray, close: float = _CLOSE) -> FloatArray:
    """The shares of true changes under which the called ones are most likely, from 0 to 1.

    called_BCC: shares or counts of called changes. errors_BCC: the true class by rows, how it is called. close: how
    small the last step is. Expectation and maximisation (Dempster, Laird and Rubin 1977).
    """
    total = called_BCC.sum(axis=(-2, -1), keepdims=True)
    called = called_BCC / np.where(total > 0, total, 1)
    turned = np.swapaxes(errors_BCC, -2, -1)
    share = np.full(np.broadcast_shapes(called.shape, errors_BCC.shape), 1 / called.shape[-1] ** 2)
    for _ in range(_STEPS):
        expected = turned @ share @ errors_BCC
        ratio = np.divide(called, expected, out=np.zeros_like(expected), where=expected > 0)
        before, share = share, share * (errors_BCC @ ratio @ turned)
        if np.abs(share - before).max(initial=0) < close:
            break
    return share


def by_error(true_CC: FloatArray, errors_CC: FloatArray) -> FloatArray:
    """(C, C) the shares of called changes if no class truly changed from what it was before."""
    before = true_CC.sum(axis=1)
    return np.asarray(errors_CC.T @ (before[:, None] * errors_CC))


def corrected(
    patterns_QCC: npt.NDArray[np.int64], patients_Q: npt.NDArray[np.int64], errors: Errors
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Of each true class before, the share of each class after, with the 95 % interval; and `by_error` as a count.

    patterns_QCC: the changes of one patient, which `patients_Q` patients have alike. The interval resamples patients
    and draws the errors from what their evaluation leaves open. NaN for a class that nothing
    was before; no interval for a change that no or every vertebra makes.
    """
    counts = np.tensordot(patients_Q, patterns_QCC, axes=1).astype(np.float64)
    classes, patients = counts.shape[0], int(patients_Q.sum())
    if not patients:
        return tuple(np.full((classes, classes), math.nan) for _ in range(4))  # type: ignore[return-value]
    shares = errors.smoothed
    true = true_shares(counts, shares)
    rng = np.random.default_rng(SEED)
    drawn = np.tensordot(rng.multinomial(patients, patients_Q / patients, RESAMPLES), patterns_QCC, axes=1)
    errors_BCC = np.stack(
        [rng.dirichlet(row * (size + 2), RESAMPLES) for row, size in zip(shares, errors.sizes_C, strict=True)], axis=1
    )
    # A bootstrap tells nothing about a change that never or always happened.
    share_CC, share_BCC = (
        _of_before(true),
        _of_before(true_shares(drawn.astype(np.float64), errors_BCC, _CLOSE_OF_RESAMPLES)),
    )
    ends = [
        percentile_interval(float(share_CC[at]), share_BCC[(slice(None), *at)]) for at in np.ndindex(share_CC.shape)
    ]
    low, high = (np.array(side).reshape(share_CC.shape) for side in zip(*ends, strict=True))
    share_CC = np.where(share_CC < _AT_END, 0.0, np.where(share_CC > 1 - _AT_END, 1.0, share_CC))
    told = (share_CC > 0) & (share_CC < 1)
    low, high = np.where(told, low, math.nan), np.where(told, high, math.nan)
    return share_CC, low, high, counts.sum() * by_error(true, shares)


def _of_before(share: FloatArray) -> FloatArray:
    before = share.sum(axis=-1, keepdims=True)
    return np.where(before > 1e-9, share / np.where(before > 1e-9, before, 1), math.nan)
