"""Threads in place of the processes of a training run: no cluster, the same numbers."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Together:
    """One of several threads: sums wait at a barrier, and hooks average gradients as DDP does."""

    def __init__(self, rank: int, world: int, shared: dict[str, Any]) -> None:
        self.rank, self.world, self.device, self._shared = rank, world, torch.device("cpu"), shared
        self.history: list[dict[str, float]] = []

    def sum(self, tensor: Tensor) -> Tensor:
        self._shared[self.rank] = tensor
        self._shared["barrier"].wait()
        total = torch.stack([self._shared[rank] for rank in range(self.world)]).sum(dim=0)
        self._shared["barrier"].wait()
        return total

    def wrap(self, model: nn.Module) -> nn.Module:
        with torch.no_grad():
            for tensor in model.state_dict().values():  # rank 0's weights count; threads share a random generator
                tensor.copy_(self.sum(tensor if self.rank == 0 else torch.zeros_like(tensor)))
        for parameter in model.parameters():
            parameter.register_hook(lambda gradient: self.sum(gradient) / self.world)
        return model

    def report(self, metrics: Mapping[str, float], state: dict[str, Any]) -> None:
        self.history.append(dict(metrics))

    def resume(self) -> None:
        return None


def two_threads() -> list[Together]:
    shared: dict[str, Any] = {"barrier": threading.Barrier(2)}
    return [Together(rank, 2, shared) for rank in range(2)]
