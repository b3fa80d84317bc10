"""A real series from a folder: the reader against SimpleITK and a plain pydicom loop over the same files.

Each reader is given the folder and returns HU; ours also groups and selects series and checks the geometry. SimpleITK
is ITK with GDCM's decoders, what most of this field reads CT with.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
import SimpleITK

from spinemet.config import StudyConfig
from spinemet.storage.archive import study_at
from spinemet.study import read_volume_of
from tests.bench.figures import Figures
from tests.bench.series import SLICES, SYNTAXES, folder_of

REPEATS = 5


def run() -> Figures:
    """Seconds per series, medians of REPEATS rounds in which the readers take turns, and peak memory per volume."""
    figures = Figures(
        f"Chest CT from a folder, {SLICES} slices of 512 x 512",
        ("syntax", *(f"{name} s" for name in READERS), "times the faster other", "peak memory / volume"),
        f"medians of {REPEATS} interleaved rounds; memory: peak over what a fresh process holds after its imports",
    )
    for syntax in SYNTAXES:
        folder = folder_of(syntax)
        volumes = {name: read(folder) for name, read in READERS.items()}  # warms caches
        for hu_DHW in volumes.values():
            np.testing.assert_array_equal(hu_DHW, volumes["spinemet"])
        seconds = interleaved({name: partial(read, folder) for name, read in READERS.items()}, REPEATS)
        faster = min(seconds["pydicom loop"], seconds["SimpleITK"])
        figures.add(syntax, *seconds.values(), faster / seconds["spinemet"], peak_memory("spinemet", folder))
    return figures


def interleaved(work: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each, taken in turns, so that whatever else the machine does meets all of them."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(repeats):
        for name, call in work.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def with_spinemet(folder: Path) -> npt.NDArray[np.int16]:
    return read_volume_of(study_at(folder), StudyConfig()).hu_DHW


def with_simpleitk(folder: Path) -> npt.NDArray[np.int16]:
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return SimpleITK.GetArrayFromImage(reader.Execute())


def with_pydicom(folder: Path) -> npt.NDArray[np.int16]:
    slices = [pydicom.dcmread(path) for path in folder.iterdir()]
    slices.sort(key=lambda each: float(each.ImagePositionPatient[2]))
    return np.stack(
        [each.pixel_array.astype(np.int16) * int(each.RescaleSlope) + int(each.RescaleIntercept) for each in slices]
    )


READERS = {"pydicom loop": with_pydicom, "SimpleITK": with_simpleitk, "spinemet": with_spinemet}


def peak_memory(reader: str, folder: Path) -> float:
    """Peak resident bytes over those after imports, per byte of the volume, of a process that reads it once (Linux)."""
    printed = subprocess.run(
        [sys.executable, "-m", "tests.bench.bench_reading", reader, str(folder)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return float(printed)


def main() -> None:
    """Print the peak memory of one reader in this process; see peak_memory."""
    read, folder = READERS[sys.argv[1]], Path(sys.argv[2])
    # Not ru_maxrss, which a child inherits from the process that started it.
    Path("/proc/self/clear_refs").write_text("5")
    before = _kilobytes("VmHWM")
    volume_bytes = read(folder).astype(np.int16, copy=False).nbytes
    print((_kilobytes("VmHWM") - before) * 1024 / volume_bytes)


def _kilobytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])


if __name__ == "__main__":
    main()
