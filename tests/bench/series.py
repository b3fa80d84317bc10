"""A real chest CT as slices in several transfer syntaxes and as NIfTI, made once and kept in the temporary folder."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from pathlib import Path

import pydicom
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless

from spinemet.archive.listing import study_at
from spinemet.config import StudyConfig
from spinemet.dicom.volume import write_nifti
from spinemet.study import read_volume_of
from tests.bench.figures import Missing
from tests.conftest import REALCT

SLICES = 100
SYNTAXES = {"uncompressed": None, "JPEG-LS": JPEGLSLossless, "JPEG 2000": JPEG2000Lossless}
NIFTI = {"NIfTI": ".nii", "NIfTI, gzip": ".nii.gz"}


def folder_of(syntax: str) -> Path:
    """A folder of SLICES neighbouring slices in `syntax` of SYNTAXES. Raises Missing without the real CT."""
    packed = REALCT / "lidc-0314" / "series.tar.xz"
    if not packed.exists():
        raise Missing("real CT is not on this machine")
    folder = Path(tempfile.gettempdir()) / f"spinemet-bench-{SLICES}" / syntax.replace(" ", "-")
    if not folder.exists():
        making = folder.with_suffix(".part")
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True)
        with tarfile.open(packed) as tar:
            datasets = [pydicom.dcmread(content) for member in tar if (content := tar.extractfile(member))]
        datasets.sort(key=lambda each: float(each.ImagePositionPatient[2]))
        middle = (len(datasets) - SLICES) // 2
        for number, dataset in enumerate(datasets[middle : middle + SLICES]):
            if SYNTAXES[syntax]:
                dataset.compress(SYNTAXES[syntax], generate_instance_uid=False)
            dataset.save_as(making / f"{number:03d}.dcm")
        making.rename(folder)
    return folder


def nifti_of(form: str) -> Path:
    """The uncompressed series of folder_of as one file in `form` of NIFTI."""
    folder = folder_of("uncompressed")
    path = folder.with_name(f"series{NIFTI[form]}")
    if not path.exists():
        making = path.with_name(f"part-{path.name}")
        write_nifti(read_volume_of(study_at(folder), StudyConfig()), making)
        making.rename(path)
    return path
