"""The processes that train one model together: what the loop needs of them, one process, and several. Knows no Ray."""

import abc
import copy
import warnings
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

State = dict[str, Any]
"""Tensors, numbers and dicts of them, which `torch.load(..., weights_only=True)` can read."""


class Workers(abc.ABC):
    """Process number `rank` of the `world` that train together in a group of torch.distributed, or a single one."""

    def __init__(self, rank: int, world: int, device: torch.device) -> None:
        self.rank, self.world, self.device = rank, world, device

    @abc.abstractmethod
    def report(self, metrics: Mapping[str, float], state: State) -> None:
        """Store an epoch's metrics and state; every process calls it after every epoch."""

    @abc.abstractmethod
    def resume(self) -> State | None:
        """The newest stored state, None at the start."""

    def wrap(self, model: nn.Module) -> nn.Module:
        """`model` itself in a single process, else with gradients averaged over the group."""
        if self.world == 1:
            return model
        with warnings.catch_warnings():
            # torch warns of a new name for broadcast_buffers, which torch 2.11 does not have yet.
            warnings.simplefilter("ignore", FutureWarning)
            # With broadcast_buffers, the first worker's running statistics would replace the others' before every
            # step. The loop averages them after each epoch instead.
            return DistributedDataParallel(
                model,
                device_ids=[self.device] if self.device.type == "cuda" else None,
                broadcast_buffers=False,
                gradient_as_bucket_view=True,
            )

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of all processes' `tensor`; each process gets it."""
        total = tensor.clone()
        if self.world > 1:
            torch.distributed.all_reduce(total)
        return total


class OneProcess(Workers):
    """A single process that keeps its state in memory: for tests, and for training without a cluster."""

    def __init__(self, state: State | None = None, device: str = "cpu") -> None:
        super().__init__(0, 1, torch.device(device))
        self.history: list[dict[str, float]] = []
        self.state = state

    def report(self, metrics: Mapping[str, float], state: State) -> None:
        self.history.append(dict(metrics))
        self.state = copy.deepcopy(state)

    def resume(self) -> State | None:
        return copy.deepcopy(self.state)
