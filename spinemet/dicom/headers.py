"""What the objects of a study say of themselves, without their pixels, grouped into series.

Only the first HEAD_BYTES of each object are fetched: series that are not chosen may hold gigabytes. Where the pixel
data do not start within them, and for deflated objects, the whole object is read. The pixels of the chosen series
are fetched later (volume.py); a second round trip per slice costs less than holding a whole study in memory.
"""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag

from spinemet.dicom.values import age_years, day, functional_group, integer, number, numbers, quiet_dicom, text, texts
from spinemet.errors import Reason, StudyExcluded, StudyFailed
from spinemet.storage.objects import MEMBER_LIMIT, StudyObjects
from spinemet.types import InstanceHeader, SeriesHeader

HEAD_BYTES = 32 << 10
"""CT headers are 2 to 12 KB; with large private blocks up to 30. More than this costs a second read, not an error."""
LONG_HEAD_BYTES = 4 << 20
"""Read where HEAD_BYTES do not hold the header: that of an Enhanced object with thousands of frames; then the whole."""
ORIENTATION_TOLERANCE = 0.01
"""Direction cosines of one series may differ by this much (0.6 degrees): some scanners write four digits only."""
SPACING_TOLERANCE = 1e-3
"""Pixel spacings of one series may differ by this share."""
MAX_FRAMES = 20_000
"""Of an Enhanced object; more, or another number than it has functional groups, is no CT."""

ENHANCED_CT = frozenset({"1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2"})
"""Enhanced CT Image Storage and Legacy Converted Enhanced CT Image Storage."""
_LOSSY_SYNTAXES = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 53, 55))
# Either lossless or lossy; (0028,2110) tells, and where it does not, they count as lossy.
_MAYBE_LOSSY_SYNTAXES = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (81, 91, 203))

_PIXEL_TAGS = frozenset({Tag(0x7FE00008), Tag(0x7FE00009), Tag(0x7FE00010)})
# fmt: off
_KEYWORDS = (
    "SOPClassUID", "SOPInstanceUID", "ImageType", "ImagePositionPatient", "ImageOrientationPatient",
    "PixelSpacing", "SliceThickness", "Rows", "Columns", "NumberOfFrames", "InstanceNumber", "AcquisitionNumber",
    "Modality", "PatientID", "PatientSex", "PatientAge", "PatientBirthDate", "StudyInstanceUID", "StudyDate",
    "SeriesInstanceUID", "SeriesDescription", "FrameOfReferenceUID", "Manufacturer", "ManufacturerModelName",
    "ConvolutionKernel", "KVP", "ContrastBolusAgent", "BodyPartExamined", "LossyImageCompression",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
)
# fmt: on
_TAGS: list[BaseTag | int] = [Tag(keyword) for keyword in _KEYWORDS]


@dataclass(frozen=True)
class SeriesScan:
    """The series of a study, and how many of its objects were passed over, by reason."""

    series: tuple[SeriesHeader, ...]
    skipped: Mapping[Reason, int]


@dataclass(frozen=True)
class _Record:
    """One slice with what its object says of its series."""

    instance: InstanceHeader
    series: SeriesHeader
    acquisition: int | None


def read_series(objects: StudyObjects) -> SeriesScan:
    """The series of a study, in the order of their first objects' names.

    Objects belong to one series when they share SeriesInstanceUID (their folder where it is empty), Modality, SOP
    class, matrix, pixel spacing, orientation, and whether they are localizers. A series with several slices at the
    same position is divided by AcquisitionNumber. Raises StudyExcluded(EMPTY) where there is no object, StudyFailed
    with the most frequent reason (NOT_DICOM, TRUNCATED) where none can be used, and what StudyObjects raises.
    """
    names = objects.names()
    if not names:
        raise StudyExcluded(Reason.EMPTY, "expected objects in the study, found none.")
    skipped: Counter[Reason] = Counter()
    records: list[_Record] = []
    with quiet_dicom():
        for name, head in objects.heads(names, HEAD_BYTES):
            header = _parse(objects, name, head)
            if isinstance(header, Reason):
                skipped[header] += 1
            else:
                records += _records(name, *header)
    if not records:
        reason = max(skipped, key=lambda reason: (skipped[reason], reason is Reason.NOT_DICOM))
        raise StudyFailed(reason, f"expected DICOM objects, found {len(names)} objects of which none can be read.")
    groups = sorted(_group(records), key=lambda group: group[0].instance.name)
    return SeriesScan(tuple(_series(group) for group in groups), dict(skipped))


# ---- one object ----------------------------------------------------------------------------------------------


