import math
from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from spinemet.cohort.prevalence import GROUPS, findings, notes, prevalence
from spinemet.cohort.views import open_cohort
from spinemet.errors import BadInput
from spinemet.results.tables import open_results
from tests.cohort.cases import Study, write_results


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
    assert table.loc["any", "interval"] == "wilson"


def test_a_patient_seen_only_in_part_is_imaged_and_not_evaluable(tmp_path: Path) -> None:
    table = _ask(tmp_path, [Study("p1", levels="L1=cut L2=cut"), Study("p2", levels="L1 L2")], unit="patient")
    assert table.iloc[0][["n_imaged", "n_cut", "n_evaluable", "n_positive"]].tolist() == [2, 1, 1, 0]


def test_several_vertebrae_per_patient_get_a_clustered_interval(tmp_path: Path) -> None:
    table = _ask(tmp_path, COHORT, "region")
    assert set(table["interval"]) == {"wilson", "clustered_wilson"}
    assert table.set_index(["region", "finding"]).loc[("lumbar", "any"), "interval"] == "clustered_wilson"


def test_a_group_without_evaluable_vertebrae_has_no_rate(tmp_path: Path) -> None:
    row = _ask(tmp_path, [Study("p1", levels="L1=cut")], "level").iloc[0]
    assert row["n_imaged"] == 1
    assert math.isnan(row["prevalence"])
    assert math.isnan(row["ci_low"])


def test_missing_values_form_the_last_group(tmp_path: Path) -> None:
    table = _ask(tmp_path, [Study("p1", levels="L1", sex=None), Study("p2", levels="L1", sex="M")], "sex")
    assert list(table["sex"].unique()) == ["M", "unknown"]


def test_sex_and_age_are_those_of_the_latest_study(tmp_path: Path) -> None:
    studies = [
        Study("p1", date(2015, 1, 1), "L1 L2", age=58),
        Study("p1", date(2019, 1, 1), "L1", age=62),
    ]
    table = _ask(tmp_path, studies, "age_group", "sex")
    assert list(table["age_group"].unique()) == ["60-69"]
    assert table.iloc[0]["n_imaged"] == 2


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
    with pytest.raises(BadInput, match="vertebra, patient"):
        prevalence(connection, ["level"], unit="study")
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


def test_wide_columns_and_calls_give_the_same_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = open_cohort(write_results(str(tmp_path), COHORT))
    for task in ("bone_quality", "posterolateral"):
        wide = prevalence(connection, ["level"], task=task)
        with monkeypatch.context() as patch:
            patch.setattr("spinemet.cohort.prevalence.LABEL_COLUMNS", ())
            assert prevalence(connection, ["level"], task=task).equals(wide)


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


@pytest.mark.parametrize(
    ("policy", "by", "years"), [("shifted", "year", 1), ("shifted", "sex", 0), ("exact", "year", 0)]
)
def test_an_answer_has_notes_on_the_model_and_on_shifted_years(
    tmp_path: Path, policy: str, by: str, years: int
) -> None:
    place = open_results(write_results(str(tmp_path), [Study("p1", levels="L1")]))
    assert notes(open_cohort(place.uri), [by]) == []
    place.write_run(place.runs()[0] | {"date_policy": policy, "trained_on": "phantoms"})
    found = notes(open_cohort(place.uri), [by])
    assert found[0].startswith("The model was trained on phantoms")
    assert len(found) == 1 + years
