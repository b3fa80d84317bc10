from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from spinemet.cohort.transitions import notes, transitions
from spinemet.cohort.views import open_cohort
from spinemet.errors import BadInput
from spinemet.results.tables import open_results
from spinemet.statistics.correction import Errors
from spinemet.statistics.intervals import proportion_interval
from tests.cohort.cases import Study, write_results

SOME = [
    Study("p1", date(2020, 1, 1), "T12 L1=lytic L2=cut"),
    Study("p1", date(2020, 6, 1), "L1=mixed L2 ?1=lytic"),
    Study("p1", date(2021, 1, 1), "T12=blastic L1=mixed L2=lytic!"),
    Study("p2", date(2020, 1, 1), "L1", sex="M"),
    Study("p2", date(2020, 3, 1), "L1", sex="M"),
    Study("p3", date(2020, 1, 1), "L1"),
]


def _counts(table: pd.DataFrame) -> dict[tuple[str, str], int]:
    table = table[table["n_after"] > 0]
    return dict(zip(zip(table["before"], table["after"], strict=True), table["n_after"], strict=True))


def test_each_level_is_followed_from_one_evaluable_study_to_the_next(tmp_path: Path) -> None:
    cohort = open_cohort(write_results(str(tmp_path), SOME))
    table = transitions(cohort)
    # L2 is cut, then evaluable, then unsure: nothing to compare. T12 is followed over the study that does not show it.
    assert _counts(table) == {("normal", "normal"): 1, ("normal", "blastic"): 1, ("lytic", "mixed"): 1,
                              ("mixed", "mixed"): 1}  # fmt: skip
    assert len(table) == 16
    row = table.set_index(["before", "after"]).loc[("normal", "blastic")]
    assert row[["n_patients", "n_before", "share"]].tolist() == [2, 2, 0.5]
    interval = proportion_interval([1, 0], [1, 1])
    assert row[["ci_low", "ci_high", "interval"]].tolist() == [interval.low, interval.high, interval.method]
    assert notes(cohort, None)[0] == "4 times a vertebra of 2 patients was followed from one study to the next."


def test_groups_are_of_the_earlier_study(tmp_path: Path) -> None:
    cohort = open_cohort(write_results(str(tmp_path), SOME))
    table = transitions(cohort, ["level"])
    assert _counts(table[table["level"] == "T12"]) == {("normal", "blastic"): 1}
    assert _counts(transitions(cohort, ["sex", "region"]).query("sex == 'M'")) == {("normal", "normal"): 1}
    with pytest.raises(BadInput, match="level, region, sex, age_group"):
        transitions(cohort, ["year"])


def test_of_two_studies_of_one_day_the_one_that_shows_more_counts(tmp_path: Path) -> None:
    studies = [
        Study("p1", date(2020, 1, 1), "L1"),
        Study("p1", date(2020, 1, 1), "L1=lytic L2"),
        Study("p1", date(2020, 2, 1), "L1=blastic"),
    ]
    assert _counts(transitions(open_cohort(write_results(str(tmp_path), studies)))) == {("lytic", "blastic"): 1}


def test_years_alone_are_enough_for_the_order(tmp_path: Path) -> None:
    place = open_results(
        write_results(str(tmp_path), [Study("p1", date(year, 1, 1), f"L1={q}") for year, q in
                                      ((2020, "normal"), (2021, "lytic"), (2023, "mixed"))])
    )  # fmt: skip
    place.write_run(place.runs()[0] | {"date_policy": "year"})
    assert _counts(transitions(open_cohort(place.uri))) == {("normal", "lytic"): 1, ("lytic", "mixed"): 1}


def test_nothing_to_follow_is_an_empty_answer_with_its_columns(tmp_path: Path) -> None:
    table = transitions(open_cohort(write_results(str(tmp_path), SOME[-1:])))
    assert (len(table), list(table.columns[:2])) == (0, ["before", "after"])


def test_calls_that_err_make_changes_and_the_corrected_shares_do_not_have_them(tmp_path: Path) -> None:
    """400 vertebrae of 100 patients; 1 in 5 lytic, nothing truly changes, 1 call in 10 is wrong."""
    rng = np.random.default_rng(4)
    shares = np.full((4, 4), 0.1 / 3) + np.eye(4) * (0.9 - 0.1 / 3)
    names = ("normal", "blastic", "mixed", "lytic")
    studies = []
    for n in range(100):
        true = [3 if rng.random() < 0.2 else 0 for _ in range(4)]
        for k in range(2):
            calls = " ".join(f"L{v + 1}={names[rng.choice(4, p=shares[one])]}" for v, one in enumerate(true))
            studies.append(Study(f"p{n}", date(2020, 1, 1) + timedelta(days=100 * k), calls))
    cohort = open_cohort(write_results(str(tmp_path), studies))
    errors = Errors(shares, np.full(4, 300.0), np.full(4, 50))
    table = transitions(cohort, errors=errors).set_index(["before", "after"])
    changed = [(a, b) for a in names for b in names if a != b]
    called = table.loc[changed, "n_after"].sum()
    assert called > 50
    assert table.loc[changed, "n_by_error"].sum() == pytest.approx(called, rel=0.2)
    assert table["n_by_error"].sum() == pytest.approx(400)
    assert table.loc[("normal", "normal"), "share"] < 0.93
    assert table.loc[("normal", "normal"), "corrected"] > 0.97
    assert table.loc[("lytic", "lytic"), "corrected_high"] > 0.97 or table.loc[("lytic", "lytic"), "corrected"] == 1
    assert set(table["events"]) == {"called by the model, corrected beside"}
