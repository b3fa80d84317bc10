"""The studies to mutate: folders of small objects, or single files, in every form that the reader knows."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import gdcm
import nibabel as nib
import numpy as np
import pydicom
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from tests.dicom.test_segmentation import write_seg
from tests.dicom.writer import set_pixels, write_enhanced, write_series

COUNT, SHAPE = 4, (32, 40)  # the smallest that OpenJPEG encodes with its six resolutions
REALCT_SLICES = ("htj2k.dcm", "CTImage.dcm_JPEGProcess6_8TransferSyntax_1.2.840.10008.1.2.4.53.dcm", "CT2_J2KR")
"""Compressed by other encoders than ours, or in syntaxes that ours cannot write."""


def write_corpus(root: Path, realct: Path | None) -> list[Path]:
    """Write every study below `root`. Gives their places, sorted."""
    plain = root / "explicit"
    write_series(plain, count=COUNT, shape=SHAPE)
    for name, syntax in (("implicit", ImplicitVRLittleEndian), ("deflated", DeflatedExplicitVRLittleEndian)):
        _rewritten(plain, root / name, syntax)
    _big_endian(plain, root / "big-endian")
    for name, syntax in (("rle", RLELossless), ("jpeg-ls", JPEGLSLossless), ("jpeg-2000", JPEG2000Lossless)):
        _rewritten(plain, root / name, syntax, compress=True)
    _jpeg_lossless(plain, root / "jpeg-lossless")
    write_enhanced(root / "enhanced", sorted(plain.iterdir()))
    _with_segmentation(root / "segmentation")
    _archives(plain, root / "archives")
    _nifti(root / "nifti")
    for name in REALCT_SLICES if realct is not None else ():
        assert realct is not None
        _real(realct / "conformance" / "transfer-syntaxes" / name, root / f"real-{name[:5]}")
    return sorted([*(path for path in root.iterdir() if path.name not in {"archives", "nifti"}),
                   *(root / "archives").iterdir(), *(root / "nifti").iterdir()])  # fmt: skip


def _rewritten(source: Path, target: Path, syntax: pydicom.uid.UID, *, compress: bool = False) -> None:
    target.mkdir()
    for path in source.iterdir():
        dataset = pydicom.dcmread(path)
        if compress:
            dataset.compress(syntax, generate_instance_uid=False)
        else:
            dataset.file_meta.TransferSyntaxUID = syntax
        pydicom.dcmwrite(target / path.name, dataset, implicit_vr=syntax.is_implicit_VR, little_endian=True)


def _big_endian(source: Path, target: Path) -> None:
    target.mkdir()
    for path in source.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<i2").astype(">i2").tobytes()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        pydicom.dcmwrite(target / path.name, dataset, implicit_vr=False, little_endian=False, force_encoding=True)


def _jpeg_lossless(source: Path, target: Path) -> None:
    target.mkdir()
    for path in source.iterdir():
        reader = gdcm.ImageReader()
        reader.SetFileName(str(path))
        assert reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer = gdcm.ImageWriter()
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        writer.SetFileName(str(target / path.name))
        assert writer.Write()


def _with_segmentation(target: Path) -> None:
    """The one study of the corpus with a spine: two vertebrae as boxes, labelled by a DICOM SEG."""
    numbers_DHW = np.zeros((15, 48, 48), np.uint8)
    for number, first in ((1, 8), (2, 1)):
        numbers_DHW[first : first + 6, 14:30, 14:34] = number  # the body
        numbers_DHW[first + 1 : first + 4, 38:46, 22:26] = number  # the spinous process
        numbers_DHW[first + 1 : first + 4, 30:38, [14, 15, 32, 33]] = number  # the pedicles

    def bone(dataset: pydicom.Dataset, place: int) -> None:
        set_pixels(dataset, np.where(numbers_DHW[place] > 0, 1244, 1064).astype(np.int16))

    files = write_series(target, count=15, step=(0, 0, 4.0), shape=(48, 48), pixel_spacing=(2.0, 2.0), edit=bone)
    write_seg(target / "seg.dcm", files[::-1], numbers_DHW, names=("L1", "L2"))


def _archives(source: Path, target: Path) -> None:
    target.mkdir()
    files = sorted(source.iterdir())
    with zipfile.ZipFile(target / "study.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for path in files:
            packed.write(path, f"study/{path.name}")
    for suffix in ("", ".gz", ".xz"):
        with tarfile.open(target / f"study.tar{suffix}", f"w:{suffix[1:]}") as tar:  # type: ignore[call-overload]
            for path in files:
                tar.add(path, f"study/{path.name}")
    # Members of an attack: a name that leaves the folder, links, a device, a bomb of zeros.
    with tarfile.open(target / "odd.tar.gz", "w:gz") as tar:
        for path in files:
            tar.add(path, f"../../{path.name}")
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE):
            member = tarfile.TarInfo(f"odd-{kind.decode()}")
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)
        bomb = tarfile.TarInfo("zeros.dcm")
        bomb.size = 4 << 20
        tar.addfile(bomb, io.BytesIO(bytes(bomb.size)))


def _nifti(target: Path) -> None:
    target.mkdir()
    rng = np.random.default_rng(0)
    hu = rng.normal(50, 200, (12, 10, 14)).astype(np.int16)
    for name in ("1.nii", "2.nii.gz"):
        nib.save(nib.Nifti1Image(hu, np.diag([2.0, 2.0, 2.0, 1.0])), target / name)


def _real(source: Path, target: Path) -> None:
    target.mkdir()
    for number in range(3):
        dataset = pydicom.dcmread(source)
        dataset.ImagePositionPatient = [0.0, 0.0, 3.0 * number]
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.PixelSpacing = [1, 1]
        dataset.Modality, dataset.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
        if "RescaleSlope" not in dataset:
            dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
        dataset.save_as(target / f"{number}.dcm")
