import csv
import io
import json
from datetime import date
from pathlib import Path

import pytest

from spinemet.cli import main
from tests.cohort.cases import Study, write_results
from tests.cohort.evaluations import good_evaluation

STUDIES = [
    Study("p1", date(2020, 1, 1), "L1 L2"),
    Study("p1", date(2021, 1, 1), "L1=lytic L2"),
    Study("p2", date(2020, 1, 1), "L1", sex="M"),
    Study("p2", date(2020, 7, 1), "L1", sex="M"),
]
MEASURES = ("incidence", "survival", "transitions")


@pytest.mark.parametrize("measure", MEASURES)
def test_without_an_evaluation_a_change_is_only_shown_if_asked_for(
    measure: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = write_results(str(tmp_path), STUDIES)
    assert main(["cohort", measure, results]) == 2
    message = capsys.readouterr().err
    assert message.startswith("spinemet: what changes between two studies may be an error of the model. Give --correct")
    assert main(["cohort", measure, results, "--uncorrected"]) == 0
    shown = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(shown.out)))
    assert {row["events"] for row in rows} == {"called by the model, not corrected"}
    assert "called by the model, not corrected" in shown.err
    assert main(["cohort", measure, results, "--uncorrected", "--correct", "x"]) == 2


@pytest.mark.parametrize("measure", MEASURES)
def test_with_an_evaluation_the_corrected_value_stands_beside(
    measure: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = write_results(str(tmp_path / "r"), STUDIES)
    evaluation = good_evaluation(tmp_path / "e")
    assert main(["cohort", measure, results, "--correct", evaluation, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["rows"][0]["n_by_error"] > 0
    assert any("as if errors were independent" in sentence for sentence in answer["notes"])
    assert "corrected" in answer["rows"][0] or answer["rows"][-1]["estimate"] == "turnbull_corrected"


def test_days_are_whole_numbers_and_repeated_events_say_what_their_interval_assumes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = write_results(str(tmp_path), STUDIES)
    assert main(["cohort", "survival", results, "--uncorrected", "--at", "180, 365", "--by", "sex"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + 2 * 2 * 2
    for wrong in ("half", "-5"):
        assert main(["cohort", "survival", results, "--uncorrected", f"--at={wrong}"]) == 2
        assert "whole days such as 180,365" in capsys.readouterr().err
    assert main(["cohort", "incidence", results, "--uncorrected", "--washout", "90", "--repeated"]) == 0
    assert "may be too narrow" in capsys.readouterr().err
