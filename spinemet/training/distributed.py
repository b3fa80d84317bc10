"""Workers of the training loop on torch.distributed, whoever started their processes. Knows no Ray."""

from __future__ import annotations

import warnings

import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


class Distributed:
    """`wrap` and `sum` of `training.loop.Workers`, for a process that has joined a group."""

    def __init__(self, rank: int, world: int, device: torch.device) -> None:
        self.rank, self.world, self.device = rank, world, device

    def wrap(self, model: nn.Module) -> nn.Module:
        """`model` with gradients averaged over the processes."""
        if self.world == 1:
            return model
        with warnings.catch_warnings():
            # broadcast_buffers has a new name, which torch 2.11 does not know yet.
            warnings.simplefilter("ignore", FutureWarning)
            # Without it, which before every step would put the first worker's running statistics in place of the
            # others' own; the loop averages them after each epoch.
            return DistributedDataParallel(
                model,
                device_ids=[self.device] if self.device.type == "cuda" else None,
                broadcast_buffers=False,
                gradient_as_bucket_view=True,
            )

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of all processes' `tensor`, on each of them."""
        total = tensor.clone()
        if self.world > 1:
            torch.distributed.all_reduce(total)
        return total
