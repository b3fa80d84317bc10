import math
from datetime import date
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest

from spinemet.cohort.population import Population
from spinemet.cohort.prevalence import GROUPS, SOURCE, findings, notes, prevalence
from spinemet.cohort.views import open_cohort
from spinemet.errors import BadInput
from spinemet.results.tables import open_results
from spinemet.statistics.intervals import proportion_interval
from tests.cohort.cases import CONFIG, MODEL, Study, write_results


def _ask(tmp_path: Path, studies: list[Study], *by: str, unit: str = "vertebra") -> pd.DataFrame:
    return prevalence(open_cohort(write_results(str(tmp_path), studies)), by, unit)


COHORT = [
    Study("p1", levels="T12=cut L1=lytic L2", sex="F"),
    Study("p2", levels="T12 L1=blastic L2=mixed", sex="M"),
    Study("p3", levels="L1 L2=?", sex="M"),
    Study("p4", state="excluded", reason="no_spine"),
]


def test_counts_and_denominators_by_level(tmp_path: Path) -> None:
    table = _ask(tmp_path, COHORT, "level").set_index(["level", "finding"])
    assert table.loc[("L1", "any"), ["n_imaged", "n_cut", "n_evaluable", "n_positive"]].tolist() == [3, 0, 3, 2]
    assert table.loc[("T12", "any"), ["n_imaged", "n_cut", "n_evaluable", "n_positive"]].tolist() == [2, 1, 1, 0]
    assert table.loc[("L2", "mixed"), ["n_imaged", "n_cut", "n_evaluable", "n_positive"]].tolist() == [3, 0, 2, 1]
    assert table.loc[("L1", "lytic"), "prevalence"] == pytest.approx(1 / 3)


def test_levels_come_in_anatomical_order_and_findings_in_fixed_order(tmp_path: Path) -> None:
    table = _ask(tmp_path, [Study("p1", levels="T2 L1 C7"), Study("p2", levels="?1 ?2")], "level")
    assert list(table["level"].unique()) == ["C7", "T2", "L1", "unnamed"]
    assert list(table["finding"][:4]) == ["any", "blastic", "mixed", "lytic"]


def test_classes_add_up_to_any(tmp_path: Path) -> None:
    table = _ask(tmp_path, COHORT).set_index("finding")
    assert table.loc["any", "n_positive"] == table.loc[["blastic", "mixed", "lytic"], "n_positive"].sum() == 3


def test_patients_are_positive_with_one_positive_vertebra(tmp_path: Path) -> None:
    table = _ask(tmp_path, COHORT, unit="patient").set_index("finding")
    assert table.loc["any", ["n_imaged", "n_evaluable", "n_positive"]].tolist() == [3, 3, 2]
    assert table.loc["mixed", "n_positive"] == 1
    assert table.loc["any", "interval"] == "clopper_pearson"


def test_a_patient_seen_only_in_part_is_imaged_and_not_evaluable(tmp_path: Path) -> None:
    table = _ask(tmp_path, [Study("p1", levels="L1=cut L2=cut"), Study("p2", levels="L1 L2")], unit="patient")
    assert table.iloc[0][["n_imaged", "n_cut", "n_evaluable", "n_positive"]].tolist() == [2, 1, 1, 0]


def test_several_vertebrae_per_patient_get_a_clustered_interval(tmp_path: Path) -> None:
    table = _ask(tmp_path, COHORT, "region")
    methods = table.set_index(["region", "finding"])["interval"]
    assert methods["lumbar", "any"] == "korn_graubard"
    assert methods["thoracic", "any"] == "clopper_pearson"


def test_several_vertebrae_of_one_patient_alone_are_too_few_for_an_interval(tmp_path: Path) -> None:
    row = _ask(tmp_path, [Study("p1", levels="L1=lytic L2")]).iloc[0]
    assert row[["n_evaluable", "n_positive", "prevalence", "interval"]].tolist() == [2, 1, 0.5, "too_few"]
    assert math.isnan(row["ci_low"])
    assert math.isnan(row["ci_high"])


def test_the_interval_of_the_tables_is_that_of_the_patients_counts(tmp_path: Path) -> None:
    studies = [Study(f"p{n}", levels=f"L1=lytic L2 L3{'=lytic' * (n % 2)} T{n + 1}") for n in range(4)]
    row = _ask(tmp_path, [*studies, Study("p9", levels="L1 L2")]).iloc[0]
    expected = proportion_interval([1, 2, 1, 2, 0], [4, 4, 4, 4, 2])
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((expected.low, expected.high))


