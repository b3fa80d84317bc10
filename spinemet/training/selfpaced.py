"""Which samples each epoch uses, in which order, and on which process: pure functions of (losses, seed, epoch).

Self-paced learning (Kumar 2010) minimises sum_i v_i L_i + f(v, lambda) over the network's weights and v. The hard
regulariser makes v_i 1 if L_i < lambda, else 0; linear and mixture ones allow values between (Jiang 2014, "Easy Samples
First"). Here lambda is a quantile of the losses, so that a chosen share is admitted. Each class has its own lambda;
with a common one, rare classes would hardly be admitted. All ranks compute the same order and each takes its part, so
no sample is lost or used twice with any number of workers. N samples.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from spinemet.training.config import PacingConfig, Regularizer

IndexArray = npt.NDArray[np.int64]


LEAST = 0.05
"""Smallest weight of an admitted sample."""


def share_at(epoch: int, epochs: int, pacing: PacingConfig | None) -> float:
    """The share of each class to admit in `epoch` (from 0): 1 in the warm epochs, then growing from the first share."""
    if pacing is None or epoch < pacing.warm_epochs:
        return 1.0
    full_epoch = pacing.full_at * epochs
    if epoch >= full_epoch:
        return 1.0
    grown = (epoch - pacing.warm_epochs) / (full_epoch - pacing.warm_epochs)
    return pacing.first_share + (1 - pacing.first_share) * grown


def may_be_best(epoch: int, epochs: int, pacing: PacingConfig | None) -> bool:
    """Whether the model after `epoch` may be kept: once all samples stay admitted, and always after the last epoch.

    Earlier, validation patients who happen to have no hard vertebrae would prefer a model that has never seen any.
    """
    return pacing is None or epoch >= min(pacing.full_at * epochs, epochs - 1)


def admitted(
    losses_N: npt.NDArray[np.floating],
    classes_N: npt.NDArray[np.integer],
    share: float,
    regularizer: Regularizer = "hard",
) -> npt.NDArray[np.float64]:
    """(N,) loss weights: positive for the `share` of each class with the smallest losses (rounded up), else 0.

    hard: 1. linear: 1 - L / lambda, with lambda the class's smallest loss that is not admitted. mixture: 1 for the
    easier half of the admitted samples, then zeta (1 / L - 1 / lambda), with zeta such that the weights have no step.
    No admitted sample weighs less than LEAST, also among equal losses. At the full share all weigh 1. Equal losses are
    admitted in the order of the samples; NaN (not seen yet) comes last.
    """
    weights_N = np.zeros(len(losses_N))
    for one_class in np.unique(classes_N):
        members = np.flatnonzero(classes_N == one_class)
        ranked = members[np.argsort(losses_N[members], kind="stable")]
        count = math.ceil(share * len(members) - 1e-9)
        weights_N[ranked[:count]] = 1
        if regularizer != "hard" and 0 < count < len(members):
            limit = float(losses_N[ranked[count]])
            weights_N[ranked[:count]] = _soft(losses_N[ranked[:count]], limit, regularizer)
    return weights_N


def _soft(losses_N: npt.NDArray[np.floating], limit: float, regularizer: Regularizer) -> npt.NDArray[np.float64]:
    """Weights of the admitted samples, whose losses ascend up to `limit`; 1 if the limit is not known."""
    if not (math.isfinite(limit) and limit > 0):
        return np.ones(len(losses_N))
    losses = np.asarray(losses_N, np.float64)
    if regularizer == "linear":
        weights = 1 - losses / limit
    else:
        easy = float(losses[(len(losses) - 1) // 2])
        if easy <= 0 or easy >= limit:
            return np.ones(len(losses))
        zeta = easy * limit / (limit - easy)
        weights = zeta * (1 / np.maximum(losses, easy) - 1 / limit)
    return np.asarray(np.clip(weights, LEAST, 1))


def order(admitted_N: npt.NDArray[np.bool_], seed: int, epoch: int, size: int | None = None) -> IndexArray:
    """The admitted samples in the random order of `epoch`, each once; only `size` of them if given, all equally likely.

    Weights play no part in the draw: they scale the loss, and would count twice.
    """
    rng = np.random.default_rng([seed, epoch])
    candidates = np.flatnonzero(admitted_N)
    keys = rng.exponential(size=len(admitted_N))[candidates]
    drawn = candidates[np.argsort(keys, kind="stable")[:size]]
    return np.asarray(rng.permutation(drawn), np.int64)


def batches(order_N: IndexArray, batch: int, world: int) -> list[IndexArray]:
    """`order_N` in consecutive batches of at most `batch`; sizes differ by at most 1 and are at least `world`.

    Raises ValueError if there are fewer samples than ranks.
    """
    if len(order_N) < world:
        raise ValueError(f"expected at least {world} samples for {world} workers, found {len(order_N)}")
    count = min(math.ceil(len(order_N) / batch), len(order_N) // world)
    return [np.asarray(part) for part in np.array_split(order_N, count)]


def rank_part(indices: IndexArray, rank: int, world: int) -> IndexArray:
    """The part of `indices` for `rank` of `world`; each index is in the part of exactly one rank."""
    return indices[rank::world]
