"""Random plans of what is killed and when; a seed repeats its plan."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np


class Victim(StrEnum):
    """Parts that a night may lose."""

    TASK_WORKER = "task worker"
    MODEL_ACTOR = "model actor"
    NODE = "node"
    LOST_NODE = "node that is not replaced"
    DRIVER = "driver"
    STORE = "object store"


@dataclass(frozen=True)
class Kill:
    """One kill, `after_s` seconds after the one before it or after the night was started again.

    outage_s: how long the object store is unreachable.
    """

    victim: Victim
    after_s: float
    outage_s: float = 0.0


def plan_kills(seed: int, horizon_s: float) -> list[Kill]:
    """Two to four kills at random instants of a night that takes `horizon_s` if undisturbed."""
    rng = np.random.default_rng(seed)
    victims = list(Victim)
    return [
        Kill(
            victims[rng.integers(len(victims))],
            after_s=float(rng.uniform(0, horizon_s / 2)),
            outage_s=float(rng.uniform(1, 20)),
        )
        for _ in range(rng.integers(2, 5))
    ]