def test_a_group_without_evaluable_vertebrae_has_no_rate(tmp_path: Path) -> None:
    row = _ask(tmp_path, [Study("p1", levels="L1=cut")], "level").iloc[0]
    assert row["n_imaged"] == 1
    assert math.isnan(row["prevalence"])
    assert math.isnan(row["ci_low"])


def test_missing_values_form_the_last_group(tmp_path: Path) -> None:
    table = _ask(tmp_path, [Study("p1", levels="L1", sex=None), Study("p2", levels="L1", sex="M")], "sex")
    assert list(table["sex"].unique()) == ["M", "unknown"]


def test_follow_ups_do_not_double(tmp_path: Path) -> None:
    studies = [Study("p1", date(2020 + n, 1, 1), "L1=lytic L2") for n in range(4)]
    assert _ask(tmp_path, studies).iloc[0]["n_imaged"] == 2


def test_no_screened_study_gives_an_empty_answer_with_its_columns(tmp_path: Path) -> None:
    table = _ask(tmp_path, [COHORT[3]], "level")
    assert len(table) == 0
    assert list(table.columns)[:2] == ["level", "finding"]


@pytest.mark.parametrize("name", GROUPS)
def test_every_column_of_groups_works(tmp_path: Path, name: str) -> None:
    table = _ask(tmp_path, COHORT, name)
    assert table[table["finding"] == "any"]["n_evaluable"].sum() == 6


def test_a_bad_question_names_the_allowed_values(tmp_path: Path) -> None:
    connection = open_cohort(write_results(str(tmp_path), COHORT))
    with pytest.raises(BadInput, match=r"level, region, sex.*found colour"):
        prevalence(connection, ["level", "colour"])
    with pytest.raises(BadInput, match="vertebra, study, patient"):
        prevalence(connection, ["level"], unit="person")
    with pytest.raises(BadInput, match="once"):
        prevalence(connection, ["level", "level"])


def test_a_further_task_is_asked_by_its_name(tmp_path: Path) -> None:
    connection = open_cohort(write_results(str(tmp_path), COHORT, collapsed=["L2"]))
    table = prevalence(connection, ["level"], task="collapse").set_index("level")
    assert set(table["finding"]) == {"yes"}
    counts = ["n_imaged", "n_cut", "n_evaluable", "n_positive"]
    assert table.loc["L2", counts].tolist() == [3, 0, 2, 2]
    assert table.loc["T12", counts].tolist() == [2, 1, 1, 0]
    by_patient = prevalence(connection, [], "patient", "collapse").iloc[0]
    assert by_patient[["n_imaged", "n_evaluable", "n_positive"]].tolist() == [3, 3, 2]


def test_a_task_of_several_classes_has_any_and_each_positive_class(tmp_path: Path) -> None:
    connection = open_cohort(write_results(str(tmp_path), COHORT))
    table = prevalence(connection, [], task="posterolateral").set_index("finding")
    assert table["n_positive"].to_dict() == {"any": 1, "unilateral": 1, "bilateral": 0}
    assert findings(connection) == ("any", "blastic", "mixed", "lytic")


def test_a_task_that_the_model_does_not_have_is_bad_input(tmp_path: Path) -> None:
    connection = open_cohort(write_results(str(tmp_path), COHORT))
    with pytest.raises(BadInput, match=r"blastic, bone_quality, lytic, posterolateral\), found collapse"):
        prevalence(connection, task="collapse")


def test_only_vertebrae_with_a_call_of_the_task_are_evaluable(tmp_path: Path) -> None:
    """Rows of a migrated table can lack a task that later rows of the same model have."""
    write_results(str(tmp_path), [Study("p1", levels="L1 L2")], wave="run-1/0")
    results = write_results(str(tmp_path), [Study("p2", levels="L1 L2")], wave="run-2/1", collapsed=["L1"])
    row = prevalence(open_cohort(results), [], task="collapse").iloc[0]
    assert row[["n_imaged", "n_evaluable", "n_positive"]].tolist() == [4, 2, 1]


def test_unsure_vertebrae_have_a_column_of_their_own(tmp_path: Path) -> None:
    studies = [
        Study("p1", levels="L1=lytic! L2 L3=cut"),
        Study("p2", levels="L1=lytic L2=normal! L3"),
        Study("p3", levels="L1=normal!"),
    ]
    counts = ["n_imaged", "n_cut", "n_unsure", "n_evaluable", "n_positive"]
    table = _ask(tmp_path / "a", studies, "level").set_index(["level", "finding"])
    assert table.loc[("L1", "any"), counts].tolist() == [3, 0, 2, 1, 1]
    assert table.loc[("L2", "any"), counts].tolist() == [2, 0, 1, 1, 0]
    assert table.loc[("L3", "any"), counts].tolist() == [2, 1, 0, 1, 0]
    assert table.loc[("L1", "lytic"), "prevalence"] == 1
    patients = _ask(tmp_path / "b", studies, unit="patient").set_index("finding")
    assert patients.loc["any", counts].tolist() == [3, 0, 1, 2, 1], "p3 has nothing but an unsure vertebra"
    cohort = open_cohort(str(tmp_path / "a"))
    side = prevalence(cohort, ["level"], task="posterolateral").set_index(["level", "finding"])
    assert side.loc[("L1", "any"), counts].tolist() == [3, 0, 2, 1, 1]


