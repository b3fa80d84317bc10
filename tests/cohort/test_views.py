from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from spinemet.cohort.views import open_cohort, run_sql, trained_on
from spinemet.errors import BadInput
from spinemet.results.tables import open_results
from tests.cohort.cases import Study, write_results


def _imaged(results: str) -> pd.DataFrame:
    query = "select patient, level, completeness, bone_quality, any_lesion, study_date from imaged order by all"
    return run_sql(results, query)


def test_a_level_comes_from_the_latest_study_in_which_it_is_evaluable(tmp_path: Path) -> None:
    results = write_results(
        str(tmp_path),
        [
            Study("p1", date(2023, 1, 1), "L1=lytic L2 L3"),
            Study("p1", date(2024, 1, 1), "L1 L2=cut"),
        ],
    )
    table = _imaged(results).set_index("level")
    assert len(table) == 3
    assert table.loc["L1", "bone_quality"] == "normal", "the later call replaces the earlier one"
    assert table.loc["L2", "completeness"] == "whole", "a later study that cuts the level does not hide a whole one"
    assert table.loc["L3", "study_date"].year == 2023, "a level that only the earlier study shows stays"


def test_cut_and_unclassified_vertebrae_are_imaged_but_have_no_finding(tmp_path: Path) -> None:
    results = write_results(str(tmp_path), [Study("p1", levels="T12=cut L1=? L2=blastic")])
    table = _imaged(results).set_index("level")
    assert table["any_lesion"].isna().to_dict() == {"L1": True, "L2": False, "T12": True}
    assert list(run_sql(results, "select level from evaluable")["level"]) == ["L2"]


def test_unnamed_vertebrae_of_follow_ups_do_not_double(tmp_path: Path) -> None:
    results = write_results(
        str(tmp_path), [Study("p1", date(2023, 1, 1), "?1 ?2 ?3"), Study("p1", date(2024, 1, 1), "?1 ?2")]
    )
    assert len(_imaged(results)) == 2


@pytest.mark.parametrize(("named_in", "expected"), [(2023, ["?1", "?2", "?3"]), (2025, ["L1", "L2"])])
def test_studies_with_and_without_names_are_not_mixed(tmp_path: Path, named_in: int, expected: list[str]) -> None:
    results = write_results(
        str(tmp_path), [Study("p1", date(2024, 1, 1), "?1 ?2 ?3"), Study("p1", date(named_in, 1, 1), "L1 L2")]
    )
    assert list(_imaged(results)["level"]) == expected


def test_a_study_that_lies_twice_counts_once(tmp_path: Path) -> None:
    results = write_results(
        str(tmp_path),
        [
            Study("p1", levels="L1", name="same", state="failed", reason="truncated"),
            Study("p1", levels="L1", name="same"),
        ],
    )
    assert list(run_sql(results, "select state from current")["state"]) == ["screened"]


def test_a_study_without_a_patient_key_is_a_patient_of_its_own(tmp_path: Path) -> None:
    results = write_results(str(tmp_path), [Study(None, levels="L1"), Study(None, levels="L1=lytic")])
    assert len(_imaged(results)) == 2


def test_only_the_model_that_screened_last_counts(tmp_path: Path) -> None:
    write_results(str(tmp_path), [Study("p1", levels="L1=lytic")], model="aaaaaaaaaaaa", wave="run-1/0")
    results = write_results(str(tmp_path), [Study("p1", levels="L1")], model="bbbbbbbbbbbb", wave="run-2/0")
    assert list(_imaged(results)["bone_quality"]) == ["normal"]


def test_age_groups(tmp_path: Path) -> None:
    ages = {"a": 9, "b": 60, "c": 69, "d": 90, "e": None}
    results = write_results(str(tmp_path), [Study(name, age=age, levels="L1") for name, age in ages.items()])
    table = run_sql(results, "select patient, age_group from current order by patient")
    assert list(table["age_group"].fillna("none")) == ["0-9", "60-69", "60-69", "90+", "none"]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("drop view studies", "DROP"),
        ("select 1; select 2", "SELECT, SELECT"),
        ("copy (select 1) to '/tmp/x.csv'", "COPY"),
        ("", "nothing"),
        ("select nosuch from studies", "nosuch"),
        ("selec 1", "syntax error"),
    ],
)
def test_only_one_select_is_accepted(tmp_path: Path, query: str, found: str) -> None:
    results = write_results(str(tmp_path), [Study("p1", levels="L1")])
    with pytest.raises(BadInput, match=found) as caught:
        run_sql(results, query)
    assert "\n" not in str(caught.value)


def test_no_results_are_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="There are no screening results"):
        open_cohort(str(tmp_path))


def test_current_calls_hold_the_most_probable_class_of_every_task(tmp_path: Path) -> None:
    results = write_results(str(tmp_path), [Study("p1", levels="T12=cut L1=lytic L2")], collapsed=["L2"])
    query = "select vertebra, task, label, probability, is_positive from current_calls order by all"
    rows = run_sql(results, query).set_index(["vertebra", "task"])
    assert rows.loc[(1, "bone_quality")].tolist() == ["lytic", 0.71, True]
    assert rows.loc[(2, "bone_quality")].tolist() == ["normal", 0.82, False]
    assert rows.loc[(2, "collapse")].tolist() == ["yes", 0.75, True]
    assert 0 not in rows.index.get_level_values("vertebra"), "a vertebra that is not classified has no call"


def test_of_equally_probable_classes_the_first_is_the_label(tmp_path: Path) -> None:
    results = write_results(str(tmp_path), [Study("p1", levels="L1")])
    connection = open_cohort(results)
    even = "select * replace (0.25 as probability) from stored_calls order by class_number desc"
    connection.execute(f"create or replace view all_calls as {even}")
    labels = connection.execute("select label, is_positive from current_calls where task = 'bone_quality'").fetchall()
    assert labels == [("normal", False)]


def test_the_tables_say_what_the_model_was_trained_on(tmp_path: Path) -> None:
    place = write_results(str(tmp_path), [Study("p1", levels="L1")])
    assert trained_on(open_cohort(place)) is None
    run = open_results(place).runs()[0]
    open_results(place).write_run(run | {"trained_on": "phantoms"})
    assert trained_on(open_cohort(place)) == "phantoms"
    open_results(place).write_run(run | {"run_id": "other", "trained_on": "nothing", "model_digest": "another"})
    assert trained_on(open_cohort(place)) == "phantoms", "another model does not matter"
