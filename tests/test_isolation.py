from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from spinemet.config import StudyConfig
from spinemet.errors import Reason
from spinemet.isolation import IsolatedReader
from spinemet.types import Layout, ObjectRef, State, StudyRef


@pytest.fixture
def endless(tmp_path: Path) -> StudyRef:
    """A study whose only object never ends: a named pipe that nobody writes to."""
    (tmp_path / "study").mkdir()
    os.mkfifo(tmp_path / "study" / "1.dcm")
    return StudyRef(str(tmp_path), "study", Layout.PREFIX, (ObjectRef("study/1.dcm", 1000),))


@pytest.fixture
def empty(tmp_path: Path) -> StudyRef:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "note.txt").write_text("not DICOM")
    return StudyRef(str(tmp_path), "empty", Layout.PREFIX, (ObjectRef("empty/note.txt", 9),))


@pytest.fixture
def reader() -> Iterator[IsolatedReader]:
    with IsolatedReader(time_limit_s=4.0) as one:
        yield one


def test_a_study_that_hangs_costs_its_time_and_nothing_else(
    reader: IsolatedReader, endless: StudyRef, empty: StudyRef
) -> None:
    hung = reader.read(endless, StudyConfig())
    assert (hung.state, hung.reason) == (State.FAILED, Reason.TIME_LIMIT)
    after = reader.read(empty, StudyConfig())
    assert (after.state, after.reason) == (State.FAILED, Reason.NOT_DICOM)


def test_a_study_that_kills_its_process_becomes_a_reason(reader: IsolatedReader, endless: StudyRef) -> None:
    pipe = Path(endless.archive) / endless.objects[0].key
    threading.Thread(target=_kill_the_reader_of, args=(pipe,), daemon=True).start()
    dead = reader.read(endless, StudyConfig())
    assert (dead.state, dead.reason) == (State.FAILED, Reason.CRASHED)


def test_a_process_that_dies_idle_is_replaced(reader: IsolatedReader, empty: StudyRef) -> None:
    reader.read(empty, StudyConfig())
    multiprocessing.active_children()[0].kill()
    after = reader.read(empty, StudyConfig())
    assert (after.state, after.reason) == (State.FAILED, Reason.NOT_DICOM)


def _kill_the_reader_of(pipe: Path) -> None:
    with pipe.open("wb"):  # waits until the child has the study's object open
        multiprocessing.active_children()[0].kill()
