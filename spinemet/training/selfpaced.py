"""Who is learned from, when, and by which process: pure functions of (losses, seed, epoch).

Self-paced learning (Kumar 2010) minimises sum_i v_i L_i + f(v, lambda) over weights and v. With the hard regulariser
v_i is 1 where L_i < lambda, else 0; linear and mixture ones give v_i between (Jiang 2014, "Easy Samples First"). lambda
is a quantile of the losses here, so that a chosen share is admitted, and one per class, else the rare classes starve.
Every rank computes the same order from the same inputs and takes its part: no sample is lost or doubled, whatever the
number of workers. N samples.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from spinemet.training.config import PacingConfig, Regularizer

IndexArray = npt.NDArray[np.int64]


LEAST = 0.05
"""Weight of an admitted sample whose loss is at the limit."""


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
    losses_N: npt.NDArray[np.floating],
    classes_N: npt.NDArray[np.integer],
    share: float,
    regularizer: Regularizer = "hard",
) -> npt.NDArray[np.float64]:
    """(N,) weights, 0 for all but the `share` of each class with the smallest losses (rounded up).

    hard: those weigh 1. linear: 1 - L / lambda, where lambda is the smallest loss of the class that is not admitted.
    mixture: 1 up to half the admitted, beyond zeta (1 / L - 1 / lambda), with zeta such that there is no step. Neither
    is below LEAST, so that the share is what was asked for, even among equal losses. All weigh 1 at the full share.
    Equal losses are taken in the order of the samples; NaN (not seen yet) comes last.
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
    """Weights of the admitted, whose losses ascend up to `limit`; 1 where it is not known."""
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
