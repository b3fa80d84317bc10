"""Which samples each epoch uses, in which order, and on which process: pure functions of (losses, seed, epoch).

Self-paced learning (Kumar 2010) admits the samples with a loss below lambda. Here lambda is a quantile of the losses:
it admits a chosen share. Each class has its own lambda; with a common one, rare classes would hardly be admitted. All
ranks compute the same order and each takes its part, so no sample is lost or used twice with any number of workers. T
tasks, N samples.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from spinemet.model.tasks import MISSING, Task
from spinemet.training.config import PacingConfig

IndexArray = npt.NDArray[np.int64]


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


def difficulty(
    losses_TN: npt.NDArray[np.floating], targets_TN: npt.NDArray[np.integer], tasks: Sequence[Task]
) -> npt.NDArray[np.float64]:
    """(N,) how hard each sample is: the weighted mean, over the tasks that it has a label for, of its loss over the
    mean loss in that task.

    So a task with large losses does not decide alone, and a missing label makes a sample neither easy nor hard.
    losses_TN: all of one model in evaluation mode, without augmentation: only such losses can be compared.
    """
    known_TN = targets_TN != MISSING
    losses_TN = np.where(known_TN, losses_TN, 0.0).astype(np.float64)
    mean_T = losses_TN.sum(axis=1) / np.maximum(known_TN.sum(axis=1), 1)
    weights_TN = known_TN * np.array([task.weight for task in tasks])[:, None]
    relative_TN = losses_TN / np.maximum(mean_T, 1e-12)[:, None]
    return np.asarray((weights_TN * relative_TN).sum(axis=0) / weights_TN.sum(axis=0))


def admitted(
    losses_N: npt.NDArray[np.floating], classes_N: npt.NDArray[np.integer], share: float
) -> npt.NDArray[np.bool_]:
    """(N,) True for the `share` of each class with the smallest losses (rounded up).

    Equal losses are admitted in the order of the samples; NaN (not seen yet) comes last.
    """
    admitted_N = np.zeros(len(losses_N), np.bool_)
    for one_class in np.unique(classes_N):
        members = np.flatnonzero(classes_N == one_class)
        ranked = members[np.argsort(losses_N[members], kind="stable")]
        admitted_N[ranked[: math.ceil(share * len(members) - 1e-9)]] = True
    return admitted_N


def order(admitted_N: npt.NDArray[np.bool_], seed: int, epoch: int, size: int | None = None) -> IndexArray:
    """The admitted samples in the random order of `epoch`, each once; if given, only `size` of them, drawn evenly."""
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
