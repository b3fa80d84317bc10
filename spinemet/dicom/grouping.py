"""Which slices make one series: what they must share, and by how much they may differ.

passes.py separates the passes of the scanner within one series.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from spinemet.dicom.geometry import SAME_POSITION_MM, normal_of
from spinemet.dicom.image_kind import special_kinds, unit, with_doubts
from spinemet.dicom.passes import MOST_OVERLAP, passes
from spinemet.types import InstanceHeader, SeriesHeader

ORIENTATION_TOLERANCE = 0.01
"""Direction cosines of one series may differ by this much (0.6 degrees): some scanners write only four digits."""
SPACING_TOLERANCE = 1e-3
"""Pixel spacings of one series may differ by this share."""


@dataclass(frozen=True)
class Record:
    """One slice, with its object's view of the series."""

    instance: InstanceHeader
    series: SeriesHeader
    acquisition: int | None
    time: str = ""
    """AcquisitionTime, as text that sorts."""


_KINDS: tuple[Callable[[Record], object], ...] = (
    lambda record: record.instance.ImageType,
    lambda record: record.series.ConvolutionKernel,
    lambda record: record.series.KVP,
    lambda record: record.series.ContrastBolusAgent,
    lambda record: record.series.SeriesDescription,
)
"""What tells a map, another reconstruction or another phase from the slices at the same places."""


def grouped(records: list[Record]) -> tuple[SeriesHeader, ...]:
    """The series of `records`, in the order of their first objects' names; the rules are in headers.read_series."""
    groups = sorted(_group(records), key=lambda group: group[0][0].instance.name)
    return with_doubts(_series(group, left_out) for group, left_out in groups)


def _group(records: list[Record]) -> list[tuple[list[Record], int]]:
    """Each series' records, and how many more it leaves out."""
    groups: dict[tuple[Any, ...], list[list[Record]]] = {}
    for record in records:
        instance, series = record.instance, record.series
        key = (
            series.SeriesInstanceUID or instance.name.rpartition("/")[0],
            series.Modality,
            instance.SOPClassUID,
            instance.Rows,
            instance.Columns,
            special_kinds(instance),
            unit(instance),
        )
        candidates = groups.setdefault(key, [])
        for group in candidates:
            if _same_geometry(group[0].instance, instance):
                group.append(record)
                break
        else:
            candidates.append([record])
    return [
        part for same_key in groups.values() for group in same_key for kind in _kinds(group) for part in _passes(kind)
    ]


def _kinds(group: list[Record]) -> list[list[Record]]:
    """`group`, divided by the first of _KINDS that differs between the slices at every place that has several.

    Most slices of a kind must share their places with another kind; passes that only overlap stay together.
    """
    places = _along(group)
    if places is None:
        return [group]
    order = np.argsort(places, kind="stable").tolist()
    at_places: list[list[Record]] = []
    for before, n in pairwise([None, *order]):
        if before is None or places[n] - places[before] > SAME_POSITION_MM:
            at_places.append([])
        at_places[-1].append(group[n])
    shared = [
        records for records in at_places if len({r.instance.SOPInstanceUID or r.instance.name for r in records}) > 1
    ]
    for value_of in _KINDS:
        kinds: dict[object, list[Record]] = {}
        for record in group:
            kinds.setdefault(value_of(record), []).append(record)
        differ = len(kinds) > 1 and all(len(set(map(value_of, records))) > 1 for records in shared)
        if differ and len(shared) > MOST_OVERLAP * min(map(len, kinds.values())):
            return list(kinds.values())
    return [group]


def _passes(group: list[Record]) -> list[tuple[list[Record], int]]:
    """The passes of the scanner in `group` that cover different places, joined; those over the same places apart."""
    once = _without_copies(group)
    places = _along(once)
    if places is None:
        return [(once, len(group) - len(once))]
    times = [(record.time, record.instance.InstanceNumber, record.instance.frame) for record in once]
    joined = passes(places, [record.acquisition for record in once], times)
    return [([once[n] for n in part], left_out + len(group) - len(once)) for part, left_out in joined]


def _same_geometry(one: InstanceHeader, other: InstanceHeader) -> bool:
    cosines, cosines_of_other = one.ImageOrientationPatient, other.ImageOrientationPatient
    spacing, spacing_of_other = one.PixelSpacing, other.PixelSpacing
    if cosines is None or cosines_of_other is None:
        return cosines is cosines_of_other
    if spacing is None or spacing_of_other is None:
        return spacing is spacing_of_other
    return all(abs(a - b) <= ORIENTATION_TOLERANCE for a, b in zip(cosines, cosines_of_other, strict=True)) and all(
        math.isclose(a, b, rel_tol=SPACING_TOLERANCE) for a, b in zip(spacing, spacing_of_other, strict=True)
    )


def _without_copies(group: list[Record]) -> list[Record]:
    """`group` with the objects of one UID, frame and position as one: the first with pixels, the others its copies."""
    same: dict[tuple[object, ...], list[Record]] = {}
    for place, record in enumerate(group):
        item = record.instance
        key = item.SOPInstanceUID, item.frame, item.ImagePositionPatient, item.InstanceNumber
        same.setdefault(key if item.SOPInstanceUID else (place,), []).append(record)
    return [_with_copies(records) for records in same.values()]


def _with_copies(records: list[Record]) -> Record:
    first, *copies = sorted(records, key=lambda record: not record.instance.has_pixels)
    if not copies:
        return first
    return replace(first, instance=replace(first.instance, copies=tuple(record.instance for record in copies)))


def _along(group: list[Record]) -> list[float] | None:
    """Each slice's place along the series' normal, mm; None without geometry."""
    orientation = group[0].instance.ImageOrientationPatient
    normal = normal_of(orientation) if orientation else None
    positions = [record.instance.ImagePositionPatient for record in group]
    if normal is None or None in positions:
        return None
    places: list[float] = (np.asarray(positions, np.float64) @ normal).tolist()
    return places


def _series(group: list[Record], left_out: int) -> SeriesHeader:
    """The header of a series: for each attribute the first value that is set in any of its objects."""
    first = group[0].series
    others = {"instances", "lossy", "left_out", "doubts"}
    names = [name for name in SeriesHeader.__dataclass_fields__ if name not in others]
    facts = {
        name: next((value for r in group if (value := getattr(r.series, name)) not in (None, "")), getattr(first, name))
        for name in names
    }
    lossy = any(record.series.lossy for record in group)
    return SeriesHeader(**facts, lossy=lossy, left_out=left_out, instances=tuple(record.instance for record in group))
