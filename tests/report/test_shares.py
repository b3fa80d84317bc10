"""Who was studied, and how often: shares beside those corrected for the model's errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from spinemet.cohort.views import open_cohort
from spinemet.report.shares import characteristics, overall
from tests.cohort.cases import Study, write_results
from tests.cohort.evaluations import good_evaluation, write_evaluation

COHORT = [Study(f"p{n}", levels=f"L1{'=lytic' * (n < 8)} L2 L3", age=50 + n, sex="FM"[n % 2]) for n in range(20)]


def _results(tmp_path: Path) -> str:
    return write_results(str(tmp_path / "results"), COHORT)


def test_the_corrected_share_stands_beside_the_called_one(tmp_path: Path) -> None:
    found = overall(open_cohort(_results(tmp_path)), good_evaluation(tmp_path / "evaluation"))
    any_finding = found["overall"][0]
    assert found["is_corrected"]
    assert any_finding["vertebra"]["rate"] == "13.3"
    # Rogan and Gladen: (8/60 + 0.9 - 1) / (0.9 + 0.9 - 1)
    assert any_finding["vertebra"]["corrected"].startswith("4.2 [")
    assert any_finding["patient"]["corrected"].startswith("37.5 [")
    assert any("90 % are called so" in sentence for sentence in found["caveats"])


@pytest.mark.parametrize("model", ["another model", None])
def test_without_a_fitting_evaluation_nothing_is_corrected(tmp_path: Path, model: str | None) -> None:
    evaluation = write_evaluation(tmp_path / "evaluation", [[("normal", "normal")]], model) if model else None
    found = overall(open_cohort(_results(tmp_path)), evaluation)
    assert not found["is_corrected"]
    assert {row["vertebra"]["corrected"] for row in found["overall"]} == {""}
    assert [sentence.startswith("Not corrected: ") for sentence in found["caveats"]] == ([True] if model else [])


def test_the_population_is_described_in_the_order_of_table_1(tmp_path: Path) -> None:
    found = characteristics(open_cohort(_results(tmp_path)))
    assert list(found)[:3] == ["sex", "age", "age group"]
    assert found["sex"] == {"rows": [("F", "10 (50.0)"), ("M", "10 (50.0)")], "missing": 0}
    assert found["age"]["rows"][0][1].startswith("59.5 ± 5.9")


def test_one_patient_has_no_deviation(tmp_path: Path) -> None:
    found = characteristics(open_cohort(write_results(str(tmp_path / "results"), COHORT[:1])))
    assert found["age"]["rows"] == [("", "50.0 ± –; 50.0 [50.0, 50.0]")]
