"""Checks of this machine: Python, cores, memory, GPU. In a container its limits count, not the host's size."""

from pathlib import Path

from spinemet.doctor.findings import Level, Trouble, check

READING_GB, MODEL_GB = 2.0, 1.0
"""Of memory: one study of 1,000 slices while it is read, and one model worker."""


@check("Python")
def check_python(version: tuple[int, int]) -> str:
    """Whether requirements.lock holds wheels for this version."""
    name = ".".join(map(str, version))
    if version < (3, 11):
        raise Trouble(f"{name} is too old", "Install Python 3.11, 3.12 or 3.13.")
    if version > (3, 13):
        remedy = "If a package fails to install or to import, use Python 3.13."
        raise Trouble(f"{name} is newer than what SpineMet is tested with", remedy, Level.WARNING)
    return name


@check("cores")
def check_cores(cores: float) -> str:
    """Whether reading and classifying can go on at the same time."""
    if cores < 2:
        remedy = "Give it two or more: one reads studies while another classifies."
        raise Trouble(f"{cores:g}; jobs run, but slowly", remedy, Level.WARNING)
    return f"{cores:g}"


@check("memory")
def check_memory(gigabytes: float, cores: float) -> str:
    """Whether memory suffices for a study on every core, with as many model workers as a job starts on CPUs."""
    found, least = f"{gigabytes:.1f} GB", READING_GB + MODEL_GB
    enough = READING_GB * cores + MODEL_GB * max(1.0, cores // 2)
    if gigabytes < least:
        raise Trouble(found, f"SpineMet needs {least:g} GB for one study at a time.")
    if gigabytes < enough:
        remedy = f"Large studies on all {cores:g} cores at a time take up to {enough:g} GB; use fewer cores."
        raise Trouble(found, remedy, Level.WARNING)
    return found


@check("GPU")
def check_gpu() -> str:
    """The GPUs that torch sees, or whether it misses one that the driver has."""
    import torch

    if torch.cuda.is_available():
        return ", ".join(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
    if Path("/dev/nvidia0").exists():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built for CPUs only"
        remedy = "Install a torch that fits the driver (`nvidia-smi` shows its CUDA version), or update the driver."
        raise Trouble(f"there is one, but torch ({built}) cannot use it", remedy, Level.WARNING)
    return "none; models run on the CPU"
