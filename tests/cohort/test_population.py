import json
from datetime import date
from pathlib import Path
from typing import Literal

import pandas as pd
import pytest

from spinemet.cohort.population import Population
from spinemet.cohort.prevalence import notes, prevalence
from spinemet.cohort.views import open_cohort, records
from spinemet.config import changed, load_config
from spinemet.errors import BadInput
from spinemet.results.tables import open_results
from tests.cohort.cases import Study, write_results


@pytest.mark.parametrize(
    "population",
    [
        Population(),
        Population(model="0123456789ab", since=date(2015, 1, 1), until=date(2019, 12, 31), rule=0.3, counted="first"),
        Population(rule="specificity_90", training_patients="counted"),
        Population(where="kernel in ('B30f', 'a \"quoted\" one')"),
    ],
)
def test_a_file_makes_the_same_population_again(tmp_path: Path, population: Population) -> None:
    (tmp_path / "population.toml").write_text(population.as_toml())
    again = load_config(tmp_path / "population.toml", Population)
    assert again == population
    assert again.digest == population.digest


def test_every_value_changes_the_digest() -> None:
    values = {"model": "a", "configuration": "b", "since": "2015-01-01", "until": "2016-01-01", "where": "age > 50"}
    made = [
        Population(),
        *(
            changed(Population(), **{k: v})
            for k, v in (values | {"counted": "first", "training_patients": "counted", "rule": "0.3"}).items()
        ),
    ]
    assert len({one.digest for one in made}) == len(made)


@pytest.mark.parametrize(
    "values",
    [
        {"rule": "most"},
        {"rule": "1.5"},
        {"rule": "sensitivity_90"},
        {"counted": "all"},
        {"training_patients": "some"},
        {"since": "2019-01-01", "until": "2018-01-01"},
    ],
)
def test_values_that_mean_nothing_are_bad_input(values: dict[str, str]) -> None:
    with pytest.raises(BadInput):
        changed(Population(), **values)


@pytest.mark.parametrize(
    ("values", "calendar", "whole"),
    [
        ({}, False, True),
        ({"since": "2015-01-01"}, True, True),
        ({"until": "2015-06-30"}, True, False),
        ({"where": "Year >= 2015"}, True, True),
        ({"where": "study_date is null"}, True, False),
        ({"where": "age >= 50"}, False, True),
    ],
)
def test_what_a_population_asks_of_dates(values: dict[str, str], calendar: bool, whole: bool) -> None:
    population = changed(Population(), **values)
    assert (population.needs_calendar, population.in_whole_years) == (calendar, whole)


POINTS = {"specificity_90": {"bone_quality": 0.17, "lytic": 0.9}, "specificity_95": {"bone_quality": 0.92}}


@pytest.fixture
def place(tmp_path: Path) -> str:
    """Results of one vertebra of each class, with lesions at 0.18, 0.89, 0.93 and 0.91, of a model with POINTS."""
    results = open_results(write_results(str(tmp_path), [Study("p1", levels="T12 L1=blastic L2=mixed L3=lytic")]))
    results.write_run(results.runs()[0] | {"operating_points": json.dumps(POINTS)})
    return results.uri


@pytest.mark.parametrize(("rule", "same_as", "positive"), [("specificity_90", 0.17, 4), ("specificity_95", 0.92, 1)])
def test_an_operating_point_of_the_model_is_a_rule(place: str, rule: str, same_as: float, positive: int) -> None:
    named, number = (open_cohort(place, None, changed(Population(), rule=one)) for one in (rule, same_as))
    tables = [prevalence(one, ()).drop(columns=["rule", "population"]) for one in (named, number)]
    pd.testing.assert_frame_equal(*tables)
    row = prevalence(named, ()).iloc[0]
    assert (row["n_positive"], row["rule"]) == (positive, f"{rule}: p(lesion) >= {same_as}")
    called = records(named, "select count(*) filter (is_positive) as n from current_calls where task = 'bone_quality'")
    assert called[0]["n"] == positive


def test_each_task_has_the_threshold_of_its_own(place: str) -> None:
    cohort = open_cohort(place, None, Population(rule="specificity_90"))
    assert prevalence(cohort, (), task="lytic")["n_positive"].tolist() == [0]  # 0.77 and 0.88 at most
    with pytest.raises(
        BadInput, match=r"specificity_90 has no threshold for the task posterolateral.*bone_quality, lytic"
    ):
        prevalence(cohort, (), task="posterolateral")


def test_a_point_that_the_model_lacks_is_refused_with_those_that_it_has(tmp_path: Path, place: str) -> None:
    with pytest.raises(BadInput, match=r"no operating point specificity_80.*It has specificity_90, specificity_95"):
        open_cohort(place, None, Population(rule="specificity_80"))
    other = write_results(str(tmp_path / "unmeasured"), [Study("p1", levels="L1")])
    with pytest.raises(BadInput, match=r"It has none: measure it with jobs/evaluate\.py"):
        open_cohort(other, None, Population(rule="specificity_90"))


# ---- patients that the model was trained on ------------------------------------------------------------------------

KNOWN = [
    Study("p1", levels="L1=lytic", seen=True),
    Study("p1", date(2025, 1, 1), "L2=lytic", seen=None),  # screened before the marks lay beside the model
    Study("p2", levels="L1=lytic"),
    Study("p3", levels="L1"),
]


@pytest.mark.parametrize(("which", "patients", "positive"), [("left out", 2, 1), ("counted", 3, 2)])
def test_patients_that_the_model_was_trained_on_are_left_out_unless_the_population_counts_them(
    tmp_path: Path, which: Literal["left out", "counted"], patients: int, positive: int
) -> None:
    cohort = open_cohort(write_results(str(tmp_path), KNOWN), None, Population(training_patients=which))
    row = prevalence(cohort, (), "patient").iloc[0]
    assert (row["n_evaluable"], row["n_positive"]) == (patients, positive)
    sentences = [one for one in notes(cohort) if "trained" in one]
    said = "1 patients are not counted: the model was trained" if which == "left out" else "1 patients trained or"
    assert sentences[0].startswith(said)


@pytest.mark.parametrize(
    ("marks", "reason"),
    [
        ("other_key", "marked with another pseudonym key"),
        ("no_marks", "the model has no marks of its patients"),
        (None, "these results were screened by an earlier version"),
    ],
)
def test_where_nobody_can_tell_whom_the_model_was_trained_on_the_answer_says_so(
    tmp_path: Path, marks: str | None, reason: str
) -> None:
    place = open_results(write_results(str(tmp_path), [Study("p1", levels="L1", seen=None)]))
    place.write_run(place.runs()[0] | {"training_marks": marks})
    (sentence,) = [one for one in notes(open_cohort(place.uri)) if "trained" in one]
    assert sentence.startswith("1 patients are counted although")
    assert reason in sentence
