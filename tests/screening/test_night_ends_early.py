"""Nights that are stopped or fail: what is committed stands, and the next night does the rest."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spinemet.config import StudyConfig
from spinemet.errors import JobFailed
from spinemet.files import exists, join
from spinemet.reading import State
from spinemet.results.lease import LEASE, Lease
from spinemet.results.schemas import RunState
from spinemet.results.tables import LEDGER, Results, connect
from spinemet.screening import night
from spinemet.screening.answers import Answer
from spinemet.screening.drift import MIN_RUNS
from spinemet.screening.night import run_night
from spinemet.screening.plan import PlannedStudy, ScreenOptions
from spinemet.screening.stopping import StopReason, Watchdog
from tests.readings import CALLS
from tests.screening.nights import answer, answers, rows, runs
from tests.screening.places import STUDIES


def stopping(at: int) -> night.Answers:
    """A generator that sends SIGTERM to this process before answer number `at`."""

    def signalled(studies: Sequence[PlannedStudy], config: StudyConfig) -> Generator[Answer, None, None]:
        for number, study in enumerate(studies):
            if number == at:
                os.kill(os.getpid(), signal.SIGTERM)
            yield answer(study)

    return signalled


@pytest.mark.parametrize("round_size", [2, 100])
def test_sigterm_commits_finished_studies_and_the_next_night_does_the_rest(
    options: ScreenOptions, monkeypatch: pytest.MonkeyPatch, round_size: int
) -> None:
    monkeypatch.setattr(night, "ROUND", round_size)
    monkeypatch.setattr(night, "WAVE", 1)  # which also bounds how far the generator runs ahead
    run = run_night(options, stopping(at=1))
    assert run.stopped is StopReason.SIGNAL
    assert run.exit_code(None) == 143
    assert 0 < run.studies < STUDIES
    assert len(rows(options)["studies"]) == run.studies
    assert runs(options)[-1]["state"] == RunState.STOPPED
    rest = run_night(options, answers)
    assert rest.plan.planned == STUDIES - run.studies
    assert len(rows(options)["studies"]) == STUDIES


def test_sigterm_while_the_cluster_starts_ends_the_night_at_once(options: ScreenOptions) -> None:
    def starting(studies: Sequence[PlannedStudy], config: StudyConfig) -> Generator[Answer, None, None]:
        os.kill(os.getpid(), signal.SIGTERM)
        return answers(studies, config)

    with pytest.raises(SystemExit) as ended:
        run_night(options, starting)
    assert ended.value.code == 143
    assert [row["state"] for row in runs(options)] == [RunState.FAILED]
    assert not exists(join(options.results, LEASE))


def test_a_night_stops_at_its_deadline(options: ScreenOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(night, "WAVE", 2)
    run = run_night(replace(options, max_hours=1e-9), answers)
    assert run.stopped is StopReason.DEADLINE
    assert run.exit_code(None) == (0 if run.studies else 4)
    (row,) = runs(options)
    assert (row["state"], sum(row[state] for state in State)) == (RunState.STOPPED, run.studies)
    assert len(rows(options)["studies"]) == run.studies < run.plan.planned


def test_a_night_that_dies_between_two_commits_is_resumed_without_losing_or_doubling_a_row(
    options: ScreenOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = replace(options, results=str(tmp_path / "undisturbed"))
    run_night(undisturbed, answers)
    monkeypatch.setattr(night, "WAVE", 2)
    write, ledger_writes = Results._write, []

    def dying(self: Results, name: str, rows: Any, replaced: str | None) -> None:
        if name == LEDGER:
            ledger_writes.append(rows)
            if len(ledger_writes) == 2:
                raise OSError("the store went away")
        write(self, name, rows, replaced)

    monkeypatch.setattr(Results, "_write", dying)
    with pytest.raises(JobFailed, match=r"^A store failed during the run: the store went away\. What was committed"):
        run_night(options, answers)
    assert len(rows(options)["studies"]) == 2
    (last,) = runs(options)
    assert (last["state"], sum(last[state] for state in State)) == (RunState.FAILED, 2)
    monkeypatch.setattr(Results, "_write", write)
    for number in range(MIN_RUNS):  # nights without a failed study; tonight has one
        usual = {"state": "done", "screened": 9999, "excluded": 1, "failed": 0, "run_id": f"usual-{number}"}
        Results(options.results).write_run(last | usual)
    run = run_night(options, answers)
    assert "failed" in [alarm.name for alarm in run.alarms]
    drift = connect(options.results).sql(f"SELECT drift FROM runs WHERE run_id = '{run.run_id}'").fetchall()
    assert str(run.alarms[0]) in drift[0][0]
    assert rows(options) == rows(undisturbed)
    everything = connect(options.results).sql("SELECT count(*) FROM all_vertebrae").fetchall()
    assert everything == [(len(CALLS) * (STUDIES - 1),)]  # the rows of the wave that failed are gone


def test_a_store_that_stays_away_is_reported_with_its_first_error(
    options: ScreenOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, failures = Results._write, []

    def gone(self: Results, name: str, rows: Any, replaced: str | None) -> None:
        if name == LEDGER or failures:
            failures.append(name)
            raise OSError(f"failure {len(failures)}")
        write(self, name, rows, replaced)

    monkeypatch.setattr(Results, "_write", gone)
    with pytest.raises(JobFailed, match="failure 1"):
        run_night(options, answers)
    assert failures == [LEDGER, "runs"]
    assert [row["state"] for row in runs(options)] == [RunState.RUNNING]


def test_a_lost_lease_ends_the_night_before_the_next_write(
    options: ScreenOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = threading.Event()

    def check(self: Lease) -> None:
        if lost.is_set():
            raise JobFailed("the lease was lost")

    def losing(studies: Sequence[PlannedStudy], config: StudyConfig) -> Generator[Answer, None, None]:
        yield answer(studies[0])
        lost.set()
        yield answer(studies[1])

    monkeypatch.setattr(Lease, "check", check)
    with pytest.raises(JobFailed, match="the lease was lost"):
        run_night(options, losing)
    assert rows(options)["studies"] == []


def test_an_error_of_the_cluster_ends_the_night_and_committed_waves_stand(
    options: ScreenOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(night, "WAVE", 2)

    def breaking(studies: Sequence[PlannedStudy], config: StudyConfig) -> Generator[Answer, None, None]:
        yield from map(answer, studies[:5])
        raise RuntimeError("no node is left")

    with pytest.raises(RuntimeError, match="no node is left"):
        run_night(options, breaking)
    assert len(rows(options)["studies"]) == 4
    assert [row["state"] for row in runs(options)] == [RunState.FAILED]


def test_a_cluster_that_makes_no_progress_ends_the_night_with_a_sentence(
    options: ScreenOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(night, "WAKE_S", 0.02)
    monkeypatch.setattr("spinemet.screening.stopping.MINUTE_S", 0.1)
    monkeypatch.setattr(night, "Watchdog", lambda: Watchdog(0.5))
    ended, shown = threading.Event(), []

    def stuck(studies: Sequence[PlannedStudy], config: StudyConfig) -> Generator[Answer, None, None]:
        yield answer(studies[0])
        ended.wait(30)

    with pytest.raises(JobFailed, match="No study was finished for 5 minutes"):
        run_night(options, stuck, lambda done, total, note="": shown.append(note))
    ended.set()
    assert [note for note in shown if note.endswith("; no study finished for 2 min")] == [
        "1 screened; no study finished for 2 min"
    ]
    assert len(rows(options)["studies"]) == 1  # what was done before is committed
    assert [row["state"] for row in runs(options)] == [RunState.FAILED]
