"""Small result tables for tests: one line per study, written to real Delta tables."""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
from PIL import Image

from spinemet.results.schemas import LABEL_COLUMNS, PROBABILITY_COLUMNS, SCHEMAS
from spinemet.results.tables import open_results
from spinemet.types import BONE_QUALITY, POSTEROLATERAL

MODEL, CONFIG = "0123456789ab", "ba9876543210"
CALLS = {
    "normal": (0.82, 0.08, 0.04, 0.06),
    "blastic": (0.11, 0.74, 0.10, 0.05),
    "mixed": (0.07, 0.16, 0.63, 0.14),
    "lytic": (0.09, 0.03, 0.17, 0.71),
}
"""Bone quality -> probabilities of normal, blastic, mixed and lytic with that class on top."""


@dataclass(frozen=True)
class Study:
    """One row of the ledger. levels: `T12=lytic`, `L1=cut`, `L2=?` (whole, unclassified), `L1=lytic~` (its
    posterolateral call is below a half), `L1=lytic!` (unsure); `L3` alone is normal."""

    patient: str | None
    when: date | None = date(2024, 5, 2)
    levels: str = ""
    state: str = "screened"
    reason: str | None = None
    name: str = ""
    age: int | None = 61
    sex: str | None = "F"
    seen: bool | None = False
    more: dict[str, Any] = field(default_factory=dict)


def write_results(
    uri: str,
    studies: Sequence[Study],
    *,
    model: str = MODEL,
    wave: str = "run-1/0",
    pictures: bool = False,
    collapsed: Collection[str] | None = None,
    only: Collection[str] = (),
) -> str:
    """Commit `studies` as one wave of one run to the results at `uri`, and return `uri`.

    collapsed: the levels with a `yes` in the further no/yes task `collapse`; None for a model without that task. only:
    the tasks of the model, by default all.
    """
    results = open_results(uri, create=True)
    rows: dict[str, list[dict[str, Any]]] = {"studies": [], "vertebrae": [], "calls": [], "pictures": []}
    for n, study in enumerate(studies):
        made_with = {"model_digest": model, "config_digest": CONFIG, "software_version": "0.1.0", "run_id": wave[:5]}
        keys = {
            "source_key": f"src{n:03d}{wave[-1]}",
            "study_key": study.name or f"stu{n:03d}{wave[-1]}{study.patient}",
            "patient_key": study.patient,
        } | made_with
        vertebrae = []
        for place, text in enumerate(study.levels.split()):
            calls = _calls(text, collapsed)
            calls = {task: calls[task] for task in only} if only and calls else calls
            vertebrae.append(_vertebra(keys, place, text, calls))
            rows["calls"] += [
                keys
                | {"vertebra": place, "level": text.partition("=")[0], "task": task}
                | {"class": name, "class_number": number, "probability": probability}
                for task, classes in calls.items()
                for number, (name, probability) in enumerate(classes.items())
            ]
        rows["vertebrae"] += vertebrae
        rows["studies"].append(_filled("studies", _study(keys, study, vertebrae)))
        if pictures and study.state == "screened":
            rows["pictures"].append(_picture(keys, len(vertebrae)))
    results.commit_wave(wave, rows)
    counts = {state: sum(study.state == state for study in studies) for state in ("screened", "excluded", "failed")}
    results.write_run(_run(wave[:5], model, counts, len(rows["vertebrae"])))
    return uri


def _study(keys: dict[str, Any], study: Study, vertebrae: list[dict[str, Any]]) -> dict[str, Any]:
    screened = study.state == "screened"
    return keys | {
        "state": study.state,
        "reason": study.reason,
        "layout": "prefix",
        "objects": 120,
        "size_bytes": 63_000_000,
        "slice_count": 120 if screened else None,
        "slice_spacing_mm": 1.25 if screened else None,
        "manufacturer": "PHANTOM",
        "kernel": "B30f",
        "kvp": 120.0,
        "contrast": False,
        "age": study.age,
        "sex": study.sex,
        "study_date": study.when,
        "seen_in_training": study.seen,
        "localizer": "geometric" if screened else None,
        "levels_imaged": len(vertebrae) if screened else None,
        "levels_evaluable": sum(row["evaluable"] for row in vertebrae) if screened else None,
        "flags": [],
    } | study.more  # fmt: skip


