"""Which slices make one series: what they must share, and by how much they may differ."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

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


def grouped(records: list[Record]) -> tuple[SeriesHeader, ...]:
    """The series of `records`, in the order of their first objects' names; the rules are in headers.read_series."""
    groups = sorted(_group(records), key=lambda group: group[0].instance.name)
    return tuple(_series(group) for group in groups)


def _group(records: list[Record]) -> list[list[Record]]:
    groups: dict[tuple[Any, ...], list[list[Record]]] = {}
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
    cosines, cosines_of_other = one.ImageOrientationPatient, other.ImageOrientationPatient
    spacing, spacing_of_other = one.PixelSpacing, other.PixelSpacing
    if cosines is None or cosines_of_other is None:
        return cosines is cosines_of_other
    if spacing is None or spacing_of_other is None:
        return spacing is spacing_of_other
    return all(abs(a - b) <= ORIENTATION_TOLERANCE for a, b in zip(cosines, cosines_of_other, strict=True)) and all(
        math.isclose(a, b, rel_tol=SPACING_TOLERANCE) for a, b in zip(spacing, spacing_of_other, strict=True)
    )


def _by_acquisition(group: list[Record]) -> list[list[Record]]:
    """One part per AcquisitionNumber if slices share positions: a series that holds several contrast phases."""
    positions = [record.instance.ImagePositionPatient for record in group]
    acquisitions = {record.acquisition for record in group}
    if len(set(positions)) == len(positions) or len(acquisitions) == 1:
        return [group]
    parts: dict[int | None, list[Record]] = {}
    for record in group:
        parts.setdefault(record.acquisition, []).append(record)
    # One slice per acquisition is a bolus-tracking series, not several phases.
    return list(parts.values()) if min(map(len, parts.values())) > 1 else [group]


def _series(group: list[Record]) -> SeriesHeader:
    """The header of a series: for each attribute the first value that is set in any of its objects."""
    first = group[0].series
    names = [name for name in SeriesHeader.__dataclass_fields__ if name not in {"instances", "lossy"}]
    facts = {
        name: next((value for r in group if (value := getattr(r.series, name)) not in (None, "")), getattr(first, name))
        for name in names
    }
    lossy = any(record.series.lossy for record in group)
    return SeriesHeader(**facts, lossy=lossy, instances=tuple(record.instance for record in group))