def _parse(objects: StudyObjects, name: str, head: bytes) -> tuple[Dataset, bool] | Reason:
    """The header of one object and whether pixel data follow it, or why the object is passed over."""
    whole = objects.size(name)
    if whole == 0:
        return Reason.TRUNCATED
    if whole > MEMBER_LIMIT:
        return Reason.MEMORY_LIMIT
    marked = head[128:132] == b"DICM"
    if not marked and not _plausible(head):
        return Reason.NOT_DICOM
    try:
        dataset, complete = _try_parse(head)
        for size in (LONG_HEAD_BYTES, whole):
            if not complete and len(head) < min(size, whole):
                head = objects.head(name, size)
                dataset, complete = _try_parse(head)
    except RecursionError:  # sequences within sequences, deeper than any real one
        return Reason.UNDECODABLE
    if dataset is None:
        return Reason.TRUNCATED if marked else Reason.NOT_DICOM
    if not (text(dataset, "Modality") or text(dataset, "SOPClassUID") or "Rows" in dataset):
        return Reason.TRUNCATED if marked else Reason.NOT_DICOM
    return dataset, complete


def _plausible(head: bytes) -> bool:
    """Whether bytes without preamble start like a data set: an element of group 0002 or 0008, either byte order."""
    return head[:2] in {b"\x02\x00", b"\x08\x00", b"\x00\x08"} and len(head) > 64


def _try_parse(content: bytes) -> tuple[Dataset | None, bool]:
    """The elements before the pixel data, and whether the pixel data were reached."""
    reached = False

    def at_pixels(tag: BaseTag, _vr: str | None, _length: int) -> bool:
        nonlocal reached
        reached = reached or tag in _PIXEL_TAGS
        return tag in _PIXEL_TAGS

    try:
        return read_partial(io.BytesIO(content), at_pixels, force=True, specific_tags=_TAGS), reached
    except MemoryError:
        raise
    except RecursionError:
        raise
    except Exception:  # pydicom raises whatever the bytes provoke; an object that does not parse is passed over
        return None, False


def _records(name: str, dataset: Dataset, has_pixels: bool) -> list[_Record]:
    """One record per slice: one for a classic object, one per frame for Enhanced CT."""
    meta = getattr(dataset, "file_meta", Dataset())
    instance = InstanceHeader(
        name=name,
        SOPClassUID=text(dataset, "SOPClassUID"),
        SOPInstanceUID=text(dataset, "SOPInstanceUID") or text(meta, "MediaStorageSOPInstanceUID"),
        TransferSyntaxUID=text(meta, "TransferSyntaxUID"),
        ImageType=tuple(value.strip().upper() for value in texts(dataset, "ImageType")),
        ImagePositionPatient=numbers(dataset, "ImagePositionPatient", 3),
        ImageOrientationPatient=numbers(dataset, "ImageOrientationPatient", 6),
        PixelSpacing=numbers(dataset, "PixelSpacing", 2),
        SliceThickness=number(dataset, "SliceThickness"),
        Rows=integer(dataset, "Rows") or 0,
        Columns=integer(dataset, "Columns") or 0,
        NumberOfFrames=integer(dataset, "NumberOfFrames") or 1,
        InstanceNumber=integer(dataset, "InstanceNumber"),
        has_pixels=has_pixels,
    )
    series = _series_facts(dataset, instance.TransferSyntaxUID)
    acquisition = integer(dataset, "AcquisitionNumber")
    if instance.SOPClassUID not in ENHANCED_CT:
        return [_Record(instance, series, acquisition)]
    return [_Record(frame, series, acquisition) for frame in _frames(dataset, instance)]


def _series_facts(dataset: Dataset, transfer_syntax: str) -> SeriesHeader:
    compression = text(dataset, "LossyImageCompression")
    study_day = day(dataset, "StudyDate")
    return SeriesHeader(
        Modality=text(dataset, "Modality"),
        PatientID=text(dataset, "PatientID"),
        PatientSex=text(dataset, "PatientSex"),
        age_years=age_years(dataset),
        StudyInstanceUID=text(dataset, "StudyInstanceUID"),
        StudyDate=study_day.strftime("%Y%m%d") if study_day else "",
        SeriesInstanceUID=text(dataset, "SeriesInstanceUID"),
        SeriesDescription=text(dataset, "SeriesDescription"),
        FrameOfReferenceUID=text(dataset, "FrameOfReferenceUID"),
        Manufacturer=text(dataset, "Manufacturer"),
        ManufacturerModelName=text(dataset, "ManufacturerModelName"),
        ConvolutionKernel=" ".join(texts(dataset, "ConvolutionKernel")),
        KVP=number(dataset, "KVP"),
        ContrastBolusAgent=text(dataset, "ContrastBolusAgent"),
        BodyPartExamined=text(dataset, "BodyPartExamined"),
        lossy=compression == "01"
        or transfer_syntax in _LOSSY_SYNTAXES
        or (transfer_syntax in _MAYBE_LOSSY_SYNTAXES and compression != "00"),
    )


