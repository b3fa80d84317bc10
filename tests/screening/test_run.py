import json

import pytest

from spinemet.screening.run import Run, account, in_words


def test_a_run_counts_states_reasons_and_vertebrae() -> None:
    run = Run(asked={"asked_by": account(), "study_limit": 9})
    assert run.studies_per_hour is None
    run.count({"studies": [{"state": "screened", "reason": None}], "vertebrae": [{}, {}]})
    run.count({"studies": [{"state": "failed", "reason": "crashed"}], "vertebrae": []})
    row = run.row("done")
    assert (row["screened"], row["excluded"], row["failed"], row["vertebrae"]) == (1, 0, 1, 2)
    assert json.loads(row["reasons"]) == {"crashed": 1}
    assert row["study_limit"] == 9
    assert row["studies_per_hour"] > 0
    assert in_words(run.states) == "1 screened, 1 failed"
    assert in_words({}) == "nothing new"
    assert "finished_at" not in run.row("running")


def test_waves_have_names_of_their_own_in_order() -> None:
    run, other = Run(asked={}), Run(asked={})
    names = [run.next_wave() for _ in range(12)]
    assert names == sorted(names)
    assert len({*names, other.next_wave()}) == 13


def test_an_account_without_a_name_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr("getpass.getuser", nobody)
    assert account() == "unknown"
