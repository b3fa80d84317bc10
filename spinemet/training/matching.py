"""Which rows of a label table speak of which vertebra and which slices of a study that was read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from spinemet.anatomy import is_named
from spinemet.dicom.geometry import normal_of
from spinemet.training.labels import height_mm, label_columns
from spinemet.types import Completeness, InstanceHeader, Screened


@dataclass(frozen=True)
class Match:
    """What is said of one vertebra, as row numbers (from 0) of the label table.

    row: of the vertebra as a whole; None where only its slices are labelled. slices: label column -> for each slice of
    its stack the row that speaks of that slice alone, None where none does.
    """

    row: int | None
    slices: Mapping[str, tuple[int | None, ...]] = field(default_factory=dict)

    @property
    def slice_rows(self) -> frozenset[int]:
        """The rows that reach at least one slice."""
        return frozenset(row for rows in self.slices.values() for row in rows if row is not None)


@dataclass(frozen=True)
class Matches:
    """vertebrae: stack of the reading -> Match. strays: labels of this study (their index in the table) whose `slice`
    is the SOPInstanceUID of no slice there, or of several."""

    vertebrae: Mapping[int, Match] = field(default_factory=dict)
    strays: tuple[int, ...] = ()


def match_labels(reading: Screened, labels: pd.DataFrame) -> Matches:
    """The labels of the reading's whole, named vertebrae and of their slices.

    labels: as `training.labels.consensus` gives them. Of vertebrae, a row of the series goes before one of the study,
    and that before one of the patient. A row of another series of the study counts where there is no row of these two
    and no other series disagrees: a label belongs to the vertebra, and the series read may be another reconstruction.

    A slice of a stack takes the labelled slice of the study that comes nearest to its middle, where that is no farther
    than half the distance between slices, of the stack or of the series, whichever is larger: then thin labelled
    slices find the one that shows them, and a thick one speaks for all that it covers.
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
    """Level -> row number of the most specific label of this study that says anything of a whole vertebra."""
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
    """A labelled slice: the points x (LPS mm) with normal . x = height_mm. row: of the label table, from 0."""

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
    """SOPInstanceUID -> headers, of the series read and of those whose positions can be compared with its own."""
    chosen = reading.chosen
    comparable = (one for one, _ in reading.series_seen if one.FrameOfReferenceUID == chosen.FrameOfReferenceUID)
    found: dict[str, list[InstanceHeader]] = defaultdict(list)
    for header in (instance for series in (chosen, *comparable) for instance in series.instances):
        found[header.SOPInstanceUID].append(header)
    return found


def _place(cell: str, headers: Mapping[str, Sequence[InstanceHeader]]) -> tuple[npt.NDArray[np.float64], float] | None:
    """Normal and height of the slice that `cell` names; None where it names none, or several."""
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
    """`Match.slices` of stack `n`, without the columns of which nothing is said."""
    if not planes:
        return {}
    vertebra, offsets_N = reading.spine.vertebrae[n], reading.stacks[n].offsets_mm.astype(np.float64)
    middles_N3 = np.asarray(vertebra.center_mm) + offsets_N[:, None] * np.asarray(vertebra.axes)[2]
    steps = [*np.abs(np.diff(offsets_N)).tolist(), reading.spacing_mm[0]]
    reach = max(steps) / 2 + 1e-3
    found = {}
    for name in label_columns(labels):
        telling = [plane for plane in planes if labels[name].iloc[plane.row] is not None]
        if not telling:
            continue
        distance_PN = np.abs([middles_N3 @ plane.normal - plane.height_mm for plane in telling])
        rows = tuple(
            telling[best].row if distance <= reach else None
            for best, distance in zip(distance_PN.argmin(axis=0), distance_PN.min(axis=0), strict=True)
        )
        if any(row is not None for row in rows):
            found[name] = rows
    return found
