from dataclasses import replace
from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from spinemet.cohort.population import Population
from spinemet.cohort.prevalence import prevalence
from spinemet.cohort.views import asked, open_cohort, run_sql, trained_on
from spinemet.errors import BadInput
from spinemet.results.maintenance import compact, vacuum
from spinemet.results.tables import open_results
from spinemet.results.versions import moment_of
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


@pytest.mark.parametrize("named_in", [2023, 2025])
def test_a_study_without_names_never_hides_a_named_level(tmp_path: Path, named_in: int) -> None:
    results = write_results(
        str(tmp_path), [Study("p1", date(2024, 1, 1), "?1 ?2 ?3"), Study("p1", date(named_in, 1, 1), "L1=lytic L2")]
    )
    table = _imaged(results)
    assert table["level"].tolist() == ["L1", "L2"], "an unnamed vertebra may be one of them"
    assert table["any_lesion"].tolist() == [True, False]
    unmatched = run_sql(results, "select level from seen where not is_distinct")
    assert len(unmatched) == (3 if named_in == 2023 else 0), "those of the latest study count for the patient"


def test_an_unnamed_vertebra_beside_named_ones_of_the_same_study_is_distinct(tmp_path: Path) -> None:
    results = write_results(
        str(tmp_path), [Study("p1", date(2023, 1, 1), "L1=lytic L2"), Study("p1", date(2024, 1, 1), "L1 L2 ?1")]
    )
    table = _imaged(results)
    assert table["level"].tolist() == ["?1", "L1", "L2"]
    assert not table["any_lesion"].any(), "the later calls replace the earlier ones"


def test_a_study_that_lies_twice_counts_once(tmp_path: Path) -> None:
    results = write_results(
        str(tmp_path),
        [
            Study("p1", levels="L1", name="same", state="failed", reason="truncated"),
            Study("p1", levels="L1", name="same"),
        ],
    )
    assert list(run_sql(results, "select state from current")["state"]) == ["screened"]


def test_a_study_without_a_patient_key_is_no_person(tmp_path: Path) -> None:
    results = write_results(str(tmp_path), [Study(None, levels="L1"), Study("", levels="L1"), Study("p", levels="L1")])
    assert _imaged(results)["patient"].tolist() == ["p"]
    assert run_sql(results, "select left_as from accounted order by 1")["left_as"].fillna("").tolist() == [
        *["no_patient_key"] * 2,
        "",
    ]


def test_a_study_without_a_date_counts_only_if_no_order_is_needed(tmp_path: Path) -> None:
    studies = [
        Study("p1", None, "L1=lytic"),
        Study("p2", None, "L1"),
        Study("p2", date(2024, 1, 1), "L2"),
    ]
    results = write_results(str(tmp_path), studies)
    assert _imaged(results)[["patient", "level"]].values.tolist() == [["p1", "L1"], ["p2", "L2"]]
    since = open_cohort(results, None, Population(since=date(2000, 1, 1)))
    assert since.execute("select patient, level from imaged").fetchall() == [("p2", "L2")]


@pytest.mark.parametrize("names", ["ab", "ba"])
def test_which_of_two_studies_of_one_date_counts_is_a_rule_of_the_data(tmp_path: Path, names: str) -> None:
    """Whatever the pseudonyms: the older age, then more evaluable levels, then thinner slices."""
    when = date(2024, 1, 1)
    pairs = {
        "age": (Study("p1", when, "L1", age=60), Study("p1", when, "L1=lytic", age=61)),
        "levels": (Study("p2", when, "L1"), Study("p2", when, "L1=lytic L2")),
        "slices": (
            Study("p3", when, "L1", more={"slice_spacing_mm": 5.0}),
            Study("p3", when, "L1=lytic", more={"slice_spacing_mm": 1.0}),
        ),
        "calls": (Study("p4", when, "L1"), Study("p4", when, "L1=lytic")),
    }
    studies = [
        replace(study, name=f"{place}{kind}")
        for kind, pair in pairs.items()
        for place, study in zip(names, pair, strict=True)
    ]
    results = write_results(str(tmp_path), sorted(studies, key=lambda study: study.name))
    query = "select patient, any_lesion from imaged where level = 'L1' order by patient"
    assert run_sql(results, query).values.tolist() == [[f"p{n}", True] for n in range(1, 5)]


def test_with_several_models_a_question_names_one(tmp_path: Path) -> None:
    studies = [Study(f"p{n}", levels="L1=lytic L2") for n in range(4)]
    results = write_results(str(tmp_path), studies, model="aaaaaaaaaaaa", wave="run-1/0")
    chosen = Population(model="aaaa")
    before = prevalence(open_cohort(results, None, chosen)).drop(columns="ledger_version")
    write_results(results, [Study("p0", levels="L1")], model="bbbbbbbbbbbb", wave="run-2/0")
    with pytest.raises(
        BadInput, match=r"choose one.*model aaaaaaaaaaaa .*\(4 studies of 4 .*model bbbbbbbbbbbb .*\(1 "
    ):
        open_cohort(results)
    with pytest.raises(BadInput, match="found cccc"):
        open_cohort(results, None, Population(model="cccc"))
    after = prevalence(open_cohort(results, None, chosen)).drop(columns="ledger_version")
    pd.testing.assert_frame_equal(before, after, check_exact=True)
    assert len(run_sql(results, "select * from studies")) == 5, "the tables themselves need no choice"
    with pytest.raises(BadInput, match="choose one"):
        run_sql(results, "select * from current")
    assert len(run_sql(results, "select * from current", population=chosen)) == 4


