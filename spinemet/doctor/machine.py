"""Checks of this machine: Python, cores, memory, GPU. In a container its limits count, not the host's size."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from spinemet.doctor.findings import Finding, Level

OLDEST_PYTHON, NEWEST_PYTHON = (3, 11), (3, 13)
"""requirements.lock holds wheels for these and for all between."""
READING_GB, MODEL_GB = 2.0, 1.0
"""Of memory: one study of 1,000 slices while it is read, and one model worker."""
CGROUP = Path("/sys/fs/cgroup")


def check_machine() -> Iterator[Finding]:
    """Python, cores, memory and GPU, one after another."""
    yield check_python(sys.version_info[:2])
    cores = available_cores()
    yield check_cores(cores)
    yield check_memory(available_memory_gb(), cores)
    yield check_gpu()


def check_python(version: tuple[int, int]) -> Finding:
    """Whether SpineMet is tested with this version."""
    name = ".".join(map(str, version))
    if version < OLDEST_PYTHON:
        return Finding("Python", Level.PROBLEM, f"{name} is too old", "Install Python 3.11, 3.12 or 3.13.")
    if version > NEWEST_PYTHON:
        remedy = "If a package fails to install or to import, use Python 3.13."
        return Finding("Python", Level.WARNING, f"{name} is newer than what SpineMet is tested with", remedy)
    return Finding("Python", Level.OK, name)


def check_cores(cores: float) -> Finding:
    """Whether reading and classifying can go on at the same time."""
    if cores < 2:
        remedy = "Give it two or more: one reads studies while another classifies."
        return Finding("cores", Level.WARNING, f"{cores:g}; jobs run, but slowly", remedy)
    return Finding("cores", Level.OK, f"{cores:g}")


def check_memory(gigabytes: float, cores: float) -> Finding:
    """Whether memory suffices for a study on every core, with as many model workers as a job starts on CPUs."""
    enough = READING_GB * cores + MODEL_GB * max(1.0, cores // 2)
    if gigabytes < READING_GB + MODEL_GB:
        remedy = f"SpineMet needs {READING_GB + MODEL_GB:g} GB for one study at a time."
        return Finding("memory", Level.PROBLEM, f"{gigabytes:.1f} GB", remedy)
    if gigabytes < enough:
        remedy = f"Large studies on all {cores:g} cores at a time take up to {enough:g} GB; use fewer cores."
        return Finding("memory", Level.WARNING, f"{gigabytes:.1f} GB", remedy)
    return Finding("memory", Level.OK, f"{gigabytes:.1f} GB")


def check_gpu() -> Finding:
    """The GPUs that torch sees, or whether it misses one that the driver has."""
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        return Finding("GPU", Level.OK, ", ".join(names))
    if Path("/dev/nvidia0").exists():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built for CPUs only"
        remedy = "Install a torch that fits the driver (`nvidia-smi` shows its CUDA version), or update the driver."
        return Finding("GPU", Level.WARNING, f"there is one, but torch ({built}) cannot use it", remedy)
    return Finding("GPU", Level.OK, "none; models run on the CPU")


def available_cores() -> float:
    """Cores that this process may use."""
    try:
        cores: float = len(os.sched_getaffinity(0))  # type: ignore[attr-defined,unused-ignore]
    except AttributeError:  # macOS
        cores = os.cpu_count() or 1
    quota, _, period = _limit("cpu.max").partition(" ")
    return min(cores, int(quota) / int(period)) if quota.isdigit() else cores


def available_memory_gb() -> float:
    """Memory that this process may use, in 10^9 bytes."""
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _limit("memory.max")
    return min(there, int(limit) if limit.isdigit() else there) / 1e9


def _limit(name: str) -> str:
    """What a cgroup (version 2) says of this container; empty outside of one."""
    try:
        return (CGROUP / name).read_text().strip()
    except OSError:
        return ""