def test_the_notes_name_what_is_asked_and_what_was_left_out(tmp_path: Path) -> None:
    studies = [
        Study("p1", date(2024, 1, 1), "L1 L2"),
        Study("p1", date(2024, 1, 1), "L1=lytic"),
        Study("p2", date(2023, 1, 1), "L1"),
        Study("p2", date(2024, 1, 1), "?1"),
        Study("p3", None, "L1"),
        Study("p3", date(2024, 1, 1), "L1"),
        Study(None, levels="L1"),
    ]
    place = open_results(write_results(str(tmp_path), studies))
    place.write_run(place.runs()[0] | {"trained_on": "phantoms"})
    found = notes(open_cohort(place.uri))
    assert found[0].startswith(f"Model {MODEL}, configuration {CONFIG}, rule argmax, population ")
    assert found[0].endswith("version 1 of the ledger (--as-of 1).")
    assert [sentence[:25] for sentence in found[1:]] == [
        "The model was trained on ",
        "1 screened studies have n",
        "1 screened studies have n",
        "1 unnamed vertebrae may b",
        "1 patients have studies o",
    ]


def test_every_row_says_what_it_is_about(tmp_path: Path) -> None:
    table = _ask(tmp_path, COHORT, "level")
    assert list(table.columns)[-5:] == list(SOURCE)
    assert table[["rule", "model", "configuration", "ledger_version"]].drop_duplicates().values.tolist() == [
        ["argmax", MODEL, CONFIG, 1]
    ]


# ---- time: selected within the period, then grouped ------------------------------------------------------------


def test_a_prevalence_that_stays_the_same_comes_out_the_same_in_each_year(tmp_path: Path) -> None:
    """4,000 patients; of the 400 seen in a year 80 have lesions, and these are seen in three times as many years."""
    rng, studies = np.random.default_rng(3), []
    for year in range(2010, 2020):
        ill, well = rng.choice(300, 80, replace=False), 300 + rng.choice(3700, 320, replace=False)
        studies += [Study(f"p{n}", date(year, 6, 1), "L1=lytic") for n in ill]
        studies += [Study(f"p{n}", date(year, 6, 1), "L1") for n in well]
    write_results(str(tmp_path), studies)
    cohort = open_cohort(str(tmp_path))
    for unit in ("vertebra", "patient"):
        table = prevalence(cohort, ["year"], unit)
        table = table[table["finding"] == "any"]
        assert table["year"].tolist() == [str(year) for year in range(2010, 2020)]
        assert set(table["n_evaluable"]) == {400}
        assert set(table["n_positive"]) == {80}
        assert ((table["ci_low"] < 0.2) & (table["ci_high"] > 0.2)).all()
    last = prevalence(open_cohort(str(tmp_path), None, Population(since=date(2019, 1, 1))), [], "patient")
    assert last.iloc[0]["prevalence"] == 0.2
    everyone = prevalence(cohort, [], "patient").iloc[0]["prevalence"]
    assert everyone == len({s.patient for s in studies if "lytic" in s.levels}) / len({s.patient for s in studies})


def test_age_and_scanner_are_those_of_the_study_that_the_row_comes_from(tmp_path: Path) -> None:
    studies = [
        Study("p1", date(2010, 1, 1), "L1=lytic L2", age=60, more={"manufacturer": "A"}),
        Study("p1", date(2022, 1, 1), "L1 T12", age=72, more={"manufacturer": "B"}),
    ]
    table = _ask(tmp_path, studies, "age_group", "manufacturer")
    table = table[table["finding"] == "any"]
    groups = table[["age_group", "manufacturer", "n_imaged", "n_positive"]].values.tolist()
    assert groups == [["60-69", "A", 1, 0], ["70-79", "B", 2, 0]]


def test_within_a_year_the_latest_study_counts(tmp_path: Path) -> None:
    studies = [
        Study("p1", date(2020, 1, 1), "L1"),
        Study("p1", date(2020, 9, 1), "L1=lytic"),
        Study("p1", date(2021, 1, 1), "L1"),
    ]
    table = _ask(tmp_path, studies, "year").query("finding == 'any'")
    assert table[["year", "n_evaluable", "n_positive"]].values.tolist() == [["2020", 1, 1], ["2021", 1, 0]]


