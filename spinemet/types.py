"""The plain data that flows through SpineMet.

Axes in names: D slices, H rows, W columns, N slices of a stack, C classes.
Coordinates are LPS in mm: +x to the patient's left, +y to posterior, +z to superior. A 4x4 affine maps (d, h, w) there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from spinemet.errors import Explained

Vec3 = tuple[float, float, float]
FloatArray = npt.NDArray[np.floating]
Array = npt.NDArray[np.float64]
Array32 = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
IndexArray = npt.NDArray[np.intp]

BONE_QUALITY: tuple[str, ...] = ("normal", "blastic", "mixed", "lytic")
POSTEROLATERAL: tuple[str, ...] = ("none", "unilateral", "bilateral")

AIR_HU = -1024
"""The value of voxels without a measurement: outside the reconstruction circle or outside the volume."""


# ---- archive -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ObjectRef:
    """One object of the archive.

    key: relative to the archive's root. size: in bytes. last_modified: in seconds since 1970, 0 if it does not matter;
    comparisons ignore it.
    """

    key: str
    size: int
    last_modified: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class StudyRef:
    """The place of one study.

    archive: URI. key: below the archive; of a folder its prefix ("" for the root itself), or
    `#PatientID/StudyInstanceUID` if the objects were grouped by their headers; else the key of the single file.
    layout: the name of one of archive/layouts. settled: False if headers were needed for grouping and out of reach.
    """

    archive: str
    key: str
    layout: str
    objects: tuple[ObjectRef, ...]
    settled: bool = True

    @property
    def size(self) -> int:
        """Bytes of all objects together."""
        return sum(ref.size for ref in self.objects)

    @property
    def last_modified(self) -> float:
        """When the newest object was written, in seconds since 1970."""
        return max((ref.last_modified for ref in self.objects), default=0.0)


# ---- flags ---------------------------------------------------------------------------------------------------


class Flag(Explained):
    """A warning that comes with a usable result: on a volume, a spine, one vertebra or a whole study."""

    # Of the volume.
    DESKEWED = "deskewed", "The gantry was tilted; the slices were shifted in their own plane onto an orthogonal grid."
    LOSSY = "lossy", "The pixels went through lossy compression."
    DIVIDED = "divided", "The series has gaps or several spacings; only one even stretch of it was read."
    LEFT_OUT = "left_out", "Objects stored twice, or slices where passes of the scanner overlap, were used once."
    INTERPOLATED_SLICE = "interpolated_slice", "A slice is missing; the mean of its two neighbours takes its place."
    ORIENTATION_DISPUTED = (
        "orientation_disputed",
        "The NIfTI header contradicts itself about orientation or voxel size; the more credible one was used.",
    )
    ATTENUATION_CT = "attenuation_ct", "The CT seems made for the attenuation correction of PET or SPECT, at low dose."
    CONE_BEAM = "cone_beam", "The series seems to be cone-beam CT, whose values are hardly calibrated."
    SERIES_REFUSED = "series_refused", "The pixels of the preferred series are broken or no CT; the next one was read."
    BROKEN_OBJECTS = "broken_objects", "Broken objects were left out; slices may be missing."
    # Of the study: its own segmentation was not used, and the geometric localizer found the vertebrae.
    BAD_SEGMENTATION = "bad_segmentation", "The study's vertebra segmentation is broken or its levels are not clear."
    UNREACHABLE = "unreachable", "The study's vertebra segmentation could not be fetched."
    BROKEN_ARCHIVE = "broken_archive", "The study's vertebra segmentation lies in a damaged part of a zip file."
    MEMORY_LIMIT = "memory_limit", "The study's vertebra segmentation is too large to read."
    # Of the spine.
    TRANSITIONAL = "transitional", "The number of vertebrae or ribs is probably unusual, or the labels name T13 or L6."
    UNLISTED_ABOVE = "unlisted_above", "The canal goes on above the first vertebra: others may be missing there."
    UNLISTED_BELOW = "unlisted_below", "The canal goes on below the last vertebra: others may be missing there."
    # Of a vertebra.
    DISC_UNCLEAR = "disc_unclear", "A disc next to this vertebra shows poorly; its height and level are less certain."
    LEVEL_DISPUTED = "level_disputed", "The study's labels and the geometric localizer differ on most names."
    LABELS_UNCHECKED = "labels_unchecked", "The geometric localizer found too few vertebrae to check the labels."
    LABELS_UNUSABLE = (
        "labels_unusable",
        "The study's labels contradict themselves or the CT; the geometric localizer found this vertebra instead.",
    )


# ---- DICOM ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StoredPixels:
    """How an object stores its pixel values and how they become HU; None if the header does not say."""

    SamplesPerPixel: int | None = None
    BitsAllocated: int | None = None
    BitsStored: int | None = None
    HighBit: int | None = None
    PixelRepresentation: int | None = None
    RescaleSlope: float | None = None
    RescaleIntercept: float | None = None
    PixelPaddingValue: int | None = None
    PixelPaddingRangeLimit: int | None = None
    RescaleType: str = ""


@dataclass(frozen=True)
class InstanceHeader:
    """The part of one object's header that SpineMet needs; absent or unusable attributes are None or empty."""

    name: str
    """The object's name inside its study (key, or member name of the zip or tar)."""
    SOPClassUID: str = ""
    SOPInstanceUID: str = ""
    TransferSyntaxUID: str = ""
    ImageType: tuple[str, ...] = ()
    ImagePositionPatient: Vec3 | None = None
    ImageOrientationPatient: tuple[float, float, float, float, float, float] | None = None
    PixelSpacing: tuple[float, float] | None = None
    """Row spacing and column spacing in mm, in the order of DICOM."""
    SliceThickness: float | None = None
    Rows: int = 0
    Columns: int = 0
    NumberOfFrames: int = 1
    InstanceNumber: int | None = None
    has_pixels: bool = True
    frame: int | None = None
    """Frame number of this slice in an Enhanced multi-frame object, from 0; None for a classic object."""
    stored: StoredPixels | None = None
    pixels_at: int | None = None
    """Byte offset of the element PixelData; None if the object must be parsed again (big-endian, deflated)."""
    copies: tuple[InstanceHeader, ...] = ()
    """The same object stored elsewhere in the study, read if this one is broken."""


