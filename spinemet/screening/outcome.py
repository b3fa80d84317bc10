"""One study's reading and calls -> its rows for the result tables. Reads and writes nothing.

The reading's headers hold identifiers; the rows hold only pseudonyms.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from PIL import Image

from spinemet.dicom.pseudonym import Pseudonymizer
from spinemet.dicom.values import names_contrast, printable
from spinemet.model.marks import Marks
from spinemet.reading import NotScreened, Screened, StudyReading, VertebraCall
from spinemet.results.schemas import LABEL_COLUMNS, PROBABILITY_COLUMNS, SCHEMAS, Row
from spinemet.screening.sins import sins_points
from spinemet.types import MEASURES, Completeness, SeriesHeader, SliceStack, StudyRef, Vertebra

MAX_TEXT = 64
"""Characters kept of a DICOM free text: LO, the longest kind of device text, has 64 at most."""


@dataclass(frozen=True)
class MadeWith:
    """The model, configuration, software and run that made a row."""

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
    marks: Marks,
    *,
    seconds_model: float | None = None,
    slices: bool = False,
) -> dict[str, list[Row]]:
    """Table -> rows of one study, as `results.schemas` has them, without `wave` and `committed_at`.

    calls: one per vertebra, in order, None for a vertebra that was not classified; None instead of a sequence if there
    is no model. marks: tell whether the model has met the patient. A study that was not screened has only its ledger
    row. slices: also a row per slice, task and class.
    """
    about = facts_series(reading)
    keys = {
        "source_key": names.source_key(ref.archive, ref.key),
        "study_key": names.study_key(about.StudyInstanceUID) or None,
        "patient_key": names.patient_key(about.PatientID) or None,
        **vars(made_with),
    }
    rows: dict[str, list[Row]] = {"studies": [], "vertebrae": [], "calls": [], "slices": [], "pictures": []}
    if isinstance(reading, Screened):
        for number, (vertebra, stack, call) in enumerate(reading.with_calls(calls)):
            keys_here = {**keys, "vertebra": number, "level": vertebra.level}
            rows["vertebrae"].append({**keys_here, **_vertebra(vertebra, stack, call)})
            if call is not None:
                rows["calls"] += [{**keys_here, **row} for row in _calls(call)]
                if slices:
                    rows["slices"] += [{**keys_here, **row} for row in _slices(stack, call)]
        if (views := reading.views) is not None:
            pictures = {"sagittal_png": _png(views.sagittal), "coronal_png": _png(views.coronal)}
            rows["pictures"].append({**keys, **pictures, "canal_column": views.canal_column})
    rows["studies"].append(
        {
            **keys,
            **_study(ref, reading),
            **_series(reading, names),
            "seen_in_training": marks.seen(names.patient_key(about.PatientID)),
            "levels_evaluable": sum(row["evaluable"] for row in rows["vertebrae"])
            if isinstance(reading, Screened)
            else None,
            **_seconds(reading.seconds),
            "seconds_model": seconds_model,
        }
    )
    return rows


def slimmed(reading: StudyReading) -> StudyReading:
    """`reading` without the headers of single objects: all that `study_rows` needs, some kilobytes smaller."""

    def bare(series: SeriesHeader) -> SeriesHeader:
        return replace(series, instances=())

    seen = tuple((bare(series), reason) for series, reason in reading.series_seen)
    if isinstance(reading, Screened):
        return replace(reading, chosen=bare(reading.chosen), series_seen=seen)
    return replace(reading, chosen=reading.chosen and bare(reading.chosen), series_seen=seen)


def without_pixels(reading: Screened) -> Screened:
    """`reading` after the model: its stacks keep their number of slices and offsets, and drop their pixels."""
    return replace(reading, stacks=tuple(replace(stack, hu_NHW=stack.hu_NHW[:, :0, :0]) for stack in reading.stacks))


def facts_series(reading: StudyReading) -> SeriesHeader:
    """The series that describes the study: the chosen one, else a rejected one, CT first, else an empty one."""
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
        "localizer": str(reading.localizer) if reading.localizer else None,
        "levels_imaged": len(reading.spine.vertebrae) if isinstance(reading, Screened) else None,
        "flags": [str(flag) for flag in reading.flags],
    }


def _series(reading: StudyReading, names: Pseudonymizer) -> Row:
    """What the headers say of patient and device; the series' own columns only if one was chosen."""
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
            "contrast": names_contrast(series.ContrastBolusAgent),
            "objects_left_out": series.left_out,
        }
    return facts


def _vertebra(vertebra: Vertebra, stack: SliceStack, call: VertebraCall | None) -> Row:
    x, y, z = vertebra.center_mm
    probabilities = call.probabilities if call is not None else {}
    labels = {task: call.label(task) if call else None for task in LABEL_COLUMNS}
    is_unsure = call is not None and call.doubt is not None
    applies_to = None if is_unsure else labels["bone_quality"]
    points = sins_points(vertebra.level, applies_to, labels["posterolateral"])
    return {
        "level_confidence": vertebra.level_confidence,
        "confidence": vertebra.confidence,
        "completeness": str(vertebra.completeness),
        "evaluable": vertebra.completeness is Completeness.WHOLE and call is not None and not is_unsure,
        "slices": len(stack.hu_NHW),
        **labels,
        "unsure": str(call.doubt or "") if call is not None and call.is_judged else None,
        **{
            column: float(probabilities[task][name]) if task in probabilities else None
            for column, (task, name) in PROBABILITY_COLUMNS.items()
        },
        **{f"sins_{name}": number for name, number in vars(points).items()},
        **{measure.name: vertebra.measures.get(measure.name) for measure in MEASURES},
        "center_x_mm": x,
        "center_y_mm": y,
        "center_z_mm": z,
        "canal_mm": vertebra.canal_mm,
        "height_mm": vertebra.height_mm,
        "flags": [str(flag) for flag in vertebra.flags],
    }


def _calls(call: VertebraCall) -> list[Row]:
    return [
        {"task": task, "class": name, "class_number": number, "probability": float(probability)}
        | {"in_set": name in call.plausible[task] if task in call.plausible else None}
        for task, classes in call.probabilities.items()
        for number, (name, probability) in enumerate(classes.items())
    ]


def _slices(stack: SliceStack, call: VertebraCall) -> list[Row]:
    return [
        {
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


def _png(grey: npt.NDArray[np.uint8]) -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(grey)).save(content, format="PNG")
    return content.getvalue()


def _seconds(stages: Mapping[str, float]) -> Row:
    columns = {f"seconds_{stage}": seconds for stage, seconds in stages.items()}
    return {column: seconds for column, seconds in columns.items() if column in SCHEMAS["studies"].names}


def _text(text: str) -> str | None:
    # A spreadsheet takes text that begins with one of these for a formula.
    return " ".join(printable(text).split()).lstrip("=+-@ ")[:MAX_TEXT] or None