def test_studies_as_units_are_all_counted_and_clustered_by_patient(tmp_path: Path) -> None:
    studies = [Study("p1", date(2020 + n, 1, 1), "L1=lytic L2") for n in range(3)] + [Study("p2", levels="L1 L2")]
    row = _ask(tmp_path, studies, unit="study").iloc[0]
    assert row[["n_patients", "n_evaluable", "n_positive", "interval"]].tolist() == [2, 4, 3, "korn_graubard"]


def test_an_unnamed_vertebra_counts_for_its_patient_and_never_for_a_level(tmp_path: Path) -> None:
    studies = [Study("p1", date(2023, 1, 1), "L1 L2=lytic"), Study("p1", date(2024, 1, 1), "L1 ?1=blastic")]
    table = _ask(tmp_path, studies, "level").query("finding == 'any'")
    assert table[["level", "n_positive"]].values.tolist() == [["L1", 0], ["L2", 1]]
    patient = prevalence(open_cohort(str(tmp_path)), [], "patient").set_index("finding")
    assert patient["n_positive"].to_dict() == {"any": 1, "blastic": 1, "mixed": 0, "lytic": 1}


# ---- dates under a policy ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["year > 2020", "study_date > date '2020-01-01'"])
def test_a_calendar_question_on_shifted_dates_is_refused_and_others_are_not(tmp_path: Path, where: str) -> None:
    place = open_results(write_results(str(tmp_path), COHORT))
    place.write_run(place.runs()[0] | {"date_policy": "shifted"})
    cohort = open_cohort(place.uri)
    assert prevalence(cohort, ["age_group"])["n_imaged"].sum() > 0
    with pytest.raises(BadInput, match=r"policy `shifted`.*--dates year"):
        prevalence(cohort, ["year"])
    for population in (Population(since=date(2020, 1, 1)), Population(where=where)):
        with pytest.raises(BadInput, match="policy `shifted`"):
            open_cohort(place.uri, None, population)
    assert cohort.execute("select distinct year from current").fetchall() == [(None,)]


def test_dates_that_keep_only_the_year_answer_for_whole_years(tmp_path: Path) -> None:
    place = open_results(write_results(str(tmp_path), [Study("p1", date(2020, 1, 1), "L1")]))
    place.write_run(place.runs()[0] | {"date_policy": "year"})
    whole = Population(since=date(2020, 1, 1), until=date(2020, 12, 31))
    assert len(prevalence(open_cohort(place.uri, None, whole), ["year"])) == 4
    with pytest.raises(BadInput, match="whole calendar years"):
        open_cohort(place.uri, None, Population(since=date(2020, 7, 1)))


# ---- the rule ---------------------------------------------------------------------------------------------------


def test_the_rule_decides_what_is_positive_for_every_task(tmp_path: Path) -> None:
    """Of `CALLS`, a vertebra called normal has a lesion with 0.18; its most probable one is blastic."""
    write_results(str(tmp_path), COHORT)

    def positive(rule: float, task: str = "bone_quality") -> dict[str, int]:
        table = prevalence(open_cohort(str(tmp_path), None, Population(rule=rule)), [], task=task)
        assert set(table["rule"]) == {f"p(lesion) >= {rule:g}"}
        return dict(zip(table["finding"], table["n_positive"].tolist(), strict=True))

    assert positive(0.5) == {"any": 3, "blastic": 1, "mixed": 1, "lytic": 1}
    assert positive(0.17) == {"any": 6, "blastic": 4, "mixed": 1, "lytic": 1}
    assert positive(0.92) == {"any": 1, "blastic": 0, "mixed": 1, "lytic": 0}
    assert positive(0.09, "posterolateral") == {"any": 6, "unilateral": 6, "bilateral": 0}


@pytest.mark.parametrize("rule", ["argmax", 0.17, 0.92])
def test_the_calls_of_a_task_and_the_columns_of_a_vertebra_follow_the_same_rule(
    tmp_path: Path, rule: Literal["argmax"] | float
) -> None:
    cohort = open_cohort(write_results(str(tmp_path), COHORT), None, Population(rule=rule))
    query = """
        select called, label, any_lesion, is_positive from current_vertebrae
        join (from current_calls where task = 'bone_quality') using (source_key, vertebra)
    """
    rows = cohort.execute(query).fetchall()
    assert len(rows) == 6
    assert all(called == label and lesion == positive for called, label, lesion, positive in rows)
