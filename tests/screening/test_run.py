"""A run's counts, its row of `runs`, its summary and exit code."""

import json

import pytest

from spinemet.results.schemas import RunState
from spinemet.screening.drift import Alarm
from spinemet.screening.run import RATED, Run, account, in_words
from spinemet.screening.stopping import StopReason

VERTEBRA = {"evaluable": True, "bone_quality": "lytic", "posterolateral": "none", "trabecular_hu": 120.0} | {
    "unsure": "",
    "completeness": "whole",
}
CUT = VERTEBRA | {"evaluable": False, "completeness": "cut", "unsure": "ambiguous"}
UNSURE = VERTEBRA | {"evaluable": False, "unsure": "ambiguous"}


def test_a_run_counts_states_reasons_and_vertebrae() -> None:
    run = Run(facts={"asked_by": account(), "study_limit": 9})
    assert run.studies_per_hour is None
    run.count({"studies": [{"state": "screened", "reason": None}], "vertebrae": [VERTEBRA, CUT, UNSURE]})
    run.count({"studies": [{"state": "failed", "reason": "crashed"}], "vertebrae": []})
    row = run.row(RunState.DONE)
    assert (row["screened"], row["excluded"], row["failed"], row["vertebrae"]) == (1, 0, 1, 3)
    assert [row[name] for name in ("unsure", "evaluable", "lytic", "bilateral", "hu_vertebrae", "mean_hu")] == [
        1,
        1,
        1,
        0,
        1,
        120.0,
    ]
    assert json.loads(row["reasons"]) == {"crashed": 1}
    assert row["study_limit"] == 9
    assert row["studies_per_hour"] is None, "of two studies most time is the start"
    assert in_words(run.states) == "1 screened, 1 failed"
    run.states["screened"] += RATED
    assert run.row(RunState.DONE)["studies_per_hour"] > 0
    assert in_words({}) == "nothing new"
    assert "finished_at" not in run.row(RunState.RUNNING)


def test_exit_code_and_summary_say_how_a_run_ended() -> None:
    run = Run(facts={"asked_by": "me", "config": "{}"})
    assert run.exit_code(0.0) == 0  # nothing done, nothing failed
    for state, reason in (("screened", None), ("screened", None), ("screened", None), ("failed", "crashed")):
        run.count({"studies": [{"state": state, "reason": reason}], "vertebrae": []})
    assert [run.exit_code(share) for share in (None, 0.25, 0.2)] == [0, 0, 3]
    summary = json.loads(run.summary())
    assert (summary["state"], summary["failed"], summary["reasons"], summary["stopped"]) == (
        "done",
        1,
        {"crashed": 1},
        None,
    )
    assert "config" not in summary
    run.stopped = StopReason.DEADLINE
    assert (run.exit_code(None), json.loads(run.summary())["state"]) == (0, "stopped")
    assert "stopped by its deadline: the next run does the rest" in str(run)
    run.stopped = StopReason.SIGNAL
    assert run.exit_code(0.2) == 143
    assert "stopped by a signal" in str(run)


def test_a_run_that_planned_studies_and_did_none_has_an_exit_code_of_its_own() -> None:
    run = Run(facts={})
    run.plan.planned = 27
    for stopped, code in ((None, 4), (StopReason.DEADLINE, 4), (StopReason.SIGNAL, 143)):
        run.stopped = stopped
        assert run.exit_code(0.5) == code
    run.stopped = None
    assert "none of the planned studies was done" in str(run)
    run.count({"studies": [{"state": "excluded", "reason": "not_ct"}], "vertebrae": []})
    assert run.exit_code(None) == 0
    assert "none of" not in str(run)


def test_an_alarm_stands_in_log_row_and_summary() -> None:
    run = Run(facts={"asked_by": "me"}, alarms=[Alarm("failed", 0.5, 0.0, 0.04, 12)])
    sentence = "failed: 50.0%, expected 0.0% to 4.0% after the last 12 runs"
    assert f"out of control: {sentence}" in str(run)
    assert run.row(RunState.DONE)["drift"] == sentence
    assert json.loads(run.summary())["drift"] == [
        {"name": "failed", "value": 0.5, "low": 0.0, "high": 0.04, "runs": 12}
    ]
    assert Run(facts={}).row(RunState.DONE)["drift"] is None


def test_names_of_waves_are_unique_and_in_order() -> None:
    run, other = Run(facts={}), Run(facts={})
    names = [run.next_wave() for _ in range(12)]
    assert names == sorted(names)
    assert len({*names, other.next_wave()}) == 13


def test_an_account_without_a_name_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr("getpass.getuser", nobody)
    assert account() == "unknown"
