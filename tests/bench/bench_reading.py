"""A real series from a folder: the reader against a plain pydicom loop over the same files."""

from __future__ import annotations

import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pydicom

from spinemet.config import StudyConfig
from spinemet.storage.archive import study_at
from spinemet.study import read_volume_of
from tests.bench.figures import Figures, Missing, median_seconds
from tests.conftest import REALCT


def run() -> Figures:
    """Seconds per study, headers, series selection and geometry included in ours only."""
    packed = REALCT / "lidc-0314" / "series.tar.xz"
    if not packed.exists():
        raise Missing("real CT is not on this machine")
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(packed) as tar:
            tar.extractall(folder, filter="data")
        paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        plain = median_seconds(lambda: _plain(paths))
        ours = median_seconds(lambda: read_volume_of(study_at(folder), StudyConfig()))
    figures = Figures(f"LIDC chest CT from a folder, {len(paths)} uncompressed slices", ("reader", "s", "ratio"))
    figures.add("pydicom loop, sorted by position, stacked", plain, 1.0)
    figures.add("spinemet", ours, plain / ours)
    return figures


def _plain(paths: list[Path]) -> np.ndarray:
    slices = [pydicom.dcmread(path) for path in paths]
    slices.sort(key=lambda each: float(each.ImagePositionPatient[2]))
    return np.stack(
        [each.pixel_array * float(each.RescaleSlope) + float(each.RescaleIntercept) for each in slices]
    ).astype(np.float32)
