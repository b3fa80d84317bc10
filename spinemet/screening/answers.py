"""One study's answer on its way to the tables: read first, then classified together with other studies.

A study that breaks the reader or the model becomes `failed: internal` and stops nothing. The error's own text is
dropped: it could hold an identifier.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from spinemet.errors import Reason, StudyFailed, fault_in
from spinemet.reading import NotScreened, Screened, State, StudyReading, VertebraCall
from spinemet.screening.outcome import slimmed, without_pixels
from spinemet.screening.plan import PlannedStudy
from spinemet.types import SliceStack, StudyRef


@dataclass(frozen=True)
class Answer:
    """What became of one study: its reading and, once classified, a call per vertebra (None for one without slices)."""

    study: PlannedStudy
    reading: StudyReading
    calls: tuple[VertebraCall | None, ...] = ()
    seconds_model: float | None = None


def read_answer(study: PlannedStudy, read: Callable[[StudyRef], StudyReading]) -> Answer:
    """The answer of `study`, not yet classified and without the headers of single objects."""
    try:
        reading: StudyReading = slimmed(read(study.ref))
    except Exception as error:
        reading = NotScreened(State.FAILED, Reason.INTERNAL, fault_in(error))
    return Answer(study, reading)


def classify(
    answers: Iterable[Answer],
    predict: Callable[[Sequence[Sequence[SliceStack]]], Sequence[Sequence[VertebraCall]]],
) -> list[Answer]:
    """The answers with their calls and without pixels.

    predict: gives one call per slice stack of each study. It gets all studies at once; if that fails, it gets each
    study alone, and the one that breaks it becomes `failed: internal`.
    """
    answers = list(answers)
    stacks = [_stacks(answer) for answer in answers]
    start = time.perf_counter()
    try:
        calls = predict(stacks)
    except Exception as error:
        if len(answers) > 1:
            return [one for answer in answers for one in classify([answer], predict)]
        detail = error.detail if isinstance(error, StudyFailed) else fault_in(error)
        return [_broken(answer, detail) for answer in answers]
    per_stack = (time.perf_counter() - start) / max(sum(map(len, stacks)), 1)
    return [
        replace(
            answer,
            reading=without_pixels(answer.reading),
            calls=_by_stack(answer.reading.stacks, called),
            seconds_model=per_stack * len(own) if own else None,
        )
        if isinstance(answer.reading, Screened)
        else answer
        for answer, own, called in zip(answers, stacks, calls, strict=True)
    ]


def _by_stack(stacks: Sequence[SliceStack], calls: Sequence[VertebraCall]) -> tuple[VertebraCall | None, ...]:
    """The call of each stack, None for one without slices."""
    remaining = iter(calls)
    return tuple(next(remaining) if len(stack.hu_NHW) else None for stack in stacks)


def _broken(answer: Answer, detail: str) -> Answer:
    reading = answer.reading
    return replace(answer, reading=reading.failed(Reason.INTERNAL, detail)) if isinstance(reading, Screened) else answer


def _stacks(answer: Answer) -> list[SliceStack]:
    reading = answer.reading
    return [stack for stack in reading.stacks if len(stack.hu_NHW)] if isinstance(reading, Screened) else []
