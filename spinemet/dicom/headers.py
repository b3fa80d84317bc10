"""Reads the headers of a study's objects, without their pixels, and groups them into series.

Only the first HEAD_BYTES of each object are fetched, because series that are not chosen may hold gigabytes. A longer
head is read if the pixel data do not start within them. The pixels of the chosen series are fetched later
(volume.py): a second round trip per slice costs less than holding a whole study in memory. The slices of a series
share all but a few attributes; the shared ones are converted once, because converting values takes longer than
finding them.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag

from spinemet.archive.objects import MEMBER_LIMIT, StudyObjects
from spinemet.dicom.grouping import Record, grouped
from spinemet.dicom.pixels import PIXEL_DATA
from spinemet.dicom.values import (
    age_years,
    day,
    functional_group,
    integer,
    number,
    numbers,
    printable,
    quiet_readers,
    real_world_unit,
    stored_pixels,
    text,
    texts,
    transfer_syntax,
    value_of,
)
from spinemet.errors import Reason, StudyExcluded, StudyFailed
from spinemet.types import InstanceHeader, SeriesHeader, StoredPixels

HEAD_BYTES = 32 << 10
"""CT headers have 2 to 12 KB, up to 30 with large private blocks. A longer one costs a second read; it is no error."""
LONG_HEAD_BYTES = 4 << 20
"""The second try if HEAD_BYTES do not hold the header, as with thousands of Enhanced frames; the third is the whole."""
MAX_FRAMES = 20_000
"""An Enhanced object with more frames, or with another number of functional groups, is not read."""

ENHANCED_CT = frozenset({"1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2"})
CT_CLASSES = ENHANCED_CT | {"1.2.840.10008.5.1.4.1.1.2"}
"""SOP classes of CT images, whose Modality is CT (PS3.3 A.3 and A.38)."""
"""Enhanced CT Image Storage and Legacy Converted Enhanced CT Image Storage."""
_LOSSY_SYNTAXES = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 53, 55))
# Either lossless or lossy, as (0028,2110) says; lossy if it is absent.
_MAYBE_LOSSY_SYNTAXES = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (81, 91, 203))

_PIXEL_TAGS = frozenset({Tag(0x7FE00008), Tag(0x7FE00009), Tag(0x7FE00010)})
_INSTANCE_KEYWORDS, _SERIES_KEYWORDS, _PIXEL_KEYWORDS = (
    {name for name in header.__dataclass_fields__ if name[0].isupper() and name != "TransferSyntaxUID"}
    for header in (InstanceHeader, SeriesHeader, StoredPixels)
)
_IDENTIFIERS = {name for name in _SERIES_KEYWORDS if name == "PatientID" or name.endswith("UID")}
_PLAIN_TEXTS = _SERIES_KEYWORDS - {"StudyDate", "FrameOfReferenceUID", "ConvolutionKernel", "KVP"}
_SOURCES = {
    "AcquisitionNumber",
    "AcquisitionTime",
    "PatientAge",
    "PatientBirthDate",
    "LossyImageCompression",
    "SpecificCharacterSet",
}
_SEQUENCES = {
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "RealWorldValueMappingSequence",
}
_TAGS: list[BaseTag | int] = [
    Tag(keyword) for keyword in _INSTANCE_KEYWORDS | _SERIES_KEYWORDS | _PIXEL_KEYWORDS | _SOURCES | _SEQUENCES
]
"""The elements that are parsed: the attributes of the headers in types.py, and those that other fields come from. The
TransferSyntaxUID is none of them, because it stands in the file's meta information."""
_FRAME_GROUPS = ("PlanePosition", "PlaneOrientation", "PixelMeasures", "CTImageFrameType", "PixelValueTransformation")
_PER_SLICE = (
    "SOPInstanceUID", "ImagePositionPatient", "InstanceNumber", "AcquisitionNumber", "AcquisitionTime",
    "FrameOfReferenceUID",
)  # fmt: skip
"""Attributes that differ between slices. One real chest CT has 275 values of FrameOfReferenceUID in its 275 slices."""
_TAGS_PER_SLICE = frozenset(map(Tag, _PER_SLICE))


@dataclass(frozen=True)
class SeriesScan:
    """The series of a study, and the number of skipped objects by reason."""

    series: tuple[SeriesHeader, ...]
    skipped: Mapping[Reason, int]


@dataclass(frozen=True)
class _Head:
    """The parsed elements before the pixel data; whether pixel data follow, and their offset if it is usable."""

    dataset: Dataset
    has_pixels: bool
    pixels_at: int | None


