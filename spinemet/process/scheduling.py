"""How Linux shares the cores among processes that only compute.

Where more of them than cores run at a time, each turn begins with refilling the core's cache. With the kernel's turns
of a few ms, four forward passes on two cores cost 10 % more CPU seconds each than one alone, with turns of 100 ms 2 %.
And a process that wakes waits for its turn: it does not push aside one that computes. On other systems nothing changes,
and kernels before 6.12 keep their turns.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys

TURN_NS = 100_000_000
"""The longest that the kernel gives."""
_SYSCALLS = {"x86_64": 314, "aarch64": 274}
"""Of sched_setattr, which neither Python nor most C libraries have."""


def take_long_turns() -> None:
    """Let this thread, and every process that it starts from now on, take long turns on a core."""
    number = _SYSCALLS.get(platform.machine())
    if sys.platform != "linux" or number is None:
        return
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    # struct sched_attr: its size, policy, flags, nice, priority, runtime, deadline, period. Where a container forbids
    # the call it fails, and all stays as it was.
    attributes = struct.pack("=IIQiIQQQ", 48, os.SCHED_BATCH, 0, nice, 0, TURN_NS, 0, 0)
    ctypes.CDLL(None).syscall(number, 0, attributes, 0)
