"""One study's reading and calls -> its rows for the result tables. Pure: reads nothing, writes nothing.

Identifiers come in with the reading's headers and do not come out: rows hold pseudonyms.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from PIL import Image

from spinemet.dicom.pseudonym import Pseudonymizer
from spinemet.results.schemas import Row
from spinemet.screening.sins import sins_points
from spinemet.types import (
    BONE_QUALITY,
    POSTEROLATERAL,
    Completeness,
    NotScreened,
    Screened,
    SeriesHeader,
    SliceStack,
    StraightenedViews,
    StudyReading,
    StudyRef,
    Vertebra,
    VertebraCall,
)

MAX_TEXT = 64
"""Characters kept of a DICOM free text: LO, the longest kind of device text, has 64 at most."""


@dataclass(frozen=True)
class MadeWith:
    """What a row was made with."""

    model_digest: str
    config_digest: str
    software_version: str
    run_id: str


def study_rows(
    ref: StudyRef,
    reading: StudyReading,
    calls: Sequence[VertebraCall | None] | None,
    made_with: MadeWith,
    names: Pseudonymizer,
    *,
    seconds_model: float | None = None,
    slices: bool = False,
) -> dict[str, list[Row]]:
    """Table -> rows of one study, as `results.schemas` wants them but for `wave` and `committed_at`.

    calls: one per vertebra, in order, None for a vertebra that was not classified; None altogether without a model.
    A study that was not screened has its ledger row alone. slices: also a row per slice, task and class.
    """
    about = facts_series(reading)
    keys = {
        "source_key": names.source_key(ref.archive, ref.key),
        "study_key": names.study_key(about.StudyInstanceUID) or None,
        "patient_key": names.patient_key(about.PatientID) or None,
        **vars(made_with),
    }
    rows: dict[str, list[Row]] = {"studies": [], "vertebrae": [], "slices": [], "pictures": []}
    if isinstance(reading, Screened):
        found = reading.spine.vertebrae
        answers = list(calls) if calls is not None else [None] * len(found)
        for number, (vertebra, stack, call) in enumerate(zip(found, reading.stacks, answers, strict=True)):
            rows["vertebrae"].append({**keys, **_vertebra(number, vertebra, stack, call)})
            if slices and call is not None:
                rows["slices"] += [{**keys, "vertebra": number, **row} for row in _slices(stack, call)]
        if reading.views is not None:
            rows["pictures"].append({**keys, **_pictures(reading.views)})
    rows["studies"].append(
        {
            **keys,
            **_study(ref, reading),
            **_series(reading, names),
            "levels_evaluable": sum(row["evaluable"] for row in rows["vertebrae"])
            if isinstance(reading, Screened)
            else None,
            **{f"seconds_{stage}": seconds for stage, seconds in _stages(reading.seconds)},
            "seconds_model": seconds_model,
        }
    )
    return rows


def slimmed(reading: StudyReading) -> StudyReading:
    """`reading` without the headers of single objects: all that `study_rows` needs, in kilobytes less."""

    def bare(series: SeriesHeader) -> SeriesHeader:
        return replace(series, instances=())

    seen = tuple((bare(series), reason) for series, reason in reading.series_seen)
    if isinstance(reading, Screened):
        return replace(reading, chosen=bare(reading.chosen), series_seen=seen)
    return replace(reading, chosen=reading.chosen and bare(reading.chosen), series_seen=seen)


def without_pixels(reading: Screened) -> Screened:
    """`reading` whose stacks keep their number of slices and offsets but no pixels: what is left after the model."""
    return replace(reading, stacks=tuple(replace(stack, hu_NHW=stack.hu_NHW[:, :0, :0]) for stack in reading.stacks))


def facts_series(reading: StudyReading) -> SeriesHeader:
    """The series that speaks for the study: the chosen one, else one that was rejected, else an empty one."""
    if reading.chosen is not None:
        return reading.chosen
    seen = [series for series, _ in reading.series_seen]
    return next((series for series in seen if series.Modality == "CT"), seen[0] if seen else SeriesHeader())


def _study(ref: StudyRef, reading: StudyReading) -> Row:
    spacing = reading.spacing_mm or (None, None, None)
    problem = reading if isinstance(reading, NotScreened) else None
    return {
        "state": str(reading.state),
        "reason": str(problem.reason) if problem else None,
        "detail": (problem.detail or None) if problem else None,
        "layout": str(ref.layout),
        "objects": len(ref.objects),
        "size_bytes": ref.size,
        "series_count": len(reading.series_seen) or (1 if reading.chosen is not None else None),
        "slice_count": reading.slice_count or None,
        "slice_spacing_mm": spacing[0],
        "row_spacing_mm": spacing[1],
        "column_spacing_mm": spacing[2],
        "localizer": reading.localizer,
        "levels_imaged": len(reading.spine.vertebrae) if isinstance(reading, Screened) else None,
        "flags": " ".join(reading.flags),
    }


def _series(reading: StudyReading, names: Pseudonymizer) -> Row:
    """What the headers say; the chosen series' own facts are None where none was chosen."""
    series = facts_series(reading)
    age = names.age(series.age_years)
    facts: Row = {
        "age": None if age is None else int(age),
        "sex": series.PatientSex if series.PatientSex in {"F", "M", "O"} else None,
        "study_date": names.study_date(series.PatientID, series.StudyDate),
        "manufacturer": _text(series.Manufacturer),
        "manufacturer_model": _text(series.ManufacturerModelName),
    }
    if reading.chosen is not None:
        facts |= {
            "series_key": names.series_key(series.SeriesInstanceUID) or None,
            "kernel": _text(series.ConvolutionKernel),
            "kvp": series.KVP,
            "contrast": bool(series.ContrastBolusAgent.strip()),
        }
    return facts