def _frames(dataset: Dataset, instance: InstanceHeader) -> list[InstanceHeader]:
    """The frames of an Enhanced CT object as slices (PS3.3 C.7.6.16); the object itself where its groups are broken."""
    try:
        shared = dataset.SharedFunctionalGroupsSequence[0] if "SharedFunctionalGroupsSequence" in dataset else Dataset()
        groups = dataset.PerFrameFunctionalGroupsSequence
        if not len(groups) == instance.NumberOfFrames <= MAX_FRAMES:
            return [instance]
        return [_frame(shared, group, instance, index) for index, group in enumerate(groups)]
    except MemoryError:
        raise
    except Exception:  # as in _try_parse; without geometry the selection rejects it with a reason
        return [instance]


def _frame(shared: Dataset, group: Dataset, instance: InstanceHeader, index: int) -> InstanceHeader:
    position, orientation, measures = (
        functional_group(shared, group, keyword)
        for keyword in ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
    )
    frame_type = functional_group(shared, group, "CTImageFrameTypeSequence")
    return replace(
        instance,
        frame=index,
        ImageType=tuple(v.strip().upper() for v in texts(frame_type, "FrameType")) or instance.ImageType,
        ImagePositionPatient=numbers(position, "ImagePositionPatient", 3),
        ImageOrientationPatient=numbers(orientation, "ImageOrientationPatient", 6),
        PixelSpacing=numbers(measures, "PixelSpacing", 2),
        SliceThickness=number(measures, "SliceThickness"),
    )


# ---- grouping ------------------------------------------------------------------------------------------------


def _group(records: list[_Record]) -> list[list[_Record]]:
    """The records of each series; see read_series."""
    groups: dict[tuple[Any, ...], list[list[_Record]]] = {}
    for record in records:
        instance, series = record.instance, record.series
        key = (
            series.SeriesInstanceUID or instance.name.rpartition("/")[0],
            series.Modality,
            instance.SOPClassUID,
            instance.Rows,
            instance.Columns,
            "LOCALIZER" in instance.ImageType,
        )
        candidates = groups.setdefault(key, [])
        for group in candidates:
            if _same_geometry(group[0].instance, instance):
                group.append(record)
                break
        else:
            candidates.append([record])
    return [part for same_key in groups.values() for group in same_key for part in _by_acquisition(group)]


def _same_geometry(one: InstanceHeader, other: InstanceHeader) -> bool:
    if one.ImageOrientationPatient is None or other.ImageOrientationPatient is None:
        return one.ImageOrientationPatient is other.ImageOrientationPatient
    if one.PixelSpacing is None or other.PixelSpacing is None:
        return one.PixelSpacing is other.PixelSpacing
    return all(
        abs(a - b) <= ORIENTATION_TOLERANCE
        for a, b in zip(one.ImageOrientationPatient, other.ImageOrientationPatient, strict=True)
    ) and all(
        math.isclose(a, b, rel_tol=SPACING_TOLERANCE) for a, b in zip(one.PixelSpacing, other.PixelSpacing, strict=True)
    )


def _by_acquisition(group: list[_Record]) -> list[list[_Record]]:
    """Several phases in one series lie on the same positions and differ in AcquisitionNumber: one part each."""
    positions = [record.instance.ImagePositionPatient for record in group]
    acquisitions = {record.acquisition for record in group}
    if len(set(positions)) == len(positions) or len(acquisitions) == 1:
        return [group]
    parts: dict[int | None, list[_Record]] = {}
    for record in group:
        parts.setdefault(record.acquisition, []).append(record)
    # One slice per acquisition is a bolus-tracking series, not several phases.
    return list(parts.values()) if min(map(len, parts.values())) > 1 else [group]


def _series(group: list[_Record]) -> SeriesHeader:
    """The series' facts: of each attribute the first value that any of its objects has."""
    first = group[0].series
    names = [name for name in SeriesHeader.__dataclass_fields__ if name not in {"instances", "lossy"}]
    facts = {
        name: next((value for r in group if (value := getattr(r.series, name)) not in (None, "")), getattr(first, name))
        for name in names
    }
    lossy = any(record.series.lossy for record in group)
    return SeriesHeader(**facts, lossy=lossy, instances=tuple(record.instance for record in group))
