"""The loss of several tasks on samples that have labels for some of them. T tasks, N samples."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from spinemet.model.tasks import MISSING, Task


def task_losses(
    logits: Mapping[str, Tensor], targets_TN: Tensor, tasks: Sequence[Task], label_smoothing: float
) -> Tensor:
    """(T, N) cross entropy of each sample in each task; exactly 0 and without a gradient if the label is MISSING."""
    return torch.stack(
        [
            functional.cross_entropy(
                logits[task.name], targets_N, ignore_index=MISSING, reduction="none", label_smoothing=label_smoothing
            )
            for task, targets_N in zip(tasks, targets_TN, strict=True)
        ]
    )


def sample_weights(targets_TN: npt.NDArray[np.int64], tasks: Sequence[Task], balance: float) -> npt.NDArray[np.float32]:
    """(T, N) weight of each sample of a training set in each task: 0 if MISSING, else the weight of its class.

    In each task the mean weight of all samples is 1. So the mean of weight times loss over any batch estimates the same
    quantity, whatever labels the batch happens to hold. balance: a class weighs its frequency ** -balance; with 0 all
    classes weigh the same.
    """
    weights_TN = np.zeros(targets_TN.shape, np.float32)
    for targets_N, weights_N, task in zip(targets_TN, weights_TN, tasks, strict=True):
        known = targets_N != MISSING
        if known.any():
            counts = np.bincount(targets_N[known], minlength=len(task.classes))
            class_weights = np.maximum(counts, 1.0) ** -balance
            weights_N[known] = class_weights[targets_N[known]]
    return weights_TN / np.maximum(weights_TN.mean(axis=1, keepdims=True), 1e-8)


def weighted_loss(losses_TN: Tensor, weights_TN: Tensor, count: int, tasks: Sequence[Task]) -> Tensor:
    """The scalar to minimise: the mean over tasks of the mean of weight times loss over the batch.

    A mean and not a sum over tasks: the limit on the gradient then means the same for one task as for four. count:
    samples of the whole batch; this process may hold only a part of them.
    """
    task_T = losses_TN.new_tensor([task.weight for task in tasks])
    return ((losses_TN * weights_TN).sum(dim=1) * task_T).sum() / (count * task_T.sum())