def _calls(text: str, collapsed: Collection[str] | None) -> dict[str, dict[str, float]]:
    """Task -> class -> probability of the vertebra `text`; empty for one that is not classified."""
    level, _, state = text.partition("=")
    if state in {"cut", "?"}:
        return {}
    quality = state.rstrip("~!") or "normal"
    bone = dict(zip(BONE_QUALITY, CALLS[quality], strict=True))
    blastic, lytic = bone["blastic"] + bone["mixed"], bone["mixed"] + bone["lytic"]
    sides = (0.3, 0.6, 0.1) if quality == "lytic" else (0.9, 0.06, 0.04)
    sides = (0.3, 0.45, 0.25) if state.endswith("~") else sides
    calls = {
        "blastic": {"no": 1 - blastic, "yes": blastic},
        "lytic": {"no": 1 - lytic, "yes": lytic},
        "bone_quality": bone,
        "posterolateral": dict(zip(POSTEROLATERAL, sides, strict=True)),
    }
    if collapsed is not None:
        calls["collapse"] = {"no": 0.25, "yes": 0.75} if level in collapsed else {"no": 0.95, "yes": 0.05}
    return calls


def _vertebra(keys: dict[str, Any], place: int, text: str, calls: dict[str, dict[str, float]]) -> dict[str, Any]:
    level, _, state = text.partition("=")
    evaluable = bool(calls) and not state.endswith("!")
    row = keys | {
        "vertebra": place,
        "level": level,
        "level_confidence": 0.0 if level.startswith("?") else 0.93,
        "confidence": 0.98,
        "completeness": "cut" if state == "cut" else "whole",
        "evaluable": evaluable,
        "unsure": "ambiguous" if state.endswith("!") else None,
        "slices": 7,
        "trabecular_hu": 142.0 if evaluable else None,
        "center_x_mm": 0.0,
        "center_y_mm": 10.0,
        "center_z_mm": -30.0 * place,
        "canal_mm": 18.0 + 32.0 * place,
        "height_mm": 25.0,
        "flags": ["disc_unclear"] if state == "cut" else [],
    }  # fmt: skip
    if calls:
        labels = [task for task in LABEL_COLUMNS if task in calls]
        row |= {task: max(calls[task], key=lambda name: calls[task][name]) for task in labels}
        row |= {column: calls[task][name] for column, (task, name) in PROBABILITY_COLUMNS.items() if task in calls}
    return _filled("vertebrae", row)


def _picture(keys: dict[str, Any], count: int) -> dict[str, Any]:
    height = 36 + 32 * max(count - 1, 0)
    rows = np.arange(height)
    grey = (70 + 70 * (np.abs((rows - 18 + 16) % 32 - 16) < 11)).astype(np.uint8)
    return keys | {
        "sagittal_png": _png(np.repeat(grey[:, None], 110, 1)),
        "coronal_png": _png(np.repeat(grey[:, None], 120, 1)),
        "canal_column": 70,
    }


def _png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def _run(run_id: str, model: str, counts: dict[str, int], vertebrae: int) -> dict[str, Any]:
    return _filled("runs", {
        "run_id": run_id,
        "state": "done",
        "asked_by": "nightly",
        "started_at": datetime(2025, 1, 2, 1, tzinfo=UTC),
        "finished_at": datetime(2025, 1, 2, 1, 20, tzinfo=UTC),
        "archive_key": "a1b2c3d4",
        "pseudonym_key_id": "k1",
        "date_policy": "exact",
        "listed": sum(counts.values()) + 2,
        "planned": sum(counts.values()) + 2,
        "vertebrae": vertebrae,
        "reasons": "{}",
        "studies_per_hour": 3.0 * sum(counts.values()),
        "model_digest": model,
        "training_marks": "matched",
        "config_digest": CONFIG,
        "config": "{}",
        "software_version": "0.1.0",
    } | counts)  # fmt: skip


def _filled(table: str, row: dict[str, Any]) -> dict[str, Any]:
    return {column.name: row.get(column.name) for column in SCHEMAS[table] if column.name in row or column.nullable}
