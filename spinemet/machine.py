"""The cores and the memory that this process may use: of a machine, or of its part in a container."""

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """How many processes or threads can compute at a time, at least one."""
    return max(1, int(available_cores()))


def available_cores() -> float:
    """Cores that this process may use; a container can have a part of one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _limit("cpu.max").partition(" ")
    return min(cores, int(quota) / int(period)) if quota.isdigit() else cores


def available_memory_gb() -> float:
    """Memory that this process may use, in 10^9 bytes."""
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _limit("memory.max")
    return min(there, int(limit) if limit.isdigit() else there) / 1e9


def _limit(name: str) -> str:
    """The limit of this container, from its cgroup (version 2); empty outside of one."""
    file = CGROUP / name
    return file.read_text().strip() if file.exists() else ""
