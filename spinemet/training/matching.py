"""Matching a label table to a study that was read: which row labels which vertebra, and which of its slices."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from spinemet.anatomy import is_named
from spinemet.dicom.geometry import normal_of
from spinemet.reading import Screened
from spinemet.training.labels import height_mm, label_columns
from spinemet.types import Completeness, InstanceHeader


@dataclass(frozen=True)
class Match:
    """The labels of one vertebra, as row numbers (from 0) of the label table.

    row: labels the whole vertebra; None if only slices are labelled. slices: label column -> for each slice of the
    stack, the row that labels this slice alone, None without one.
    """

    row: int | None
    slices: Mapping[str, tuple[int | None, ...]] = field(default_factory=dict)

    @property
    def slice_rows(self) -> frozenset[int]:
        """The rows that reach at least one slice."""
        return frozenset(row for rows in self.slices.values() for row in rows if row is not None)


@dataclass(frozen=True)
class Matches:
    """vertebrae: number of the stack in the reading -> Match. strays: the index of each label of this study whose
    `slice` is not the SOPInstanceUID of exactly one slice of the study."""

    vertebrae: Mapping[int, Match] = field(default_factory=dict)
    strays: tuple[int, ...] = ()


def match_labels(reading: Screened, labels: pd.DataFrame) -> Matches:
    """The labels of the reading's whole, named vertebrae and of their slices.

    labels: from `training.labels.consensus`. For a vertebra, the order is: a row of the series that was read, a row of
    the study, a row of another series of the study if all its other series agree, a row of the patient. Other series
    count because a label belongs to the vertebra, and the labelled series may be another reconstruction.

    A slice of a stack takes the labelled slice of the study that is nearest to its middle, at most half a slice
    distance away (of the stack or of the series, the larger one counts). So a thin labelled slice reaches the slice
    that shows it, and a thick one reaches all slices that it covers.
    """
    rows = _rows_of_study(reading, labels)
    planes, strays = _labelled_planes(reading, labels)
    found = {}
    for n, vertebra in enumerate(reading.spine.vertebrae):
        if vertebra.completeness is not Completeness.WHOLE or not is_named(vertebra.level):
            continue
        match = Match(rows.get(vertebra.level), _nearest(reading, n, planes.get(vertebra.level, ()), labels))
        if len(reading.stacks[n].hu_NHW) and (match.row is not None or match.slices):
            found[n] = match
    return Matches(found, strays)


def _rows_of_study(reading: Screened, labels: pd.DataFrame) -> dict[str, int]:
    """Level -> row number of the most specific label of a whole vertebra of this study."""
    chosen, names = reading.chosen, label_columns(labels)
    said = labels[names].notna().any(axis=1) & (labels["slice"] == "")
    of_study = said & (labels["study"] != "") & (labels["study"] == chosen.StudyInstanceUID)
    of_patient = said & (labels["study"] == "") & (labels["patient"] == chosen.PatientID)
    no_series = labels["series"] == ""
    this_series = ~no_series & (labels["series"] == chosen.SeriesInstanceUID)
    other_series = of_study & ~no_series & ~this_series
    words = labels[["level", *names]].fillna("")
    disagree = words[other_series].drop_duplicates()["level"].duplicated(keep=False)
    disputed = set(words.loc[disagree[disagree].index, "level"])
    rows: dict[str, int] = {}
    for group in (
        of_patient & no_series,
        other_series & ~labels["level"].isin(disputed),
        of_study & no_series,
        (of_study | of_patient) & this_series,
    ):
        rows |= {str(labels["level"].iloc[row]): int(row) for row in np.flatnonzero(group)}
    return rows


# ---- slices ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Plane:
    """A labelled slice: the points x (LPS mm) with normal . x = height_mm. row: its row in the label table, from 0."""

    row: int
    normal: npt.NDArray[np.float64]
    height_mm: float


def _labelled_planes(reading: Screened, labels: pd.DataFrame) -> tuple[dict[str, list[_Plane]], tuple[int, ...]]:
    """(level -> labelled slices, strays as in Matches) of the study."""
    here = (labels["slice"] != "") & (labels["study"] == reading.chosen.StudyInstanceUID)
    here &= labels[label_columns(labels)].notna().any(axis=1)
    found: dict[str, list[_Plane]] = defaultdict(list)
    strays = []
    headers = _headers(reading) if here.any() else {}
    for row in np.flatnonzero(here).tolist():
        place = _place(str(labels["slice"].iloc[row]), headers)
        if place is None:
            strays.append(int(labels.index[row]))
        else:
            found[str(labels["level"].iloc[row])].append(_Plane(row, *place))
    return found, tuple(strays)


def _headers(reading: Screened) -> dict[str, list[InstanceHeader]]:
    """SOPInstanceUID -> headers, in the series that was read and in those with the same frame of reference."""
    chosen = reading.chosen
    comparable = (one for one, _ in reading.series_seen if one.FrameOfReferenceUID == chosen.FrameOfReferenceUID)
    found: dict[str, list[InstanceHeader]] = defaultdict(list)
    for header in (instance for series in (chosen, *comparable) for instance in series.instances):
        found[header.SOPInstanceUID].append(header)
    return found


def _place(cell: str, headers: Mapping[str, Sequence[InstanceHeader]]) -> tuple[npt.NDArray[np.float64], float] | None:
    """Normal and height of the slice that `cell` names; None if it does not name exactly one."""
    height = height_mm(cell)
    if height is not None:
        return np.array([0.0, 0.0, 1.0]), height
    places = {(one.ImagePositionPatient, one.ImageOrientationPatient) for one in headers.get(cell, ())}
    if len(places) != 1:
        return None
    position, orientation = places.pop()
    normal = normal_of(orientation) if orientation else None
    return None if position is None or normal is None else (normal, float(normal @ position))


def _nearest(
    reading: Screened, n: int, planes: Sequence[_Plane], labels: pd.DataFrame
) -> dict[str, tuple[int | None, ...]]:
    """`Match.slices` of stack `n`, without columns that label none of its slices."""
    if not planes:
        return {}
    vertebra, offsets_N = reading.spine.vertebrae[n], reading.stacks[n].offsets_mm.astype(np.float64)
    middles_N3 = np.asarray(vertebra.center_mm) + offsets_N[:, None] * np.asarray(vertebra.axes)[2]
    steps = [*np.abs(np.diff(offsets_N)).tolist(), reading.spacing_mm[0]]
    reach = max(steps) / 2 + 1e-3
    found = {}
    for name in label_columns(labels):
        labelled = [plane for plane in planes if labels[name].iloc[plane.row] is not None]
        if not labelled:
            continue
        distance_PN = np.abs([middles_N3 @ plane.normal - plane.height_mm for plane in labelled])
        rows = tuple(
            labelled[best].row if distance <= reach else None
            for best, distance in zip(distance_PN.argmin(axis=0), distance_PN.min(axis=0), strict=True)
        )
        if any(row is not None for row in rows):
            found[name] = rows
    return found
