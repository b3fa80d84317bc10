"""cohort prevalence --correct, from result tables and the folder of an evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from spinemet.cli import main
from spinemet.cohort.correction import CORRECTED
from spinemet.cohort.evaluated import called_by, read_evaluation
from spinemet.cohort.population import Population
from spinemet.cohort.prevalence import correction_of, prevalence
from spinemet.cohort.views import open_cohort
from spinemet.errors import BadInput
from spinemet.results.tables import open_results
from spinemet.types import BONE_QUALITY
from tests.cohort.cases import CALLS, MODEL, Study, write_results

RIGHT = [(name, name) for name in BONE_QUALITY for _ in range(9)]
WRONG = [("normal", "lytic"), *((name, "normal") for name in BONE_QUALITY[1:])]
"""(true, called): 9 of 10 of each class are called right."""
COHORT = [Study(f"p{n}", levels=f"L1{'=lytic' * (n < 4)} L2 L3") for n in range(20)]


def _evaluation(place: Path, pairs: list[tuple[str, str]], model: str = MODEL, **more: Any) -> str:
    """The folder of an evaluation with one patient per pair, and further columns of vertebrae."""
    rows = [
        {"patient": f"e{n}", "study": f"s{n}", "bone_quality_true": true, "bone_quality_called": called}
        | {f"bone_quality_p_{name}": p for name, p in zip(BONE_QUALITY, CALLS[called], strict=True)}
        for n, (true, called) in enumerate(pairs)
    ]
    place.mkdir()
    pd.DataFrame(rows).assign(**more).to_parquet(place / "vertebrae.parquet")
    (place / "evaluation.json").write_text(json.dumps({"facts": {"model": model}}))
    return str(place)


def _corrected(
    tmp_path: Path, evaluation: str, unit: str = "vertebra", rule: Any = "argmax", task: str = "bone_quality"
) -> tuple[pd.DataFrame, list[str]]:
    cohort = open_cohort(write_results(str(tmp_path / "results"), COHORT), None, Population(rule=rule))
    correction = correction_of(cohort, read_evaluation(cohort, evaluation), unit, task)
    table = prevalence(cohort, [], unit, task, correction)
    return table.set_index("finding"), correction.notes(table)


def test_uncorrected_and_corrected_shares_stand_side_by_side(tmp_path: Path) -> None:
    table, notes = _corrected(tmp_path, _evaluation(tmp_path / "e", RIGHT + WRONG))
    columns = list(table.columns)
    assert columns[columns.index("interval") + 1 :][:4] == list(CORRECTED)
    row = table.loc["any"]
    assert row["prevalence"] == 4 / 60
    assert row["corrected"] == 0, "fewer than the false positives alone: 1 in 10"
    assert row["correction"] == "rogan_gladen"
    assert (row["corrected_low"], row["corrected_high"]) == (0, pytest.approx(0.195, abs=1e-3))
    assert "not normal, 90 % are called so, of those that are normal 10 % by mistake (specificity 90 %)" in notes[0]


def test_patients_are_corrected_one_finding_at_a_time(tmp_path: Path) -> None:
    table, _ = _corrected(tmp_path, _evaluation(tmp_path / "e", RIGHT + WRONG), "patient")
    assert table.loc["any", "corrected"] == pytest.approx((4 / 20 - 0.1) / 0.8)
    assert set(table["correction"]) == {"rogan_gladen"}


def test_classes_of_vertebrae_are_corrected_together(tmp_path: Path) -> None:
    table, _ = _corrected(tmp_path, _evaluation(tmp_path / "e", RIGHT + WRONG[1:]))
    shares = np.array([[1, 0, 0, 0], [0.1, 0.9, 0, 0], [0.1, 0, 0.9, 0], [0.1, 0, 0, 0.9]])
    expected = np.linalg.solve(shares.T, [56 / 60, 0, 0, 4 / 60])[1:]
    assert table.loc[["blastic", "mixed", "lytic"], "corrected"].tolist() == pytest.approx(expected)
    assert table["correction"].tolist() == ["rogan_gladen", "matrix", "matrix", "matrix"]


def test_the_evaluation_is_called_by_the_rule_of_the_population(tmp_path: Path) -> None:
    """At 0.17 every vertebra is called positive, at 0.9 hardly one: only then do the calls tell something."""
    evaluation = _evaluation(tmp_path / "e", RIGHT + WRONG)
    with pytest.raises(BadInput, match=r"not normal are called so, and 100 % of others"):
        _corrected(tmp_path / "a", evaluation, rule=0.17)
    table, notes = _corrected(tmp_path / "b", evaluation, rule=0.915)
    assert table.loc["any", "n_positive"] == 0
    assert "of those that are normal 0 %" in notes[0]


@pytest.mark.parametrize("rule", ["argmax", 0.17, 0.5, 0.915])
def test_the_rule_calls_an_evaluation_as_it_calls_the_tables(tmp_path: Path, rule: Any) -> None:
    studies = [Study(f"p{n}", levels=f"L1={name}") for n, name in enumerate(CALLS)]
    cohort = open_cohort(write_results(str(tmp_path), studies), None, Population(rule=rule))
    tables = cohort.execute("select called from current_vertebrae order by patient").fetchall()
    numbers = called_by(None if rule == "argmax" else rule, np.array(list(CALLS.values())))
    assert [BONE_QUALITY[n] for n in numbers] == [called for (called,) in tables]


def test_an_operating_point_calls_the_evaluation_by_its_threshold(tmp_path: Path) -> None:
    place = open_results(write_results(str(tmp_path / "results"), COHORT))
    points = {"specificity_90": {"bone_quality": 0.915}}
    place.write_run(place.runs()[0] | {"operating_points": json.dumps(points)})
    cohort = open_cohort(place.uri, None, Population(rule="specificity_90"))
    named = read_evaluation(cohort, _evaluation(tmp_path / "e", RIGHT + WRONG))
    numbered = read_evaluation(open_cohort(place.uri, None, Population(rule=0.915)), named.name)
    shares = [one.errors("bone_quality", BONE_QUALITY, "vertebra").shares_CC for one in (named, numbered)]
    assert shares[0].tolist() == shares[1].tolist()
    named.vertebrae[["blastic_true", "blastic_p_no", "blastic_p_yes"]] = ["no", 0.5, 0.5]
    with pytest.raises(BadInput, match="no threshold for blastic"):
        named.errors("blastic", ("no", "yes"), "vertebra")


def test_too_few_evaluated_patients_are_refused_or_said(tmp_path: Path) -> None:
    few = RIGHT[:9] + RIGHT[9:13]
    with pytest.raises(BadInput, match="only 4 evaluated patients are not normal, and 5 are needed"):
        _corrected(tmp_path / "a", _evaluation(tmp_path / "few", few))
    table, notes = _corrected(tmp_path / "b", _evaluation(tmp_path / "one", RIGHT[:18] + RIGHT[27:30]))
    assert table.loc["any", "correction"] == "rogan_gladen"
    assert set(table.loc[["blastic", "mixed", "lytic"], "correction"]) == {"not_identifiable"}
    assert np.isnan(table.loc["lytic", "corrected"])
    assert "Not corrected: blastic, mixed, lytic, because only 0 evaluated patients are mixed" in notes[1]


def test_calls_that_the_errors_cannot_explain_are_marked(tmp_path: Path) -> None:
    many = [("normal", "normal")] * 300 + [("normal", "lytic")] * 300 + [("lytic", "lytic")] * 300
    table, notes = _corrected(tmp_path, _evaluation(tmp_path / "e", many))
    assert table.loc["any", ["corrected", "correction"]].tolist() == [0, "contradicted"]
    assert np.isnan(table.loc["any", "corrected_high"])
    assert "1 rows contradict the evaluation" in notes[-1]


def test_an_evaluation_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=f"is of model feedc0de, and the population of model {MODEL}"):
        _corrected(tmp_path, _evaluation(tmp_path / "e", RIGHT, model="feedc0de"))


@pytest.mark.parametrize("broken", ["missing", "no_json", "other_json", "no_parquet"])
def test_a_place_without_an_evaluation_is_named(tmp_path: Path, broken: str) -> None:
    place = tmp_path / "e"
    if broken != "missing":
        _evaluation(place, RIGHT)
        text = {"no_json": "{", "other_json": "{}", "no_parquet": (place / "evaluation.json").read_text()}[broken]
        (place / "evaluation.json").write_text(text)
    if broken == "no_parquet":
        (place / "vertebrae.parquet").write_bytes(b"words")
    with pytest.raises(BadInput, match=str(place)):
        _corrected(tmp_path, str(place))


def test_unsure_vertebrae_of_the_evaluation_are_left_out(tmp_path: Path) -> None:
    unsure = ["" if true == called else "smooth" for true, called in RIGHT + WRONG]
    _, notes = _corrected(tmp_path, _evaluation(tmp_path / "e", RIGHT + WRONG, unsure=unsure))
    assert "100 % are called so, of those that are normal 0 %" in notes[0]


def test_a_sample_of_vertebrae_has_weights_and_does_not_tell_of_patients(tmp_path: Path) -> None:
    weights = [3.0 if pair == ("normal", "lytic") else 1.0 for pair in RIGHT + WRONG]
    evaluation = _evaluation(tmp_path / "e", RIGHT + WRONG, weight=weights)
    _, notes = _corrected(tmp_path / "a", evaluation)
    assert "of those that are normal 25 %" in notes[0]
    with pytest.raises(BadInput, match="a sample of vertebrae"):
        _corrected(tmp_path / "b", evaluation, "patient")


def test_a_task_that_was_not_evaluated_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds no posterolateral"):
        _corrected(tmp_path, _evaluation(tmp_path / "e", RIGHT), task="posterolateral")


def test_the_command_corrects_and_says_with_what(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results, good = write_results(str(tmp_path / "results"), COHORT), _evaluation(tmp_path / "e", RIGHT + WRONG)
    asked = ["cohort", "prevalence", results, "--by", "", "--unit", "patient", "--json", "--correct"]
    assert main([*asked, good]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["rows"][0]["corrected"] == pytest.approx((4 / 20 - 0.1) / 0.8)
    assert answer["notes"][-1].startswith(f"Corrected with {good}: of evaluated patients")
    assert main([*asked, _evaluation(tmp_path / "few", RIGHT[:10])]) == 2
    assert "cannot correct bone_quality" in capsys.readouterr().err
