from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from spinemet.cohort.population import Population
from spinemet.cohort.table1 import table1
from spinemet.cohort.views import open_cohort
from spinemet.errors import BadInput
from spinemet.results.tables import open_results
from tests.cohort.cases import Study, write_results

STUDIES = [
    Study("p1", date(2023, 1, 1), "L1=lytic L2", age=60),
    Study("p1", date(2024, 1, 1), "L1=lytic", age=61),
    Study("p2", levels="L1 L2", age=70, sex="M"),
    Study("p3", levels="L1", age=None, sex="M"),
    Study("p4", levels="L1=cut", age=50, sex=None),
]


def _of(table: pd.DataFrame, variable: str, category: str = "") -> pd.Series:
    return table[(table["variable"] == variable) & (table["category"] == category)].iloc[0]


def test_each_patient_is_described_by_the_latest_study(tmp_path: Path) -> None:
    table = table1(open_cohort(write_results(str(tmp_path), STUDIES)))
    assert _of(table, "all")["n"] == 4
    age = _of(table, "age")
    assert (age["n"], age["n_missing"], age["mean"], age["median"]) == (3, 1, np.mean([61, 70, 50]), 61)
    assert age["sd"] == pytest.approx(np.std([61, 70, 50], ddof=1))
    assert (_of(table, "sex", "M")["n"], _of(table, "sex", "M")["n_missing"]) == (2, 1)
    assert _of(table, "sex", "M")["share"] == pytest.approx(2 / 3), "a share of those whose sex is known"
    assert _of(table, "lesion", "called")[["n", "n_missing"]].tolist() == [1, 1], "nothing of p4 is evaluable"
    assert (_of(table, "studies")["mean"], _of(table, "years_followed")["q75"]) == (
        1.25,
        pytest.approx(0.25 * 365 / 365.25),
    )


def test_the_first_study_describes_if_the_population_counts_the_first(tmp_path: Path) -> None:
    cohort = open_cohort(write_results(str(tmp_path), STUDIES), None, Population(counted="first"))
    assert _of(table1(cohort), "age")["mean"] == np.mean([60, 70, 50])


def test_studies_can_be_described_instead(tmp_path: Path) -> None:
    table = table1(open_cohort(write_results(str(tmp_path), STUDIES)), unit="study")
    assert _of(table, "all")["n"] == 5
    assert not {"studies", "years_followed"} & set(table["variable"])


def test_two_groups_have_a_standardised_difference_and_missing_groups_do_not_count(tmp_path: Path) -> None:
    more = [*STUDIES, Study("p5", levels="L1", age=80, sex="F")]
    table = table1(open_cohort(write_results(str(tmp_path), more)), "sex")
    assert list(dict.fromkeys(table["group"])) == ["F", "M", "unknown"]
    lesion = table[table["variable"] == "lesion"]["smd"]
    assert lesion.to_list() == pytest.approx([0.5 / np.sqrt(0.25 / 2)] * len(lesion))
    assert table[table["variable"] == "age"]["smd"].isna().all(), "one man of a known age has no spread"
    assert "sex" not in set(table["variable"])


@pytest.mark.parametrize(("policy", "left_out"), [("shifted", "year"), ("year", "years_followed")])
def test_what_the_dates_cannot_tell_is_left_out(tmp_path: Path, policy: str, left_out: str) -> None:
    place = open_results(write_results(str(tmp_path), STUDIES))
    everything = set(table1(open_cohort(place.uri))["variable"])
    place.write_run(place.runs()[0] | {"date_policy": policy})
    assert everything - set(table1(open_cohort(place.uri))["variable"]) == {left_out}


def test_nobody_is_described_as_nobody(tmp_path: Path) -> None:
    table = table1(open_cohort(write_results(str(tmp_path), STUDIES), None, Population(where="sex = 'O'")))
    assert table.empty


def test_wrong_questions_are_bad_input(tmp_path: Path) -> None:
    cohort = open_cohort(write_results(str(tmp_path), STUDIES))
    with pytest.raises(BadInput, match="one column out of sex"):
        table1(cohort, "level")
    with pytest.raises(BadInput, match="patient, study as unit"):
        table1(cohort, unit="vertebra")
