"""A small archive of NIfTI volumes with label maps, for the tests of jobs."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

LEVELS = {20: "L1", 21: "L2", 22: "L3"}


def write_study(folder: Path, patient: str, seed: int) -> None:
    """A CT of three vertebrae (L1 to L3) as boxes with posterior elements, 2 mm voxels, and its VerSe label map."""
    rng = np.random.default_rng(seed)
    shape = (56, 64, 64)  # x, y, z in RAS
    labels = np.zeros(shape, np.uint8)
    for n, number in enumerate(LEVELS):
        top = 58 - n * 18
        labels[18:38, 34:50, top - 12 : top] = number  # the body: 40 x 32 x 24 mm
        labels[24:32, 8:24, top - 10 : top - 4] = number  # the spinous process
        labels[18:22, 24:34, top - 10 : top - 4] = number  # the pedicles
        labels[34:38, 24:34, top - 10 : top - 4] = number
    hu = np.where(labels > 0, 220 + 20 * rng.normal(size=shape), 40 + 15 * rng.normal(size=shape)).astype(np.int16)
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    folder.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(hu, affine), folder / f"{patient}_ct.nii.gz")
    nib.save(nib.Nifti1Image(labels, affine), folder / f"{patient}_seg-vert_msk.nii.gz")
