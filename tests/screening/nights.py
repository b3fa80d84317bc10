"""Nights with answers made by hand, and what they wrote."""

from __future__ import annotations

from collections.abc import Generator, Sequence

import pytest

from spinemet.config import StudyConfig
from spinemet.errors import Reason
from spinemet.reading import NotScreened, State
from spinemet.results.schemas import Row
from spinemet.results.tables import connect
from spinemet.screening.answers import Answer
from spinemet.screening.plan import PlannedStudy, ScreenOptions
from tests.readings import CALLS, READING
from tests.screening.places import Tables, rows_in

KEY = b"a key for the tests only"
BROKEN = "study-3.zip"
"""The study that fails; all others are screened."""


def answer(study: PlannedStudy) -> Answer:
    if study.ref.key == BROKEN:
        return Answer(study, NotScreened(State.FAILED, Reason.TRUNCATED, "cut off."))
    return Answer(study, READING, CALLS, 0.25)


def answers(studies: Sequence[PlannedStudy], config: StudyConfig) -> Generator[Answer, None, None]:
    """All answers, last study first: the order is free."""
    yield from map(answer, reversed(studies))


def no_answers(studies: Sequence[PlannedStudy], config: StudyConfig) -> Generator[Answer, None, None]:
    pytest.fail("a night without new studies needs no cluster")


def rows(options: ScreenOptions) -> Tables:
    return rows_in(options.results)


def runs(options: ScreenOptions) -> list[Row]:
    return connect(options.results).sql("SELECT * FROM runs ORDER BY started_at").to_arrow_table().to_pylist()
