"""Answers before and after the model, with stand-ins for reader and model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from spinemet.errors import Reason, StudyFailed
from spinemet.reading import NotScreened, State, StudyReading, VertebraCall
from spinemet.screening.answers import Answer, classify, read_answer
from spinemet.screening.plan import PlannedStudy
from spinemet.types import SliceStack, StudyRef
from tests.readings import CALLS, LEVELS, READING, REF, SECRETS, SERIES, stack

STUDY = PlannedStudy(REF)


def predict(studies: Sequence[Sequence[SliceStack]]) -> list[list[VertebraCall]]:
    """A stand-in for a model; it breaks on a stack of zeros."""
    if any(not np.any(each.hu_NHW) for stacks in studies for each in stacks):
        raise RuntimeError("a patient's name")
    return [[CALLS[LEVELS.index(each.level)] for each in stacks] for stacks in studies]


def test_a_study_that_breaks_the_model_fails_alone_and_keeps_its_reading() -> None:
    zeros = SliceStack("T12", np.zeros((2, 8, 8), np.int16), np.zeros(2, np.float32), 1.0)
    poison = replace(READING, stacks=(zeros, *READING.stacks[1:]))
    first, second, third = classify([Answer(STUDY, each) for each in (READING, poison, READING)], predict)
    assert [answer.calls for answer in (first, third)] == [CALLS, CALLS]
    assert isinstance(second.reading, NotScreened)
    assert second.reading.state is State.FAILED
    assert second.reading.reason is Reason.INTERNAL
    assert (second.reading.chosen, second.reading.localizer) == (SERIES, "geometric")
    assert "patient" not in second.reading.detail
    assert second.calls == ()


def test_what_the_model_says_of_a_broken_study_stands_in_its_row() -> None:
    def refuse(stacks: Sequence[SliceStack]) -> list[VertebraCall]:
        raise StudyFailed(Reason.INTERNAL, "the model gave values that are not numbers.")

    (answer,) = classify([Answer(STUDY, READING)], refuse)
    assert isinstance(answer.reading, NotScreened)
    assert (answer.reading.reason, answer.reading.detail) == (
        Reason.INTERNAL,
        "the model gave values that are not numbers.",
    )


def test_vertebrae_without_slices_and_studies_without_vertebrae_skip_the_model() -> None:
    gap = replace(READING, stacks=(stack("T11", 0), *READING.stacks[1:]))
    failed = NotScreened(State.FAILED, Reason.TRUNCATED)
    with_gap, without = classify([Answer(STUDY, gap), Answer(STUDY, failed)], predict)
    assert with_gap.calls == (None, *CALLS[1:])
    assert without.calls == ()
    assert without.seconds_model is None


def test_a_reading_travels_without_the_headers_of_single_objects() -> None:
    answer = read_answer(STUDY, lambda ref: READING)
    assert answer.reading.chosen is not None
    assert answer.reading.chosen.instances == ()
    assert answer.study is STUDY


def test_a_study_that_breaks_the_reader_fails_without_its_secrets() -> None:
    def broken(ref: StudyRef) -> StudyReading:
        raise RuntimeError(f"cannot read {ref.key} of {SECRETS[0]}")

    answer = read_answer(STUDY, broken)
    assert isinstance(answer.reading, NotScreened)
    assert (answer.reading.state, answer.reading.reason) == (State.FAILED, Reason.INTERNAL)
    assert re.fullmatch(r"a fault of SpineMet at test_answers\.py:\d+: report it\.", answer.reading.detail)
