"""A real series from a folder: the reader against SimpleITK and a plain pydicom loop over the same files.

Each reader is given the folder and returns HU; ours also groups and selects series and checks the geometry. SimpleITK
is ITK with GDCM's decoders, what most of this field reads CT with. What no reader with these decoders can pass is
measured beside it: the same pixels, already in memory, decoded and nothing else, in one thread and in all.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pydicom
import SimpleITK

from spinemet.archive.listing import open_study, study_at
from spinemet.config import StudyConfig
from spinemet.dicom.decoding import decoding_threads
from spinemet.dicom.headers import read_series
from spinemet.dicom.pixels import quick_hu
from spinemet.study import read_volume_of
from spinemet.types import InstanceHeader
from tests.bench.figures import Figures
from tests.bench.series import NIFTI, SLICES, SYNTAXES, folder_of, nifti_of

REPEATS = 5
FORMS = (*SYNTAXES, *NIFTI)


def run() -> Figures:
    """Median seconds per series over REPEATS rounds in which the readers take turns, and peak memory per volume."""
    threads = decoding_threads()
    figures = Figures(
        f"Chest CT from a folder, {SLICES} slices of 512 x 512",
        (
            *("form", *(f"{name} s" for name in READERS), "times the faster other", "peak memory / volume"),
            *("decoding alone, 1 thread s", f"{threads} threads s", "bound: times the faster other"),
        ),
        f"medians of {REPEATS} interleaved rounds; the plain loop is pydicom's, nibabel's for NIfTI; memory: peak over "
        "what a fresh process holds after its imports; bound: the faster other / decoding alone in all threads",
    )
    for form in FORMS:
        place = place_of(form)
        readers: dict[str, Callable[[], object]] = {name: partial(read, place) for name, read in READERS.items()}
        volumes = {name: read() for name, read in readers.items()}  # warms caches
        for hu_DHW in volumes.values():
            np.testing.assert_array_equal(hu_DHW, volumes["spinemet"])
        alone = {} if form in NIFTI else {n: partial(decode, slices_of(place), n) for n in {1, threads}}
        seconds = interleaved(readers | {str(n): work for n, work in alone.items()}, REPEATS)
        faster = min(seconds["plain loop"], seconds["SimpleITK"])
        figures.add(
            form,
            *(seconds[name] for name in READERS),
            faster / seconds["spinemet"],
            peak_memory("spinemet", place),
            *((seconds["1"], seconds[str(threads)], faster / seconds[str(threads)]) if alone else ("", "", "")),
        )
    return figures


def place_of(form: str) -> Path:
    return nifti_of(form) if form in NIFTI else folder_of(form)


def slices_of(folder: Path) -> list[tuple[bytes, InstanceHeader]]:
    """The objects of a series with their headers."""
    with open_study(study_at(folder)) as objects:
        instances = read_series(objects).series[0].instances
        return [(objects.read(item.name), item) for item in instances]


def decode(slices: list[tuple[bytes, InstanceHeader]], threads: int) -> None:
    """Decode the slices as the reader does, and drop them."""
    with ThreadPoolExecutor(threads) as pool:
        for hu_HW in pool.map(lambda pair: quick_hu(*pair), slices):
            assert hu_HW is not None


def interleaved(work: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each. They take turns, so that other work on the machine disturbs all of them alike."""
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
    if folder.is_file():
        return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(folder))
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return SimpleITK.GetArrayFromImage(reader.Execute())


def plainly(folder: Path) -> npt.NDArray[np.int16]:
    if folder.is_file():
        return np.array(
            nib.load(folder).dataobj
        ).T  # a copy in memory, as the others make, instead of a map of the file
    slices = [pydicom.dcmread(path) for path in folder.iterdir()]
    slices.sort(key=lambda each: float(each.ImagePositionPatient[2]))
    return np.stack(
        [each.pixel_array.astype(np.int16) * int(each.RescaleSlope) + int(each.RescaleIntercept) for each in slices]
    )


READERS = {"plain loop": plainly, "SimpleITK": with_simpleitk, "spinemet": with_spinemet}


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
    # ru_maxrss is of no use: a child inherits it from the process that started it.
    Path("/proc/self/clear_refs").write_text("5")
    before = _kilobytes("VmHWM")
    volume_bytes = read(folder).astype(np.int16, copy=False).nbytes
    print((_kilobytes("VmHWM") - before) * 1024 / volume_bytes)


def _kilobytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])


if __name__ == "__main__":
    main()
