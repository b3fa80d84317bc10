"""Writes CT series with a known formula by pydicom, for the tests of the reader."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from spinemet.types import AIR_HU

Edit = Callable[[Dataset, int], None]
ROW, COLUMN = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)


def formula(points_mm: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """HU at LPS points (..., 3): waves of 60 to 100 mm, which linear interpolation over 3 mm follows within 1 HU."""
    x, y, z = np.moveaxis(points_mm, -1, 0)
    return 40 * np.sin(2 * np.pi * x / 75) + 30 * np.cos(2 * np.pi * y / 60) + 40 * np.sin(2 * np.pi * z / 100) + 100


def formula_error(hu_DHW: npt.NDArray[np.generic], affine: npt.NDArray[np.float64], margin: int = 2) -> float:
    """Largest distance in HU from the formula, `margin` pixels away from borders and from voxels without a value."""
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in hu_DHW.shape], indexing="ij"), -1)
    known = hu_DHW > AIR_HU / 2
    inside = np.ones(hu_DHW.shape, bool)
    for axis in (1, 2):
        for shift in range(-margin, margin + 1):
            inside &= np.roll(known, shift, axis)
    inside[:, :margin] = inside[:, -margin:] = False
    inside[:, :, :margin] = inside[:, :, -margin:] = False
    assert inside.sum() > 0.4 * known.sum()
    points = grid @ affine[:3, :3].T + affine[:3, 3]
    return float(np.abs(hu_DHW - formula(points))[inside].max())


def write_series(
    folder: Path,
    *,
    count: int = 20,
    step: Sequence[float] = (0.0, 0.0, 3.0),
    origin: Sequence[float] = (-20.0, -30.0, -40.0),
    row: Sequence[float] = ROW,
    column: Sequence[float] = COLUMN,
    shape: tuple[int, int] = (24, 32),
    pixel_spacing: tuple[float, float] = (1.5, 1.25),
    places: Sequence[int] | None = None,
    slope: float = 1,
    intercept: float = -1024,
    edit: Edit | None = None,
    series_uid: str | None = None,
    study_uid: str = "1.2.3.4",
) -> list[Path]:
    """Write a CT series and return its files, in another order than the slices'.

    `step` is the way from slice to slice in mm; `places` are the multiples of it (0 to count - 1 by default). `edit`
    changes a data set, given its place, before it is written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    series_uid = generate_uid() if series_uid is None else series_uid
    paths = []
    for number, place in enumerate(places if places is not None else range(count)):
        position = np.add(origin, np.multiply(step, place))
        h, w = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), indexing="ij")
        points = (
            position
            + h[..., None] * np.multiply(column, pixel_spacing[0])
            + w[..., None] * np.multiply(row, pixel_spacing[1])
        )
        stored = np.rint((formula(points) - intercept) / slope).astype(np.int16)
        dataset = _dataset(series_uid, study_uid, position, (*row, *column), pixel_spacing)
        dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
        set_pixels(dataset, stored)
        if edit:
            edit(dataset, place)
        # The names run in the opposite order, so that a reader that trusts them fails.
        path = folder / f"{999 - number:03}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths[::-1]


def set_pixels(dataset: Dataset, stored_HW: npt.NDArray[np.int16]) -> None:
    """Put signed 16-bit stored values into a data set."""
    dataset.Rows, dataset.Columns = stored_HW.shape
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = 1
    dataset.PixelData = stored_HW.astype("<i2").tobytes()


def _dataset(
    series_uid: str, study_uid: str, position: Sequence[float], orientation: Sequence[float], spacing: Sequence[float]
) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    dataset.Modality, dataset.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.PatientID, dataset.PatientName, dataset.PatientAge, dataset.PatientSex = "P1", "Doe^Jane", "067Y", "F"
    dataset.PatientBirthDate = "19500101"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.StudyDate = study_uid, series_uid, "20200131"
    dataset.StudyID, dataset.SeriesNumber, dataset.StudyTime, dataset.AccessionNumber = "1", "1", "", ""
    dataset.ReferringPhysicianName = ""
    dataset.Manufacturer = "TEST"
    dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = "1.2.3.5", ""
    # The same wrong number on every slice, as in one real set.
    dataset.InstanceNumber = 1
    dataset.ImagePositionPatient = [round(float(value), 6) for value in position]
    dataset.ImageOrientationPatient = [round(float(value), 8) for value in orientation]
    dataset.PixelSpacing = list(spacing)
    dataset.SliceThickness = 9  # wrong on purpose
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.ConvolutionKernel = "B30f"
    return dataset


def write_enhanced(folder: Path, files: Sequence[Path]) -> Path:
    """The classic series in `files` as one Enhanced CT object, with frames in the order of `files`."""
    from highdicom import legacy

    sources = [pydicom.dcmread(path) for path in files]
    enhanced = legacy.LegacyConvertedEnhancedCTImage(
        legacy_datasets=sources,
        series_instance_uid=generate_uid(),
        series_number=2,
        sop_instance_uid=generate_uid(),
        instance_number=1,
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "enhanced.dcm"
    enhanced.save_as(path)
    return path
