"""A night with a generator in place of the cluster: its plan, rounds, waves, counts and forecast."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from spinemet.config import SliceConfig, StudyConfig
from spinemet.errors import BadInput
from spinemet.files import exists, join
from spinemet.reading import State
from spinemet.results.lease import LEASE, hold_lease
from spinemet.results.schemas import RunState
from spinemet.results.tables import LEDGER, Results
from spinemet.screening import night
from spinemet.screening import run as run_module
from spinemet.screening.answers import Answer
from spinemet.screening.drift import MIN_RUNS
from spinemet.screening.night import forecast, run_night
from spinemet.screening.plan import PlannedStudy, ScreenOptions, Selection
from spinemet.screening.run import Run
from tests.readings import CALLS
from tests.screening.nights import BROKEN, answer, answers, no_answers, rows, runs
from tests.screening.places import STUDIES, write_stub_model


def test_a_night_accounts_for_every_study(options: ScreenOptions) -> None:
    shown: list[tuple[int, int, str]] = []
    committed: list[int] = []
    run = run_night(
        options, answers, lambda *each: shown.append(each), lambda rows: committed.append(len(rows["studies"]))
    )
    assert (run.plan.listed, run.plan.planned, run.plan.waiting, run.waves) == (STUDIES, STUDIES, 0, 1)
    assert run.states == {State.SCREENED: STUDIES - 1, State.FAILED: 1}
    assert committed == [STUDIES]
    assert shown[0] == (0, STUDIES, "nothing new")
    assert shown[-1] == (STUDIES, STUDIES, f"{STUDIES - 1} screened, 1 failed")
    (row,) = runs(options)
    assert (row["state"], row["listed"], row["planned"], row["waiting"]) == (RunState.DONE, STUDIES, STUDIES, 0)
    assert [row[state] for state in State] == [run.states[state] for state in State]
    assert (row["run_id"], row["study_limit"], row["chosen"], row["drift"]) == (run.run_id, None, False, None)
    found = rows(options)
    assert len(found["studies"]) == STUDIES
    assert len(found["vertebrae"]) == len(CALLS) * (STUDIES - 1)
    assert found["slices"]
    assert not exists(join(options.results, LEASE))


def test_a_night_names_and_counts_what_it_could_not_list(options: ScreenOptions, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    shutil.copytree(options.archive, archive)
    Path(os.fsdecode(os.fsencode(archive) + b"/\xff.zip")).write_bytes(b"x")
    options = replace(options, archive=str(archive))
    assert str(forecast(options)).endswith("; not listed: files and folders whose names are not UTF-8: 1")
    run = run_night(options, answers)
    assert run.studies == STUDIES
    assert "\nnot listed: files and folders whose names are not UTF-8: 1" in str(run)
    assert json.loads(run.summary())["unlisted"] == {"files and folders whose names are not UTF-8": 1}


def test_a_second_night_does_nothing(options: ScreenOptions) -> None:
    run_night(options, answers)
    before, shown = rows(options), []
    run = run_night(options, no_answers, lambda *each: shown.append(each))
    assert (run.plan.listed, run.plan.planned, run.studies, run.waves) == (STUDIES, 0, 0, 0)
    assert shown == [(0, 0, "nothing new")]
    assert rows(options) == before
    assert [row["state"] for row in runs(options)] == [RunState.DONE] * 2
    assert len({row["run_id"] for row in runs(options)}) == 2


def test_studies_come_in_rounds_and_are_committed_in_waves(
    options: ScreenOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(night, "ROUND", 3)
    monkeypatch.setattr(night, "WAVE", 2)
    rounds: list[int] = []
    waves: list[int] = []
    totals: list[int] = []

    def counted(studies: Sequence[PlannedStudy], config: StudyConfig) -> Generator[Answer, None, None]:
        rounds.append(len(studies))
        return answers(studies, config)

    run = run_night(
        options,
        counted,
        lambda done, total, note="": totals.append(total),
        lambda rows: waves.append(len(rows[LEDGER])),
    )
    assert rounds == [3, 3, 1]
    assert waves == [2, 2, 2, 1]
    assert run.waves == 4
    assert totals == [0] * 8 + [STUDIES] * 3  # the total is known once the last round is listed
    assert len(rows(options)["studies"]) == STUDIES


def test_a_study_does_not_wait_for_its_commit_behind_slow_ones(
    options: ScreenOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(night, "WAKE_S", 0.02)
    monkeypatch.setattr(run_module, "MAX_WAIT_S", 0.05)
    committed = threading.Event()

    def slow(studies: Sequence[PlannedStudy], config: StudyConfig) -> Generator[Answer, None, None]:
        yield answer(studies[0])
        assert committed.wait(20), "the first study had to wait for the slow ones"
        yield from map(answer, studies[1:])

    assert run_night(options, slow, on_commit=lambda rows: committed.set()).studies == STUDIES
    assert len(rows(options)["studies"]) == STUDIES


def test_another_run_on_the_results_is_bad_input_and_changes_nothing(options: ScreenOptions) -> None:
    run_night(options, answers)
    with (
        hold_lease(options.results, "20260101T200000-abcdef"),
        pytest.raises(BadInput, match="20260101T200000-abcdef on "),
    ):
        run_night(options, no_answers)
    assert len(runs(options)) == 1


def test_a_limit_is_kept_and_recorded(options: ScreenOptions) -> None:
    run = run_night(replace(options, selection=Selection(limit=2)), answers)
    assert (run.plan.planned, run.studies, runs(options)[0]["study_limit"]) == (2, 2, 2)
    assert run_night(options, answers).studies == STUDIES - 2


def test_young_studies_wait_for_a_later_night(options: ScreenOptions) -> None:
    run = run_night(replace(options, selection=Selection(quiet_s=1e6)), no_answers)
    assert (run.plan.listed, run.plan.planned, run.plan.waiting) == (STUDIES, 0, STUDIES)
    assert runs(options)[0]["waiting"] == STUDIES
    assert f"{STUDIES} studies left for later: still being written" in str(run)


def test_rescreening_replaces_and_does_not_double(options: ScreenOptions, tmp_path: Path) -> None:
    def again(rescreen: Any, options: ScreenOptions = options) -> Run:
        return run_night(replace(options, selection=Selection(rescreen=rescreen)), answers)

    run_night(options, answers)
    before = rows(options)
    everything, failed, stale = again("all"), again("failed"), again("stale")
    assert (everything.studies, failed.studies, stale.studies) == (STUDIES, 1, 0)
    assert failed.states == {State.FAILED: 1}
    assert rows(options) == before
    assert [row["chosen"] for row in runs(options)] == [False, True, True, True]
    write_stub_model(str(tmp_path / "model"), b"other weights")
    other = again("stale", replace(options, model=str(tmp_path / "model")))
    assert other.studies == STUDIES
    assert len(rows(options)["studies"]) == 2 * STUDIES


def test_a_night_of_studies_selected_by_hand_raises_no_alarm(options: ScreenOptions) -> None:
    run_night(options, answers)
    (last,) = runs(options)
    for number in range(MIN_RUNS):
        usual = {"state": "done", "screened": 9999, "excluded": 1, "failed": 0, "run_id": f"usual-{number}"}
        Results(options.results).write_run(last | usual)
    run = run_night(replace(options, selection=Selection(studies=frozenset({BROKEN}), rescreen="all")), answers)
    assert (run.studies, run.states, list(run.alarms)) == (1, {State.FAILED: 1}, [])


def test_studies_are_read_with_the_slices_of_the_model(options: ScreenOptions) -> None:
    seen: list[StudyConfig] = []

    def noting(studies: Sequence[PlannedStudy], config: StudyConfig) -> Generator[Answer, None, None]:
        seen.append(config)
        return answers(studies, config)

    own = StudyConfig(slices=SliceConfig(size_px=32, pixel_mm=3.5, step_mm=12.0))
    run_night(replace(options, config=own), noting)
    assert seen == [StudyConfig()]
    assert runs(options)[0]["config"] == StudyConfig().model_dump_json()


def test_an_archive_that_moved_is_not_screened_again(options: ScreenOptions, tmp_path: Path) -> None:
    run_night(options, answers)
    before = rows(options)
    moved = replace(options, archive=f"{tmp_path}/moved/", moved_from=f"{options.archive}/")
    shutil.copytree(options.archive, moved.archive)
    assert forecast(replace(moved, moved_from=None)).planned == STUDIES  # at another address all are new
    assert run_night(moved, no_answers).plan.planned == 0
    (tmp_path / "moved" / "study-8.zip").write_bytes(b"not a zip")
    assert run_night(moved, answers).plan.planned == 1
    assert len(rows(options)["studies"]) == len(before["studies"]) + 1
    assert run_night(options, no_answers).plan.planned == 0


def test_linkage_names_every_study(options: ScreenOptions, tmp_path: Path) -> None:
    run_night(replace(options, linkage=str(tmp_path / "linkage"), slices=False), answers)
    named = pq.read_table(tmp_path / "linkage").to_pylist()
    found = rows(options)
    assert {row["source_key"] for row in named} == {row["source_key"] for row in found["studies"]}
    assert all(row["source"].endswith(".zip") for row in named)
    assert found["slices"] == []


def test_a_forecast_says_what_a_night_would_do_and_writes_nothing(
    options: ScreenOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "RATED", STUDIES)
    shown: list[tuple[int, int, str]] = []
    first = forecast(options, lambda *each: shown.append(each))
    assert (first.listed, first.planned, first.waiting, first.planned_bytes) == (STUDIES, STUDIES, 0, 9 * STUDIES)
    assert first.hours is None
    assert (
        str(first)
        == "7 studies listed, 7 to be screened (0.0 GB; time unknown: no run of 20 studies), 0 left for later"
    )
    assert shown[-1] == (STUDIES, 0, f"{STUDIES} to be screened")
    assert not Path(options.results).exists()
    run_night(options, answers)
    assert (forecast(options).planned, forecast(options).hours) == (0, 0.0)
    again = forecast(replace(options, selection=Selection(rescreen="all")))
    assert again.planned == STUDIES
    assert again.hours is not None
    assert "h at the last run's speed" in str(again)
    with pytest.raises(BadInput, match="pseudonym key"):
        forecast(replace(options, key=b"another key, as long"))
    assert len(runs(options)) == 1


Change = Callable[[ScreenOptions], ScreenOptions]


BAD: dict[str, tuple[Change, str]] = {
    "limit": (lambda o: replace(o, selection=Selection(limit=0)), "expected a limit of at least 1, found 0"),
    "workers": (lambda o: replace(o, workers=0), "number of workers of at least 1, found 0"),
    "gpus": (lambda o: replace(o, gpus=-1), "number of GPUs of at least 0, found -1"),
    "quiet": (lambda o: replace(o, selection=Selection(quiet_s=-60)), "quiet minutes of at least 0, found -1"),
    "hours": (lambda o: replace(o, max_hours=0), "number of hours above 0, found 0"),
    "archive": (lambda o: replace(o, archive=f"{o.archive}/nowhere"), "nowhere"),
    "no model": (lambda o: replace(o, model=o.archive), "expected a model"),
    "results in the archive": (lambda o: replace(o, results=f"{o.archive}/results"), "outside the archive"),
    "linkage in the archive": (lambda o: replace(o, linkage=f"{o.archive}/linkage"), "outside the archive"),
    "linkage in the results": (lambda o: replace(o, linkage=f"{o.results}/linkage"), "apart from the results"),
    "study": (lambda o: replace(o, selection=Selection(studies=frozenset({"no.zip"}))), "expected 1 studies"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_options_are_one_sentence_before_anything_is_written(name: str, options: ScreenOptions) -> None:
    change, sentence = BAD[name]
    for attempt in (lambda: run_night(change(options), no_answers), lambda: forecast(change(options))):
        with pytest.raises(BadInput, match=sentence):
            attempt()
    assert not Path(options.results).exists()
    assert not (Path(options.archive) / "results").exists()


def test_a_damaged_model_is_found_before_anything_is_written(options: ScreenOptions, tmp_path: Path) -> None:
    write_stub_model(str(tmp_path / "model"))
    (tmp_path / "model" / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(BadInput, match="damaged"):
        run_night(replace(options, model=str(tmp_path / "model")), no_answers)
    assert not Path(options.results).exists()


def test_results_go_on_only_with_their_own_key_and_dates(options: ScreenOptions) -> None:
    run_night(options, answers)
    with pytest.raises(BadInput, match="pseudonym key"):
        run_night(replace(options, key=b"another key, as long"), no_answers)
    with pytest.raises(BadInput, match="date policy"):
        run_night(replace(options, dates="exact"), no_answers)
    assert len(runs(options)) == 1
