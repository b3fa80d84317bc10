"""Volumes and label maps for the tests of this room."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spinemet.archive.listing import study_at
from spinemet.config import StudyConfig
from spinemet.dicom.segmentation import labels_from_nifti
from spinemet.dicom.volume import nifti_grid
from spinemet.study import read_volume_of
from spinemet.types import LabelMap, Volume


def read(path: Path) -> Volume:
    return read_volume_of(study_at(path), StudyConfig())


def body_centers(labels: LabelMap, keep: np.ndarray | None = None) -> dict[int, np.ndarray]:
    """LPS centroid of each label, within `keep` if given."""
    centers = {}
    for number in np.unique(labels.labels_DHW[labels.labels_DHW > 0]):
        mask = labels.labels_DHW == number
        if keep is not None:
            mask &= keep
        centers[int(number)] = np.argwhere(mask).mean(0) @ labels.affine[:3, :3].T + labels.affine[:3, 3]
    return centers


@pytest.fixture(scope="session")
def abdomen(realct: Path) -> Volume:
    """TotalSegmentator's example: T12 (cut) to the pelvis at 3 mm."""
    return read(realct / "totalsegmentator" / "example_ct.nii.gz")


@pytest.fixture(scope="session")
def abdomen_whole(realct: Path, abdomen: Volume) -> LabelMap:
    """Its whole vertebrae."""
    return labels_from_nifti((realct / "totalsegmentator" / "totalseg.nii.gz").read_bytes(), abdomen)


@pytest.fixture(scope="session")
def abdomen_bodies(realct: Path, abdomen: Volume) -> LabelMap:
    """Its vertebral bodies without posterior elements, from another model."""
    path = realct / "totalsegmentator" / "totalseg_vertebrae_pp_refined.nii.gz"
    return labels_from_nifti(path.read_bytes(), abdomen)


@pytest.fixture(scope="session")
def patch(realct: Path) -> Volume:
    """TPTBox's example: 7 x 11 x 11 cm around L3 at 1.5 mm, sagittal axis first."""
    return read(realct / "tptbox" / "sub-ct_label-22_ct.nii.gz")


@pytest.fixture(scope="session")
def patch_labels(realct: Path, patch: Volume) -> LabelMap:
    return labels_from_nifti((realct / "tptbox" / "sub-ct_seg-vert_label-22_msk.nii.gz").read_bytes(), patch)


@pytest.fixture(scope="session")
def patch_body(realct: Path, patch: Volume) -> np.ndarray:
    """The vertebral bodies of TPTBox's subregion mask."""
    content = (realct / "tptbox" / "sub-ct_seg-subreg_label-22_msk.nii.gz").read_bytes()
    numbers, affine, _ = nifti_grid(content)
    assert np.allclose(affine, patch.affine)
    return np.isin(numbers, (49, 50))
