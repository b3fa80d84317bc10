"""The loss of many tasks on samples of which each has some of the labels. T tasks, N samples."""

from __future__ import annotations

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
    """(T, N) cross entropy of each sample in each task; exactly 0, with no gradient, where the label is MISSING."""
    return torch.stack(
        [
            functional.cross_entropy(
                logits[task.name], targets_N, ignore_index=MISSING, reduction="none", label_smoothing=label_smoothing
            )
            for task, targets_N in zip(tasks, targets_TN, strict=True)
        ]
    )


def sample_weights(targets_TN: npt.NDArray[np.int64], tasks: Sequence[Task], balance: float) -> npt.NDArray[np.float32]:
    """(T, N) weight of each sample in each task: 0 where MISSING, else its class's, with mean 1 over the labelled.

    balance: a class weighs its frequency to the power of minus this; 0 gives every labelled sample the weight 1.
    """
    weights_TN = np.zeros(targets_TN.shape, np.float32)
    for targets_N, weights_N, task in zip(targets_TN, weights_TN, tasks, strict=True):
        known = targets_N != MISSING
        if known.any():
            counts = np.bincount(targets_N[known], minlength=len(task.classes))
            class_weights = np.maximum(counts, 1.0) ** -balance
            weights_N[known] = class_weights[targets_N[known]]
            weights_N[known] /= weights_N[known].mean()
    return weights_TN


def weighted_loss(losses_TN: Tensor, weights_TN: Tensor, totals_T: Tensor, tasks: Sequence[Task]) -> Tensor:
    """The scalar to minimise: per task the weighted mean over the batch, then the tasks' weighted sum.

    totals_T: the sum of each task's weights over the whole batch, of which this process may hold a part only.
    """
    means_T = (losses_TN * weights_TN).sum(dim=1) / totals_T.clamp_min(1e-8)
    return (means_T * means_T.new_tensor([task.weight for task in tasks])).sum()
