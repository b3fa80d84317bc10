"""Left stays left, from the input's bytes to the columns that the model sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from spinemet.archive.listing import study_at
from spinemet.config import StudyConfig
from spinemet.dicom.volume import write_nifti
from spinemet.reading import Screened, StudyReading
from spinemet.study import read_study
from spinemet.types import Volume
from tests.dicom.writer import set_pixels, write_series
from tests.spine.volumes import reorder_volume

MARKER_MM, MARKER_HU = 6.0, 1800
BESIDE_MM = 36.0


@pytest.fixture(scope="module")
def marked(abdomen: Volume) -> Volume:
    """The TotalSegmentator example with a dense ball in the muscle to the left of L3."""
    from spinemet.spine.geometric import geometric_spine

    (third,) = (v for v in geometric_spine(abdomen).vertebrae if v.level == "L3")
    ball = np.add(third.center_mm, (BESIDE_MM, 0.0, 0.0))
    index = np.stack(np.meshgrid(*map(np.arange, abdomen.hu_DHW.shape), indexing="ij"), axis=-1)
    near = np.linalg.norm(abdomen.to_lps(index) - ball, axis=-1) < MARKER_MM
    assert near.sum() > 10
    return Volume(np.where(near, MARKER_HU, abdomen.hu_DHW).astype(np.int16), abdomen.affine)


def _check_left(reading: StudyReading) -> None:
    """L3's slices show the ball on the image's right, as a radiologist sees it, and not on the left."""
    assert isinstance(reading, Screened)
    (stack,) = (s for s in reading.stacks if s.level == "L3")
    middle = stack.hu_NHW.shape[2] // 2
    off = round((BESIDE_MM - MARKER_MM / 2) / stack.pixel_mm)
    right, left = stack.hu_NHW[:, :, : middle - off], stack.hu_NHW[:, :, middle + off :]
    assert left.max() > 0.8 * MARKER_HU
    assert right.max() < 0.5 * MARKER_HU
    (vertebra,) = (v for v in reading.spine.vertebrae if v.level == "L3")
    assert vertebra.axes[0, 0] > 0.9


# Head first supine, head first prone, feet first supine, feet first prone; slices stored in either direction.
POSITIONS = {
    "HFS": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
    "HFP": ((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0)),
    "FFS": ((-1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
    "FFP": ((1.0, 0.0, 0.0), (0.0, -1.0, 0.0)),
}


@pytest.mark.parametrize(("position", "upward"), [("HFS", True), ("HFP", False), ("FFS", False), ("FFP", True)])
def test_dicom_in_every_position(marked: Volume, tmp_path: Path, position: str, upward: bool) -> None:
    row, column = POSITIONS[position]
    flips = (not upward, column[1] < 0, row[0] < 0)
    volume = reorder_volume(marked, (0, 1, 2), flips)
    d, h, w = volume.spacing_mm

    def pixels(dataset: Dataset, place: int) -> None:
        set_pixels(dataset, np.asarray(volume.hu_DHW[place] + 1024, np.int16))

    write_series(
        tmp_path / "study",
        count=len(volume.hu_DHW),
        step=tuple(volume.affine[:3, 0]),
        origin=tuple(volume.affine[:3, 3]),
        row=row,
        column=column,
        shape=(2, 2),
        pixel_spacing=(h, w),
        edit=pixels,
    )
    assert d == pytest.approx(3.0)
    _check_left(read_study(study_at(tmp_path / "study"), StudyConfig()))


@pytest.mark.parametrize(
    ("order", "flips"),
    [((2, 1, 0), (False, False, False)), ((1, 2, 0), (True, True, False))],
)
def test_nifti_in_other_orders(
    marked: Volume, tmp_path: Path, order: tuple[int, int, int], flips: tuple[bool, bool, bool]
) -> None:
    path = tmp_path / "ct.nii.gz"
    write_nifti(reorder_volume(marked, order, flips), path)
    _check_left(read_study(study_at(path), StudyConfig()))