def read_series(
    objects: StudyObjects, on_slice: Callable[[InstanceHeader, SeriesHeader], None] | None = None
) -> SeriesScan:
    """The series of a study, in the order of their first objects' names.

    Objects belong to one series if they share SeriesInstanceUID (their folder if it is empty), Modality, SOP class,
    matrix, pixel spacing, orientation, unit (RescaleType) and the words of ImageType that name a localizer, a map, one
    energy or a reformat. An object stored twice is read once. Passes of the scanner (passes.py) over the same places
    are series of their own; passes that continue each other are one, in which a later pass keeps only the slices
    beyond the earlier ones.

    Raises StudyExcluded(EMPTY) if there are no objects, StudyFailed with the most frequent reason (NOT_DICOM,
    TRUNCATED) if none can be used, and what StudyObjects raises.

    on_slice: called with each slice and its object's view of the series as its header is read, in any order.
    """
    names = objects.names()
    if not names:
        raise StudyExcluded(Reason.EMPTY, "expected objects in the study, found none.")
    skipped: dict[str, Reason] = {}
    records: list[Record] = []
    cache: _Cache = {}
    with quiet_readers():
        for name, head in objects.heads(names, HEAD_BYTES):
            parsed = _parse(objects, name, head)
            if isinstance(parsed, Reason):
                skipped[name] = parsed
                continue
            for record in _records(name, parsed, cache):
                records.append(record)
                if on_slice:
                    on_slice(record.instance, record.series)
    # Heads come in any order; sorting makes the result independent of it.
    records.sort(key=lambda record: record.instance.name)
    reasons = Counter(skipped[name] for name in sorted(skipped))
    if not records:
        reason = max(reasons, key=lambda reason: (reasons[reason], reason is Reason.NOT_DICOM))
        raise StudyFailed(reason, f"expected DICOM objects, found none that can be read among {len(names)}.")
    return SeriesScan(grouped(records), dict(reasons))


def _parse(objects: StudyObjects, name: str, head: bytes) -> _Head | Reason:
    """The header of one object, or the reason to skip the object."""
    whole = objects.size(name)
    if whole == 0:
        return Reason.TRUNCATED
    if whole > MEMBER_LIMIT:
        return Reason.MEMORY_LIMIT
    marked = head[128:132] == b"DICM"
    # Without a preamble a data set starts with group 0002 or 0008, in either byte order.
    if not marked and (head[:2] not in {b"\x02\x00", b"\x08\x00", b"\x00\x08"} or len(head) <= 64):
        return Reason.NOT_DICOM
    try:
        parsed = _try_parse(head)
        for size in (LONG_HEAD_BYTES, whole):
            if not (parsed and parsed.has_pixels) and len(head) < min(size, whole):
                head = objects.head(name, size)
                parsed = _try_parse(head)
    except RecursionError:  # sequences within sequences, deeper than any real one
        return Reason.UNDECODABLE
    if parsed and (text(parsed.dataset, "Modality") or text(parsed.dataset, "SOPClassUID") or "Rows" in parsed.dataset):
        return parsed
    return Reason.TRUNCATED if marked else Reason.NOT_DICOM


def _try_parse(content: bytes) -> _Head | None:
    """The elements before the pixel data, as far as `content` goes; None if it cannot be parsed."""
    reached = False

    def at_pixels(tag: BaseTag, _vr: str | None, _length: int) -> bool:
        nonlocal reached
        reached = reached or tag in _PIXEL_TAGS
        return tag in _PIXEL_TAGS

    stream = io.BytesIO(content)
    try:
        dataset = read_partial(stream, at_pixels, force=True, specific_tags=_TAGS)
    except (MemoryError, RecursionError):
        raise
    except Exception:  # broken bytes make pydicom raise any kind of error; the object is skipped
        return None
    # The tag's bytes differ in big-endian objects, and the offset in deflated ones, which pydicom unpacks first.
    at = stream.tell()
    return _Head(dataset, reached, at if reached and content[at : at + 4] == PIXEL_DATA else None)


_Cache = dict[tuple[object, ...], tuple[InstanceHeader, SeriesHeader]]
"""Converted headers, without the attributes of single slices, keyed by their raw bytes."""


def _records(name: str, parsed: _Head, cache: _Cache) -> list[Record]:
    """One record per slice: one for a classic object, one per frame for Enhanced CT."""
    dataset = parsed.dataset
    meta = getattr(dataset, "file_meta", Dataset())
    syntax = transfer_syntax(dataset)
    key = _raw_values(dataset, syntax)
    converted = cache.get(key) if key else None
    if converted is None:
        converted = _shared_header(dataset, syntax), _series_header(dataset, syntax)
        if key:
            cache[key] = converted
    shared, series = converted
    series = replace(series, FrameOfReferenceUID=text(dataset, "FrameOfReferenceUID"))
    instance = replace(
        shared,
        name=name,
        SOPInstanceUID=text(dataset, "SOPInstanceUID") or text(meta, "MediaStorageSOPInstanceUID"),
        ImagePositionPatient=numbers(dataset, "ImagePositionPatient", 3),
        InstanceNumber=integer(dataset, "InstanceNumber"),
        has_pixels=parsed.has_pixels,
        pixels_at=parsed.pixels_at,
    )
    acquisition, time = integer(dataset, "AcquisitionNumber"), text(dataset, "AcquisitionTime")
    if instance.SOPClassUID not in ENHANCED_CT:
        return [Record(instance, series, acquisition, time)]
    return [Record(frame, series, acquisition, time) for frame in _frames(dataset, instance)]


