"""Who is learned from, when, and by which process: pure functions of (losses, seed, epoch).

Self-paced learning (Kumar 2010) minimises sum_i v_i L_i - lambda sum_i v_i over weights and v. With the hard
regulariser v_i is 1 where L_i < lambda, else 0. lambda is a quantile of the losses here, so that a chosen share is
admitted, and one per class (Jiang 2014), else the rare classes starve. Every rank computes the same order from the
same inputs and takes its part: no sample is lost or doubled, whatever the number of workers. N samples.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from spinemet.recipes import PacingConfig

IndexArray = npt.NDArray[np.int64]


def share_at(epoch: int, epochs: int, pacing: PacingConfig | None) -> float:
    """The share of each class to admit in `epoch` (from 0): 1 while warming up, then from the first share up to 1."""
    if pacing is None or epoch < pacing.warm_epochs:
        return 1.0
    full_epoch = pacing.full_at * epochs
    if epoch >= full_epoch:
        return 1.0
    grown = (epoch - pacing.warm_epochs) / (full_epoch - pacing.warm_epochs)
    return pacing.first_share + (1 - pacing.first_share) * grown


def may_be_best(epoch: int, epochs: int, pacing: PacingConfig | None) -> bool:
    """Whether the model after `epoch` may be the one that is kept: only once the hard samples are admitted for good.

    Before that, a few validation patients without hard vertebrae would crown a model that has never seen any. The
    last epoch always may.
    """
    return pacing is None or epoch >= min(pacing.full_at * epochs, epochs - 1)


def admitted(
    losses_N: npt.NDArray[np.floating], classes_N: npt.NDArray[np.integer], share: float
) -> npt.NDArray[np.float64]:
    """(N,) weights, 1 for the `share` of each class with the smallest losses (rounded up), 0 for the rest.

    Equal losses are taken in the order of the samples; NaN (not seen yet) comes last.
    """
    weights_N = np.zeros(len(losses_N))
    for one_class in np.unique(classes_N):
        members = np.flatnonzero(classes_N == one_class)
        count = math.ceil(share * len(members) - 1e-9)
        weights_N[members[np.argsort(losses_N[members], kind="stable")[:count]]] = 1
    return weights_N


def order(weights_N: npt.NDArray[np.floating], seed: int, epoch: int, size: int | None = None) -> IndexArray:
    """The samples of `epoch` in the order in which they are learned from, each at most once.

    Samples of weight 0 never come; with `size`, that many are drawn with odds in proportion to their weights
    (Efraimidis and Spirakis 2006), or all of positive weight where there are fewer.
    """
    rng = np.random.default_rng([seed, epoch])
    candidates = np.flatnonzero(weights_N > 0)
    keys = rng.exponential(size=len(weights_N))[candidates] / weights_N[candidates]
    drawn = candidates[np.argsort(keys, kind="stable")[:size]]
    return np.asarray(rng.permutation(drawn), np.int64)


def batches(order_N: IndexArray, batch: int, world: int) -> list[IndexArray]:
    """`order_N` in consecutive batches of at most `batch`, equal to within one, none too small for `world` ranks.

    Raises ValueError where there are fewer samples than ranks.
    """
    if len(order_N) < world:
        raise ValueError(f"expected at least {world} samples for {world} workers, found {len(order_N)}")
    count = min(math.ceil(len(order_N) / batch), len(order_N) // world)
    return [np.asarray(part) for part in np.array_split(order_N, count)]


def rank_part(indices: IndexArray, rank: int, world: int) -> IndexArray:
    """What `rank` of `world` takes of `indices`; the parts of all ranks are disjoint and make up the whole."""
    return indices[rank::world]
