"""Full-size studies for the benchmarks: the real chest series and phantoms of 512 x 512, repeated under new UIDs.

The phantoms are drawn once (a minute on one core) and kept in bench/cache.
"""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import obstore
import pydicom

from spinemet.files import open_store
from spinemet.phantom.body.anatomy import place_spine
from spinemet.phantom.dicom import ct_series, encode_one
from spinemet.phantom.plan import StudyPlan, plan_patient
from spinemet.phantom.scan import field_of_view, render
from tests.bench.figures import Missing
from tests.conftest import REALCT

CACHE = Path(__file__).parents[2] / "bench" / "cache"
MATRIX = 512
REGION = "whole"
LIDC = "lidc"
SOURCES = (LIDC, "300", "400", "500", "600")
"""The real series, and phantoms by their number of slices."""
CYCLE = (LIDC, "300", LIDC, "400", LIDC, "500", LIDC, "600")
"""The order of an archive's studies, repeated: any eight neighbours are the same mix."""


def folder_of(source: str) -> Path:
    """The folder of one series of SOURCES, made if it does not exist yet. Raises Missing without the real CT."""
    folder = CACHE / source
    if not folder.exists():
        making = folder.with_suffix(".part")
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True)
        for number, content in enumerate(_real() if source == LIDC else _phantom(int(source))):
            (making / f"{number:04d}.dcm").write_bytes(content)
        making.rename(folder)
    return folder


def upload(archive: str, count: int) -> list[str]:
    """Put `count` studies of CYCLE below `archive`, each under its own UIDs; gives the source of each, in order."""
    store = open_store(archive)
    sources = [CYCLE[number % len(CYCLE)] for number in range(count)]
    with ThreadPoolExecutor(4) as pool:
        for number, source in enumerate(sources):
            folder = folder_of(source)
            paths = sorted(folder.iterdir())
            uids = study_uids(paths[0].read_bytes())
            for put in [
                pool.submit(
                    obstore.put, store, f"study-{number:04d}/{path.name}", renamed(path.read_bytes(), uids, number)
                )
                for path in paths
            ]:
                put.result()
    return sources


def study_uids(content: bytes) -> list[bytes]:
    """The study's and the series' UID of an object."""
    header = pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True)
    return [str(header[name].value).encode() for name in ("StudyInstanceUID", "SeriesInstanceUID")]


def renamed(content: bytes, uids: list[bytes], number: int) -> bytes:
    """The object with other study and series UIDs of the same length, so nothing else needs rewriting."""
    head, pixels = content[:8192], content[8192:]
    for uid in uids:
        head = head.replace(uid, uid[:-4] + f"{1000 + number:04d}".encode())
    return head + pixels


def _real() -> Iterator[bytes]:
    packed = REALCT / "lidc-0314" / "series.tar.xz"
    if not packed.exists():
        raise Missing("real CT is not on this machine")
    with tarfile.open(packed) as tar:
        for member in tar:
            if (content := tar.extractfile(member)) is not None:
                yield content.read()


def phantom_plan(slices: int) -> StudyPlan:
    """A patient with `slices` uncompressed slices from the lower neck to the sacrum."""
    plan = plan_patient(6, slices, MATRIX)[0]
    poses = place_spine(plan.patient.anatomy)
    low, high = field_of_view(poses, REGION, (0.0, 0.0))
    first = plan.scans[0]
    spacing = round((high - low) / slices, 3)
    middle = np.mean([pose.center for pose in poses if low <= pose.center[2] <= high], axis=0)
    scan = replace(
        first,
        center_mm=(float(middle[0]), float(middle[1]) - 55.0, (low + high) / 2),
        shape=(slices, MATRIX, MATRIX),
        spacing=(spacing, 0.7, 0.7),
        thickness=spacing,
    )
    return replace(plan, scans=(scan,), kernels=plan.kernels[:1], region=REGION)


def _phantom(slices: int) -> Iterator[bytes]:
    plan = phantom_plan(slices)
    volume = render(plan.patient.anatomy, plan.scans[0]).volume
    yield from map(encode_one, ct_series(plan, 0, volume))
