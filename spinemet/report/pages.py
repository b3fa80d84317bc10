"""The content of the HTML report as plain values for its template: rows, percentages, cells, cards; no markup."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from spinemet.anatomy import LEVEL_INDEX
from spinemet.cohort.flow import EVALUABLE, IMAGED, POPULATION, SCREENED, STEPS, StudyFlow
from spinemet.cohort.prevalence import TASK
from spinemet.cohort.views import held, records
from spinemet.display.palette import doubtful
from spinemet.model.tasks import NO_YES
from spinemet.reading import Doubt
from spinemet.report.shares import PARTS
from spinemet.results.schemas import Row
from spinemet.types import MEASURES, Flag

if TYPE_CHECKING:
    import duckdb

SPINE_MAP_PATIENTS = 120
"""Columns of the overview; more would be thinner than a pixel or two on a laptop."""

_MEANINGS = {str(flag): flag.meaning for flag in Flag}
"""Flags of this version; tables may hold others."""

Calls = dict[str, dict[str, float]]
"""Task -> class -> probability of one vertebra, the negative class first."""

Sets = dict[str, set[str]]
"""Task -> the classes of one vertebra that the model cannot rule out, of the tasks for which the tables say so."""

KEY_DIGITS = 8
"""Digits shown of a pseudonym: enough to find the row again, short enough to read aloud."""

_GALLERY, _SPINE_MAP = (Path(__file__).with_name(f"{name}.sql").read_text() for name in ("gallery", "spine_map"))
"""The studies with pictures."""

GUTTER_MM = 46
"""Width between the two views of a card, for the level names."""


# ---- flow ----------------------------------------------------------------------------------------------------


def flow_facts(flow: StudyFlow) -> Row:
    """The figures of the tiles, and the boxes of the flow: a count, its words, and groups of what leaves it."""

    def out(unit: str, *steps: str) -> dict[str, int]:
        return {STEPS[step]: getattr(flow.left[step], unit) for step in steps}

    screened, population, imaged, evaluable = (flow.after[one] for one in (SCREENED, POPULATION, IMAGED, EVALUABLE))
    listed = (
        "studies in the archive" if flow.listed_whole else "studies read so far, of an archive not listed as a whole"
    )
    seen = flow.after["copy"].studies
    boxes: list[tuple[int, str, list[tuple[str, str, Mapping[Any, int]]]]] = [
        (flow.start.studies, listed, [("not counted", "", out("studies", "no_outcome", "copy"))]),
        (
            seen,
            "studies with an outcome",
            [
                ("excluded", "sound, does not qualify", flow.excluded),
                ("failed", "broke while being read", flow.failed),
            ],
        ),
        (
            screened.studies,
            "studies screened",
            [
                (
                    "not counted",
                    "",
                    out("studies", "no_patient_key", "trained_on", "no_date", "outside_period", "not_selected"),
                )
            ],
        ),
        (
            population.vertebrae,
            f"vertebrae in view in {population.studies:,} studies of {population.patients:,} patients",
            [("not counted", "", out("vertebrae", "follow_up", "unnamed"))],
        ),
        (
            imaged.vertebrae,
            "vertebrae in view, one per patient and level",
            [("not evaluable", "", out("vertebrae", "cut", "unsure", "unclassified"))],
        ),
        (evaluable.vertebrae, "vertebrae evaluable: whole, classified and sure", []),
        (flow.positive.vertebrae, f"called positive, in {flow.positive.patients:,} patients", []),
    ]
    return {
        "boxes": [dict(zip(("count", "words", "groups"), box, strict=True)) for box in boxes],
        "seen": seen,
        "screened": screened.studies,
        "patients": screened.patients,
        "excluded": flow.excluded,
        "failed": flow.failed,
        "imaged": imaged.vertebrae,
        "evaluable": evaluable.vertebrae,
        "positive": flow.positive.vertebrae,
        "positive_patients": flow.positive.patients,
    }


# ---- overview -------------------------------------------------------------------------------------------------


def spine_map(connection: duckdb.DuckDBPyConnection) -> Row:
    """The overview: a column per patient (most positive levels first), a row per level, a cell per vertebra in view."""
    patients: dict[str, list[Row]] = {}
    seen = held(connection, "seen")
    # Only the studies of the patients that are shown leave the database.
    keys = records(connection, _SPINE_MAP.format(seen=seen, limit=SPINE_MAP_PATIENTS))
    studies = ", ".join(f"'{row['source_key']}'" for row in keys) or "''"
    called = f"left join (from current_calls where task = '{TASK}') using (source_key, vertebra)"
    query = f"select * exclude (patient_key) from seen {called} where source_key in ({studies})"
    for row in records(connection, f"{query} order by patient, vertebra, level"):
        patients.setdefault(row["patient"], []).append(row)
    shown = sorted(
        patients, key=lambda key: (-sum(bool(row["any_lesion"]) for row in patients[key]), -len(patients[key]), key)
    )
    total = records(connection, f"select count(distinct person) as n from {seen}")[0]["n"]
    levels = sorted(
        {row["level"] for key in shown for row in patients[key]},
        key=lambda level: (LEVEL_INDEX.get(level, len(LEVEL_INDEX)), int(level[1:] or 0)),
    )
    cell = max(7.0, min(22.0, 980 / max(len(shown), 1)))
    cells = [
        {"x": n * cell, "y": levels.index(row["level"])} | _cell(row)
        for n, key in enumerate(shown)
        for row in patients[key]
    ]
    return {"cells": cells, "levels": levels, "cell": cell, "count": len(shown), "hidden": total - len(shown)}


def _cell(row: Row) -> Row:
    if row["unsure"]:
        return {"kind": "unsure", "title": f"{row['level']}: unsure. {Doubt(row['unsure']).meaning}"}
    if row["evaluable"] and row["label"]:
        return {"kind": row["label"], "title": f"{row['level']}: {row['label']} {row['probability']:.2f}"}
    if row["completeness"] == "cut":
        return {"kind": "cut", "title": f"{row['level']}: cut by the field of view"}
    return {"kind": "unclassified", "title": f"{row['level']}: not classified"}


# ---- gallery --------------------------------------------------------------------------------------------------


def galleries(connection: duckdb.DuckDBPyConnection, limit: int) -> Row:
    """Studies with pictures: `sample`, drawn at random, and `uncertain`, others with a call that is nearly undecided.

    Each has at most `limit`. One version of the ledger always gives the same sample. total: studies with pictures.
    """
    total = records(connection, f"select count(*) as n from ({_GALLERY})")[0]["n"]
    drawn = "hash(study || (select ledger_version from asked)), study"
    sample = records(connection, f"from ({_GALLERY}) order by {drawn} limit {int(limit)}")
    others = "nearest is not null and not list_contains(?, source_key)"
    uncertain = records(
        connection,
        f"from ({_GALLERY}) where {others} order by nearest, study limit {int(limit)}",
        [[study["source_key"] for study in sample]],
    )
    return {"sample": _cards(connection, sample), "uncertain": _cards(connection, uncertain), "total": total}


def _cards(connection: duckdb.DuckDBPyConnection, chosen: Sequence[Row]) -> list[Row]:
    wanted = ", ".join(f"'{study['source_key']}'" for study in chosen) or "''"
    query = (
        "select s.*, p.sagittal_png, p.coronal_png, p.canal_column from pictures p join cohort s "
        f"using (source_key, model_digest, config_digest, wave) where source_key in ({wanted})"
    )
    known = {row["source_key"]: row for row in records(connection, query)}
    studies = [known[study["source_key"]] | study for study in chosen]
    vertebrae: dict[str, list[Row]] = {study["source_key"]: [] for study in studies}
    calls: dict[tuple[str, int], Calls] = {}
    sets: dict[tuple[str, int], Sets] = {}
    query = (
        "select * from calls semi join cohort using (source_key, model_digest, config_digest) "
        f"where source_key in ({wanted}) order by task, class_number"
    )
    for row in records(connection, query):
        place = (row["source_key"], row["vertebra"])
        calls.setdefault(place, {}).setdefault(row["task"], {})[row["class"]] = row["probability"]
        if row["in_set"] is not None:
            sets.setdefault(place, {}).setdefault(row["task"], set()).update([row["class"]] if row["in_set"] else [])
    query = f"select * from current_vertebrae where source_key in ({wanted}) order by vertebra"
    for row in records(connection, query):
        vertebrae[row["source_key"]].append(row)
    return [_card(study, vertebrae[study["source_key"]], calls, sets) for study in studies]


def _card(
    study: Row,
    vertebrae: Sequence[Row],
    calls: Mapping[tuple[str, int], Calls],
    sets: Mapping[tuple[str, int], Sets],
) -> Row:
    places = [(row["source_key"], row["vertebra"]) for row in vertebrae]
    marks = [
        _mark(row, calls.get(place, {}), sets.get(place, {})) for row, place in zip(vertebrae, places, strict=True)
    ]
    width, height = _size(study["sagittal_png"])
    coronal_width, _ = _size(study["coronal_png"])
    facts = [
        {"F": "woman", "M": "man"}.get(study["sex"] or "", ""),
        f"{study['age']} years" if study["age"] is not None else "",
        f"{study['year']}" if study["year"] is not None else "",
        f"{study['slice_spacing_mm']:.2g} mm slices" if study["slice_spacing_mm"] else "",
    ]
    return {
        "study": study["study"][:KEY_DIGITS],
        "patient": study["patient"][:KEY_DIGITS],
        "facts": [fact for fact in facts if fact],
        "sagittal": _data_uri(study["sagittal_png"]),
        "coronal": _data_uri(study["coronal_png"]),
        "width": width,
        "height": height,
        "coronal_width": coronal_width,
        "gutter": GUTTER_MM,
        "marks": marks,
        "positive": [mark for mark in marks if mark["is_positive"]],
        "flags": _flags(study, vertebrae),
        "is_judged": any(not mark["is_cut"] for mark in marks),
        "least_sure": study["least_sure"],
    }


def _flags(study: Row, vertebrae: Sequence[Row]) -> list[tuple[str, str]]:
    """Each flag of a study or of its vertebrae, with their levels, and its meaning."""
    levels: dict[str, list[str]] = {flag: [] for flag in study["flags"]}
    for vertebra in vertebrae:
        for flag in vertebra["flags"]:
            levels.setdefault(flag, []).append(vertebra["level"])
    return [(" ".join([flag, *names]), _MEANINGS.get(flag, "")) for flag, names in levels.items()]


def _mark(vertebra: Row, calls: Calls, sets: Sets) -> Row:
    is_cut = vertebra["completeness"] == "cut"
    lines = [f"{vertebra['level']}: {'cut by the field of view' if is_cut else 'whole'}"]
    quality, best = _best(calls.get(TASK))
    if TASK in calls:
        lines.append(", ".join(f"{name} {value:.2f}" for name, value in calls[TASK].items()))
    if vertebra["unsure"]:
        lines.append(f"unsure: {Doubt(vertebra['unsure']).meaning}")
    further = []
    for task, classes in calls.items():
        if task == TASK or task in PARTS:
            continue
        label, probability = _best(classes)
        lines.append(f"{task.replace('_', ' ')} {label} {probability:.2f}")
        if label != next(iter(classes)):
            words = task.replace("_", " ") if label == NO_YES[1] else label
            further.append(words + doubtful(label, probability, sets.get(task)))
    for measure in MEASURES:
        if vertebra[measure.name] is not None:
            lines.append(f"{measure.title} {vertebra[measure.name]:.0f} {measure.unit}")
    lines += [f"{flag}: {_MEANINGS.get(flag, '')}" for flag in vertebra["flags"]]
    return {
        "level": vertebra["level"],
        "row": vertebra["canal_mm"],
        "half": max(vertebra["height_mm"] / 2 - 1.5, 2.0),
        "kind": "unclassified" if vertebra["unsure"] else quality or "unclassified",
        "is_cut": is_cut,
        "is_positive": bool(vertebra["any_lesion"]),
        "call": f"unsure ({quality})" if vertebra["unsure"] else quality + doubtful(quality, best, sets.get(TASK)),
        "probability": best,
        "further": further,
        "title": "\n".join(lines),
    }


def _best(classes: Mapping[str, float] | None) -> tuple[str, float]:
    """The most probable class and its probability; empty and 0 if the model said nothing of the task."""
    return max(classes.items(), key=lambda item: item[1]) if classes else ("", 0.0)


def _size(png: bytes) -> tuple[int, int]:
    """Width and height in pixels."""
    return Image.open(io.BytesIO(png)).size


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