@dataclass(frozen=True)
class SeriesHeader:
    """One series: the attributes that its objects share, and their headers. Holds identifiers: never log it."""

    Modality: str = ""
    PatientID: str = ""
    PatientSex: str = ""
    age_years: float | None = None
    """PatientAge, or StudyDate minus PatientBirthDate; None if both are missing, never a default."""
    StudyInstanceUID: str = ""
    StudyDate: str = ""
    """YYYYMMDD or empty."""
    SeriesInstanceUID: str = ""
    SeriesDescription: str = ""
    FrameOfReferenceUID: str = ""
    Manufacturer: str = ""
    ManufacturerModelName: str = ""
    ConvolutionKernel: str = ""
    KVP: float | None = None
    ContrastBolusAgent: str = ""
    BodyPartExamined: str = ""
    lossy: bool = False
    divided: bool = False
    """True for an even stretch of a series that has gaps or several spacings."""
    doubts: tuple[Flag, ...] = ()
    """Flags for what the headers say of its values: ATTENUATION_CT, CONE_BEAM."""
    left_out: int = 0
    """Objects that repeat one of `instances`, and slices of a pass over places that another pass covers."""
    instances: tuple[InstanceHeader, ...] = ()


@dataclass(frozen=True, eq=False)
class Volume:
    """A CT volume on an orthogonal grid.

    hu_DHW: HU, int16 (float32 if a rescale slope is fractional); AIR_HU in voxels without a measurement.
    affine: (4, 4) float64, from array index (d, h, w, 1) to LPS mm. Its columns are orthogonal; it may be left-handed.
    """

    hu_DHW: npt.NDArray[np.int16] | npt.NDArray[np.float32]
    affine: npt.NDArray[np.float64]
    flags: tuple[Flag, ...] = ()
    left_out: int = 0
    """Objects of the series that were not used: see Flag.LEFT_OUT."""

    @property
    def spacing_mm(self) -> Vec3:
        """Distance between neighbours along D, H and W."""
        lengths = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(lengths[0]), float(lengths[1]), float(lengths[2])

    def to_lps(self, index_dhw: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """LPS mm of array indices (..., 3)."""
        return np.asarray(index_dhw, np.float64) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def to_index(self, points_mm: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Fractional array indices (..., 3) of LPS points in mm."""
        inverse = np.linalg.inv(self.affine)
        return np.asarray(points_mm, np.float64) @ inverse[:3, :3].T + inverse[:3, 3]


@dataclass(frozen=True, eq=False)
class LabelMap:
    """The vertebra that each voxel belongs to, on the grid of its volume.

    labels_DHW: uint8, 0 for background, else 1 + LEVEL_INDEX[level]. bodies_only: True if the labels leave out the
    posterior elements.
    """

    labels_DHW: npt.NDArray[np.uint8]
    affine: npt.NDArray[np.float64]
    bodies_only: bool = False


# ---- spine ---------------------------------------------------------------------------------------------------


class Completeness(StrEnum):
    """Whether the whole vertebral body lies in the field of view."""

    WHOLE = "whole"
    CUT = "cut"


class Method(StrEnum):
    """The method that found the vertebrae."""

    MASKS = "masks"
    """The study's own segmentation."""
    GEOMETRIC = "geometric"
    """The geometric localizer."""
    TOTALSEGMENTATOR = "totalsegmentator"


@dataclass(frozen=True)
class Measure:
    """A number measured on each vertebral body; spine/measures.py computes it.

    name: the column of the table `vertebrae`; ends with the unit. title: in words, without the unit. heading: of its
    column at a terminal. description: one sentence for the data dictionary.
    """

    name: str
    title: str
    unit: str
    heading: str
    description: str


MEASURES: tuple[Measure, ...] = (
    Measure(
        *("trabecular_hu", "trabecular", "HU", "HU"),
        "Mean HU of the trabecular core of the body; null if too little is in view.",
    ),
)
"""Declared here and computed in spine/measures.py, a measure appears in the tables, in JSON and at the terminal."""


@dataclass(frozen=True, eq=False)
class Vertebra:
    """One vertebra in a volume.

    center_mm: of the body, LPS. axes: (3, 3), its rows are the unit vectors left, posterior and superior of this
    vertebra in LPS (right-handed). height_mm: of the body along the superior axis, from endplate to endplate, or its
    visible part if it is cut. canal_mm: position of the body centre along the spine curve, from the cranial end.
    """

    level: str
    level_confidence: float
    """Probability that `level` is right, 0 for an unnamed vertebra; a grade if labels name it (spine/localize.py)."""
    completeness: Completeness
    center_mm: Vec3
    axes: npt.NDArray[np.float64]
    height_mm: float
    canal_mm: float
    confidence: float
    """Probability that this is a vertebral body."""
    measures: Mapping[str, float | None] = field(default_factory=dict)
    """Value by name of MEASURES; None if too little of the body is in view."""
    flags: tuple[Flag, ...] = ()


@dataclass(frozen=True, eq=False)
class SpineCurve:
    """The course of the spinal canal, cranial to caudal, with a point every millimetre.

    points_mm: (N, 3) LPS. frames: (N, 3, 3), for each point the unit vectors left, posterior and superior in LPS.
    """

    points_mm: npt.NDArray[np.float64]
    frames: npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Spine:
    """The vertebrae of a volume, cranial to caudal, and the course of the canal behind them."""

    vertebrae: tuple[Vertebra, ...]
    curve: SpineCurve
    method: Method
    flags: tuple[Flag, ...] = ()


@dataclass(frozen=True, eq=False)
class SliceStack:
    """Axial slices of one vertebra, cut perpendicular to its own axis.

    hu_NHW: int16 HU. Rows run from anterior to posterior, columns from the patient's right to left, as radiologists
    view an axial CT. The body centre has the same place in every slice.
    offsets_mm: (N,) height of each slice above the body centre, positive to superior; the most cranial slice is first.
    """

    level: str
    hu_NHW: npt.NDArray[np.int16]
    offsets_mm: npt.NDArray[np.float32]
    pixel_mm: float


@dataclass(frozen=True, eq=False)
class StraightenedViews:
    """The straightened spine for pictures: pixels of 1 mm, row r is r mm along the spine curve.

    sagittal: (rows, columns) uint8 grey; columns run from anterior to posterior. coronal: the same rows; columns run
    from the patient's right to left. canal_column: of the curve in `sagittal`; in `coronal` it is the middle column.
    """

    sagittal: npt.NDArray[np.uint8]
    coronal: npt.NDArray[np.uint8]
    canal_column: int
