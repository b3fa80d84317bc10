"""One study's result as plain data for `spinemet study --json`: technical facts, no identifiers and no free text."""

from collections.abc import Iterator, Sequence
from typing import Any

from spinemet.dicom.values import names_contrast
from spinemet.errors import Reason
from spinemet.reading import Doubt, NotScreened, Screened, StudyReading, VertebraCall
from spinemet.types import MEASURES, Flag, SeriesHeader, Vertebra


def study_json(
    reading: StudyReading, calls: Sequence[VertebraCall | None] | None, trained_on: str = ""
) -> dict[str, Any]:
    """`reading` and its `calls` (one per vertebra, or None without a model) as values for JSON.

    Keys: `state`, `reason`, `detail` (null when screened), `series` (the chosen one, or null), `series_rejected`,
    `localizer`, `flags`, `seconds` per stage, and `vertebrae`, cranial to caudal. Lengths are millimetres, centres LPS.
    Without a model a vertebra's `bone_quality`, `posterolateral` and `probabilities` are null; so is `trained_on` if
    the model may have been trained on patients alone. `unsure` says why the calls of a vertebra are unsure, "" if they
    are sure; `plausible` holds the classes that the model cannot rule out. Both are null if the model does not say.
    """
    problem = reading if isinstance(reading, NotScreened) else None
    rows = reading.with_calls(calls) if isinstance(reading, Screened) else ()
    return {
        "state": reading.state.value,
        "reason": problem.reason.value if problem else None,
        "detail": (problem.detail or None) if problem else None,
        "series": _series(reading),
        "series_rejected": [_facts(header) | {"reason": reason.value} for header, reason in rejected_series(reading)],
        "localizer": reading.localizer,
        "trained_on": trained_on or None,
        "flags": list(reading.flags),
        "seconds": {stage: round(seconds, 3) for stage, seconds in reading.seconds.items()},
        "vertebrae": [_vertebra(vertebra, call, len(stack.offsets_mm)) for vertebra, stack, call in rows],
    }


def rejected_series(reading: StudyReading) -> tuple[tuple[SeriesHeader, Reason], ...]:
    """Every series that was not chosen, with the reason."""
    return tuple((header, reason) for header, reason in reading.series_seen if reason is not None)


def flag_lines(reading: StudyReading, calls: Sequence[VertebraCall | None] | None = None) -> Iterator[str]:
    """Each flag of the study and of its vertebrae with its meaning: `disc_unclear (T8, T9): A disc …`.

    Then, in the same form, why calls are unsure and which levels have no name.
    """
    levels: dict[Flag | Doubt, list[str]] = {flag: [] for flag in reading.flags}
    rows = reading.with_calls(calls) if isinstance(reading, Screened) else ()
    for vertebra, _, _ in rows:
        for flag in vertebra.flags:
            levels.setdefault(flag, []).append(vertebra.level)
    for vertebra, _, call in rows:
        if call is not None and call.doubt is not None:
            levels.setdefault(call.doubt, []).append(vertebra.level)
    for word, names in levels.items():
        where = f" ({', '.join(names)})" if names else ""
        yield f"{'unsure, ' if isinstance(word, Doubt) else ''}{word}{where}: {word.meaning}"
    unnamed = [vertebra.level for vertebra, _, _ in rows if vertebra.level.startswith("?")]
    if unnamed:
        span = unnamed[0] if len(unnamed) == 1 else f"{unnamed[0]} to {unnamed[-1]}"
        yield f"unnamed ({span}): Nothing in view proves these levels; they are numbered from the top."


def _series(reading: StudyReading) -> dict[str, Any] | None:
    if reading.chosen is None:
        return None
    spacing = reading.spacing_mm
    return _facts(reading.chosen) | {
        "slices": reading.slice_count,
        "slice_spacing_mm": _round(spacing[0], 4) if spacing else None,
        "pixel_spacing_mm": [_round(spacing[1], 4), _round(spacing[2], 4)] if spacing else None,
    }


def _facts(header: SeriesHeader) -> dict[str, Any]:
    """Technical facts of a series, without its description, which is free text."""
    first = header.instances[0] if header.instances else None
    return {
        "modality": header.Modality or None,
        "objects": len(header.instances),
        "objects_left_out": header.left_out,
        "rows": first.Rows if first else None,
        "columns": first.Columns if first else None,
        "slice_thickness_mm": first.SliceThickness if first else None,
        "kernel": header.ConvolutionKernel or None,
        "kvp": header.KVP,
        "contrast": names_contrast(header.ContrastBolusAgent),
        "manufacturer": header.Manufacturer or None,
        "manufacturer_model": header.ManufacturerModelName or None,
        "lossy": header.lossy,
    }


def _vertebra(vertebra: Vertebra, call: VertebraCall | None, slices: int) -> dict[str, Any]:
    return {
        "level": vertebra.level,
        "level_confidence": _round(vertebra.level_confidence, 3),
        "confidence": _round(vertebra.confidence, 3),
        "completeness": vertebra.completeness.value,
        "center_mm": [_round(value, 2) for value in vertebra.center_mm],
        "height_mm": _round(vertebra.height_mm, 1),
        **{measure.name: _round(vertebra.measures.get(measure.name), 1) for measure in MEASURES},
        "slices": slices,
        "flags": list(vertebra.flags),
        "bone_quality": call and call.label("bone_quality"),
        "posterolateral": call and call.label("posterolateral"),
        "unsure": (call.doubt or "") if call and call.is_judged else None,
        "plausible": {task: list(names) for task, names in call.plausible.items()} if call and call.plausible else None,
        "probabilities": call
        and {
            task: {name: _round(value, 4) for name, value in classes.items()}
            for task, classes in call.probabilities.items()
        },
    }


def _round(value: float | None, digits: int) -> float | None:
    return None if value is None else round(float(value), digits)