def _raw_values(dataset: Dataset, syntax: str) -> tuple[object, ...] | None:
    """The unconverted values of a header without those of single slices; None if it holds sequences."""
    values: list[object] = [syntax, dataset.original_encoding]
    for tag in dataset.keys():  # noqa: SIM118 - a Dataset itself gives elements
        if tag in _TAGS_PER_SLICE:
            continue
        try:
            element = dataset.get_item(tag)
        except MemoryError:
            raise
        except Exception:  # as in value_of: pydicom converts elements here that it takes for deferred ones
            return None
        if element is None or not isinstance(element.value, bytes | str | None):  # str if _parse has read it
            return None
        values.append((tag, element.VR, element.value))
    return tuple(values)


def _shared_header(dataset: Dataset, syntax: str) -> InstanceHeader:
    """An object's header without the attributes of single slices."""
    return InstanceHeader(
        name="",
        SOPClassUID=text(dataset, "SOPClassUID"),
        TransferSyntaxUID=syntax,
        ImageType=tuple(value.strip().upper() for value in texts(dataset, "ImageType")),
        ImageOrientationPatient=numbers(dataset, "ImageOrientationPatient", 6),
        PixelSpacing=numbers(dataset, "PixelSpacing", 2),
        SliceThickness=number(dataset, "SliceThickness"),
        Rows=integer(dataset, "Rows") or 0,
        Columns=integer(dataset, "Columns") or 0,
        NumberOfFrames=integer(dataset, "NumberOfFrames") or 1,
        stored=stored_pixels(dataset),
    )


def _series_header(dataset: Dataset, syntax: str) -> SeriesHeader:
    plain: dict[str, Any] = {
        keyword: text(dataset, keyword) if keyword in _IDENTIFIERS else printable(text(dataset, keyword)).strip()
        for keyword in _PLAIN_TEXTS
    }
    compression = text(dataset, "LossyImageCompression")
    study_day = day(dataset, "StudyDate")
    if text(dataset, "SOPClassUID") in CT_CLASSES:
        plain["Modality"] = plain["Modality"] or "CT"
    return SeriesHeader(
        **plain,
        age_years=age_years(dataset),
        StudyDate=study_day.strftime("%Y%m%d") if study_day else "",
        ConvolutionKernel=printable(" ".join(texts(dataset, "ConvolutionKernel"))).strip(),
        KVP=number(dataset, "KVP"),
        lossy=compression == "01"
        or syntax in _LOSSY_SYNTAXES
        or (syntax in _MAYBE_LOSSY_SYNTAXES and compression != "00"),
    )


def _frames(dataset: Dataset, instance: InstanceHeader) -> list[InstanceHeader]:
    """The frames of an Enhanced CT object as slices (PS3.3 C.7.6.16); the object itself if its groups are broken."""
    try:
        shared = dataset.SharedFunctionalGroupsSequence[0] if "SharedFunctionalGroupsSequence" in dataset else Dataset()
        groups = dataset.PerFrameFunctionalGroupsSequence
        if not len(groups) == instance.NumberOfFrames <= MAX_FRAMES:
            return [instance]
        return [_frame(shared, group, instance, index) for index, group in enumerate(groups)]
    except MemoryError:
        raise
    except Exception:  # as in _try_parse; the selection then rejects the object, which has no geometry
        return [instance]


def _frame(shared: Dataset, group: Dataset, instance: InstanceHeader, index: int) -> InstanceHeader:
    position, orientation, measures, frame_type, transformation = (
        functional_group(shared, group, f"{name}Sequence") for name in _FRAME_GROUPS
    )
    mappings = value_of(group, "RealWorldValueMappingSequence") or value_of(shared, "RealWorldValueMappingSequence")
    unit = real_world_unit(mappings) or text(transformation, "RescaleType")
    return replace(
        instance,
        frame=index,
        ImageType=tuple(v.strip().upper() for v in texts(frame_type, "FrameType")) or instance.ImageType,
        ImagePositionPatient=numbers(position, "ImagePositionPatient", 3),
        ImageOrientationPatient=numbers(orientation, "ImageOrientationPatient", 6),
        PixelSpacing=numbers(measures, "PixelSpacing", 2),
        SliceThickness=number(measures, "SliceThickness"),
        stored=instance.stored and replace(instance.stored, RescaleType=unit),
    )
