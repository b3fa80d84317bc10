"""Studies that hang, crash, are killed or take too much memory cost the child process alone."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import resource
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from spinemet.config import StudyConfig
from spinemet.dicom.pseudonym import KEY_FILE_VARIABLE, KEY_VARIABLE
from spinemet.errors import Reason, StudyFailed
from spinemet.process.isolation import IsolatedReader
from spinemet.reading import State
from spinemet.types import ObjectRef, StudyRef

MEMORY_LIMIT_BYTES = 4 << 30
only_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux enforces RLIMIT_AS")


@pytest.fixture
def endless(tmp_path: Path) -> StudyRef:
    """A study whose only object never ends: a named pipe without a writer."""
    (tmp_path / "study").mkdir()
    os.mkfifo(tmp_path / "study" / "1.dcm")
    return StudyRef(str(tmp_path), "study", "prefix", (ObjectRef("study/1.dcm", 1000),))


@pytest.fixture
def empty(tmp_path: Path) -> StudyRef:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "note.txt").write_text("not DICOM")
    return StudyRef(str(tmp_path), "empty", "prefix", (ObjectRef("empty/note.txt", 9),))


@pytest.fixture(scope="module")
def reader() -> Iterator[IsolatedReader]:
    with IsolatedReader(time_limit_s=2.0, memory_limit_bytes=MEMORY_LIMIT_BYTES) as one:
        yield one


def test_a_study_that_hangs_is_ended_at_the_time_limit(
    reader: IsolatedReader, endless: StudyRef, empty: StudyRef
) -> None:
    hung = reader.read(endless, StudyConfig())
    assert (hung.state, hung.reason) == (State.FAILED, Reason.TIME_LIMIT)
    after = reader.read(empty, StudyConfig())
    assert (after.state, after.reason) == (State.FAILED, Reason.NOT_DICOM)


def test_a_child_keeps_its_memory_until_it_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spinemet.process.isolation.STUDIES_PER_CHILD", 2)
    with IsolatedReader(memory_limit_bytes=MEMORY_LIMIT_BYTES) as one:
        children, faults = zip(*(one.run(_faults_of_a_second_array) for _ in range(4)), strict=True)
    assert (len(set(children)), children[0], children[2]) == (2, children[1], children[3])
    if sys.platform == "linux":
        assert max(faults) < 1000  # the array has 12,500 pages of 4 kB


def _faults_of_a_second_array() -> tuple[int, int]:
    """The process id, and the page faults for an array after one of the same size was freed."""
    np.ones(50_000_000, np.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(50_000_000, np.uint8)
    return os.getpid(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.parametrize(("kills", "reason"), [(1, Reason.NOT_DICOM), (2, Reason.CRASHED)])
def test_a_study_whose_process_is_killed_is_read_once_more(
    reader: IsolatedReader, endless: StudyRef, kills: int, reason: Reason
) -> None:
    pipe = Path(endless.archive) / endless.objects[0].key
    threading.Thread(target=_kill_readers_of, args=(pipe, kills), daemon=True).start()
    read = reader.read(endless, StudyConfig())
    assert (read.state, read.reason) == (State.FAILED, reason)


def test_a_process_that_dies_idle_is_replaced(reader: IsolatedReader, empty: StudyRef) -> None:
    reader.read(empty, StudyConfig())
    _child().kill()
    after = reader.read(empty, StudyConfig())
    assert (after.state, after.reason) == (State.FAILED, Reason.NOT_DICOM)


def spin() -> None:
    """A loop in native code that holds the GIL and runs no signal handler."""
    sum(iter(int, 1))


def segfault() -> None:
    ctypes.string_at(0)


def hoard() -> None:
    np.ones(2 * MEMORY_LIMIT_BYTES // 8)


@pytest.mark.parametrize(
    ("work", "reason"),
    [
        (spin, Reason.TIME_LIMIT),
        (segfault, Reason.CRASHED),
        pytest.param(hoard, Reason.MEMORY_LIMIT, marks=only_linux),
    ],
)
def test_native_code_that_misbehaves_becomes_a_reason(
    reader: IsolatedReader, empty: StudyRef, work: object, reason: Reason
) -> None:
    with pytest.raises(StudyFailed) as failure:
        reader.run(work)  # type: ignore[arg-type]
    assert failure.value.reason is reason
    assert reader.read(empty, StudyConfig()).reason is Reason.NOT_DICOM


@only_linux
def test_a_study_too_large_for_memory_has_its_own_reason(reader: IsolatedReader, tmp_path: Path) -> None:
    # The header is readable; the whole file exceeds the child's memory limit.
    with (tmp_path / "1.nii").open("wb") as stream:
        stream.truncate(2 * MEMORY_LIMIT_BYTES)
    ref = StudyRef(str(tmp_path), "1.nii", "nifti", (ObjectRef("1.nii", 2 * MEMORY_LIMIT_BYTES),))
    greedy = reader.read(ref, StudyConfig())
    assert (greedy.state, greedy.reason) == (State.FAILED, Reason.MEMORY_LIMIT)


def test_the_child_sees_the_environment_of_its_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPINEMET_TEST", "set after the fork server had started")
    with IsolatedReader() as late:
        assert late.run(os.getenv, "SPINEMET_TEST") == "set after the fork server had started"


def _child() -> multiprocessing.process.BaseProcess:
    return multiprocessing.active_children()[0]


def _kill_readers_of(pipe: Path, kills: int) -> None:
    for _ in range(kills):
        with pipe.open("wb"):  # waits until a child has the study's object open
            child = _child()
            child.kill()
            child.join()
    pipe.write_bytes(b"not DICOM")


def environments() -> list[str]:
    """The environment of this process, as it is and as it and its parent, the fork server, were started with."""
    started = [Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace") for pid in ("self", os.getppid())]
    return [repr(dict(os.environ)), *started]


@only_linux
@pytest.mark.parametrize("name", [KEY_VARIABLE, KEY_FILE_VARIABLE])
def test_the_process_that_decodes_does_not_have_the_key(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "the key of all tests")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    with IsolatedReader() as reader:
        found = reader.run(environments)
    assert not any("the key of all tests" in text for text in found)
    assert "us-east-1" in found[0]  # what it needs to reach the archive
    assert os.environ[name] == "the key of all tests"  # the driver keeps it