def _vertebra(number: int, vertebra: Vertebra, stack: SliceStack, call: VertebraCall | None) -> Row:
    x, y, z = vertebra.center_mm
    bone_quality, involvement = _label(call, "bone_quality"), _label(call, "posterolateral")
    points = sins_points(vertebra.level, bone_quality, involvement)
    return {
        "vertebra": number,
        "level": vertebra.level,
        "level_confidence": vertebra.level_confidence,
        "confidence": vertebra.confidence,
        "completeness": str(vertebra.completeness),
        "evaluable": vertebra.completeness is Completeness.WHOLE and call is not None,
        "slices": len(stack.hu_NHW),
        "bone_quality": bone_quality,
        **{column: _probability(call, task, name) for column, (task, name) in _PROBABILITY_COLUMNS.items()},
        "posterolateral": involvement,
        "further_tasks": _further_tasks(call),
        "sins_location": points.location,
        "sins_bone": points.bone,
        "sins_posterolateral": points.posterolateral,
        "sins_partial": points.partial,
        "sins_min": points.least,
        "sins_max": points.most,
        "trabecular_hu": vertebra.trabecular_hu,
        "center_x_mm": x,
        "center_y_mm": y,
        "center_z_mm": z,
        "canal_mm": vertebra.canal_mm,
        "height_mm": vertebra.height_mm,
        "flags": " ".join(vertebra.flags),
    }


_PROBABILITY_COLUMNS: dict[str, tuple[str, str]] = {
    **{f"p_{'only_' if name in {'blastic', 'lytic'} else ''}{name}": ("bone_quality", name) for name in BONE_QUALITY},
    "p_blastic": ("blastic", "yes"),
    "p_lytic": ("lytic", "yes"),
    **{f"p_posterolateral_{name}": ("posterolateral", name) for name in POSTEROLATERAL},
}
"""Column -> task and class."""

_TASKS_WITH_COLUMNS = {task for task, _ in _PROBABILITY_COLUMNS.values()}


def _slices(stack: SliceStack, call: VertebraCall) -> list[Row]:
    return [
        {
            "level": stack.level,
            "slice": number,
            "offset_mm": float(stack.offsets_mm[number]),
            "task": task,
            "class": name,
            "probability": float(probability),
        }
        for task, prob_NC in call.slices_NC.items()
        for number, prob_C in enumerate(prob_NC)
        for name, probability in zip(call.probabilities[task], prob_C, strict=True)
    ]


def _pictures(views: StraightenedViews) -> Row:
    return {
        "sagittal_png": _png(views.sagittal),
        "coronal_png": _png(views.coronal),
        "canal_column": views.canal_column,
    }


def _png(grey: npt.NDArray[np.uint8]) -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(grey)).save(content, format="PNG")
    return content.getvalue()


def _label(call: VertebraCall | None, task: str) -> str | None:
    return call.label(task) if call is not None and task in call.probabilities else None


def _probability(call: VertebraCall | None, task: str, name: str) -> float | None:
    return float(call.probabilities[task][name]) if call is not None and task in call.probabilities else None


def _further_tasks(call: VertebraCall | None) -> str | None:
    """Six digits, so that one model gives one text however its batches fell."""
    further = {
        task: {name: round(float(value), 6) for name, value in classes.items()}
        for task, classes in (call.probabilities.items() if call is not None else ())
        if task not in _TASKS_WITH_COLUMNS
    }
    return json.dumps(further) if further else None


def _stages(seconds: Mapping[str, float]) -> list[tuple[str, float]]:
    return [(stage, spent) for stage, spent in seconds.items() if stage in _STAGES]


_STAGES = ("headers", "volume", "segmentation", "localize", "slices", "views")


def _text(text: str) -> str | None:
    return " ".join(text.split())[:MAX_TEXT] or None