def test_a_model_that_screened_nothing_asks_for_no_choice(tmp_path: Path) -> None:
    results = write_results(str(tmp_path), [Study("p1", levels="L1")], model="aaaaaaaaaaaa", wave="run-1/0")
    failed = Study("p2", state="failed", reason="truncated")
    write_results(results, [failed], model="bbbbbbbbbbbb", wave="run-2/0")
    assert asked(open_cohort(results))["model"] == "aaaaaaaaaaaa"


def test_a_condition_selects_studies(tmp_path: Path) -> None:
    results = write_results(str(tmp_path), [Study("p1", levels="L1", sex="F"), Study("p2", levels="L1", sex="M")])
    cohort = open_cohort(results, None, Population(where="sex = 'M' or sex is null"))
    assert cohort.execute("select patient from imaged").fetchall() == [("p2",)]


@pytest.mark.parametrize("where", ["colour = 1", "1 = 1); select (1", "sex =", "1); drop view studies; select (1"])
def test_a_wrong_condition_is_bad_input(tmp_path: Path, where: str) -> None:
    results = write_results(str(tmp_path), [Study("p1", levels="L1")])
    with pytest.raises(BadInput, match=r"expected (a|one) condition") as caught:
        open_cohort(results, None, Population(where=where))
    assert "\n" not in str(caught.value)


def test_the_first_studies_can_count_instead(tmp_path: Path) -> None:
    studies = [Study("p1", date(2023, 1, 1), "L1 L2=cut"), Study("p1", date(2024, 1, 1), "L1=lytic L2=lytic")]
    results = write_results(str(tmp_path), studies)
    cohort = open_cohort(results, None, Population(counted="first"))
    rows = cohort.execute("select level, any_lesion from imaged order by level").fetchall()
    assert rows == [("L1", False), ("L2", True)], "the first study in which the level is evaluable"


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


def test_a_version_that_a_vacuum_removed_says_so(tmp_path: Path) -> None:
    results = write_results(str(tmp_path), [Study("p1", levels="L1")], wave="run-1/0")
    write_results(results, [Study("p2", levels="L1")], wave="run-2/0")
    first = moment_of(results, "1")
    assert open_cohort(results, first).execute("select count(*) from cohort").fetchone() == (1,)
    compact(results)
    assert open_cohort(results, first).execute("select count(*) from cohort").fetchone() == (1,)
    vacuum(results, 0)
    with pytest.raises(BadInput, match="version 1 of the table studies can no longer be read: a vacuum"):
        open_cohort(results, first)
    assert open_cohort(results).execute("select count(*) from cohort").fetchone() == (2,)


# ---- what SQL may not reach ------------------------------------------------------------------------------------------

TRIES = [
    "select * from read_csv('/etc/passwd')",
    "select * from read_csv_auto('/etc/passwd')",
    "select * from sniff_csv('/etc/passwd')",
    "select * from read_text('/proc/self/environ')",
    "select * from read_blob('/proc/self/mem')",
    "select * from read_text('{key}')",
    "select * from '{key}'",
    "select * from read_json('{key}')",
    "select * from read_text('{results}/../key')",
    "select * from read_parquet('{results}/../**/*.parquet')",
    "select * from glob('/etc/*')",
    "select * from read_parquet('s3://bucket/x.parquet')",
    "select * from read_csv('https://example.org/x.csv')",
    "select * from read_csv('http://169.254.169.254/latest/meta-data')",
    "from duckdb_secrets()",
    "select * from results",  # a variable of this program
    "select * from connection",
    "select getenv('HOME')",
    "set enable_external_access = true",
    "select * from delta_scan('/etc')",
    "with r as (select * from read_csv('/etc/passwd')) select count(*) from r",
    "copy studies to '{key}'",
    "attach '{key}' as other",
    "install httpfs",
]


@pytest.mark.parametrize("query", TRIES)
def test_sql_reaches_nothing_but_the_results(tmp_path: Path, query: str) -> None:
    results = write_results(str(tmp_path / "results"), [Study("p1", levels="L1")])
    (tmp_path / "key").write_text("the pseudonym key")
    with pytest.raises(BadInput) as refused:
        run_sql(results, query.format(key=tmp_path / "key", results=results))
    assert "the pseudonym key" not in str(refused.value)
    assert str(refused.value).count("\n") == 0


def test_a_population_of_somebody_else_reads_no_file_either(tmp_path: Path) -> None:
    results = write_results(str(tmp_path / "results"), [Study("p1", levels="L1")])
    (tmp_path / "key").write_text("true")
    with pytest.raises(BadInput, match="expected a condition"):
        open_cohort(results, population=Population(where=f"(select content from read_text('{tmp_path}/key'))::boolean"))


def test_a_query_gets_a_part_of_the_machines_memory_and_cannot_take_more(tmp_path: Path) -> None:
    results = write_results(str(tmp_path), [Study("p1", levels="L1")])
    (setting,) = run_sql(results, "select current_setting('lock_configuration') as locked").to_dict("records")
    assert setting["locked"]
    with pytest.raises(BadInput, match="expected one SELECT"):
        run_sql(results, "set memory_limit = '1TB'")
