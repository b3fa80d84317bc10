from __future__ import annotations

import io
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from spinemet.cli import app
from spinemet.cohort.disclosure import suppress
from spinemet.cohort.prevalence import prevalence
from spinemet.cohort.summarised_result import COLUMNS, summarised_result
from spinemet.cohort.views import asked, open_cohort
from tests.cohort.cases import Study, write_results


@pytest.fixture
def results(tmp_path: Path) -> str:
    people = [Study(f"p{n}", levels="T12=lytic L1", sex="FM"[n % 2]) for n in range(24)]
    people += [Study(f"q{n}", levels="T12=blastic L1=cut", sex="FM"[n % 2]) for n in range(3)]
    return write_results(str(tmp_path), people)


def read(text: str) -> tuple[pd.DataFrame, dict[str, str]]:
    """The estimates and the settings of a summarised_result in CSV, by omopgenerics' rules for such files."""
    rows = pd.read_csv(io.StringIO(text), dtype=str)
    settings = rows[rows["variable_name"] == "settings"]
    return rows[rows["variable_name"] != "settings"], dict(
        zip(settings["estimate_name"], settings["estimate_value"], strict=True)
    )


def test_read_back_it_holds_every_number_of_the_table(results: str) -> None:
    cohort = open_cohort(results)
    table = prevalence(cohort, ["level", "sex"])
    made = summarised_result(table, table, "prevalence", asked(cohort), 0)
    assert tuple(made.columns) == COLUMNS
    assert len(COLUMNS) == 13
    rows, settings = read(made.to_csv(index=False))
    keys = ["strata_level", "variable_level", "estimate_name"]
    assert not rows.duplicated(keys).any()
    wide = rows.pivot(index=keys[:2], columns="estimate_name", values="estimate_value")
    for row in table.to_dict("records"):
        said = wide.loc[f"{row['level']} &&& {row['sex']}", row["finding"]]
        for name in ("n_evaluable", "n_positive", "n_cut"):
            assert int(said[name]) == row[name]
        for name in ("prevalence", "ci_low", "ci_high"):
            assert float(said[name]) == row[name]
        assert said["interval"] == row["interval"]
    assert set(rows["strata_name"]) == {"level &&& sex"}
    assert {settings[name] for name in ("result_type", "package_name")} == {"spinemet_prevalence", "spinemet"}
    assert settings["ledger_version"] == "1"
    assert settings["definition"].startswith("model =")


def test_types_are_those_that_the_form_knows(results: str) -> None:
    cohort = open_cohort(results)
    table = prevalence(cohort, [])
    made = summarised_result(table, table, "prevalence", asked(cohort), 0).set_index("estimate_name")["estimate_type"]
    assert made["n_positive"].unique().tolist() == ["integer"]
    assert made["prevalence"].unique().tolist() == ["proportion"]
    assert made["interval"].unique().tolist() == ["character"]
    assert set(made) <= {"integer", "numeric", "proportion", "character"}


def test_without_groups_the_strata_are_overall_and_a_missing_number_is_empty(results: str) -> None:
    cohort = open_cohort(results)
    table = prevalence(cohort, [])
    table.loc[0, "ci_low"] = float("nan")
    rows, _ = read(summarised_result(table, table, "prevalence", asked(cohort), 0).to_csv(index=False))
    assert set(rows["strata_name"]) == set(rows["strata_level"]) == {"overall"}
    assert rows[(rows["variable_level"] == "any") & (rows["estimate_name"] == "ci_low")]["estimate_value"].isna().all()


def test_hidden_numbers_are_dashes_and_zeros_stay(results: str) -> None:
    cohort = open_cohort(results)
    table = prevalence(cohort, ["level"])
    made = summarised_result(table, suppress(table, "prevalence"), "prevalence", asked(cohort), 5)
    rows, settings = read(made.to_csv(index=False))
    said = rows.set_index(["strata_level", "variable_level", "estimate_name"])["estimate_value"]
    assert said["T12", "blastic", "n_positive"] == said["T12", "blastic", "prevalence"] == "-"
    assert said["T12", "mixed", "n_positive"] == "0"
    assert settings["min_cell_count"] == "5"


def test_the_commands_hide_only_if_asked_but_always_in_this_form(results: str) -> None:
    def run(*more: str) -> str:
        done = CliRunner().invoke(app, ["cohort", "prevalence", results, "--by", "level", *more])
        assert done.exit_code == 0
        return str(done.stdout)

    def blastic(text: str) -> str:
        return next(line for line in text.splitlines() if line.startswith("T12,blastic")).split(",")[7]

    assert (blastic(run()), blastic(run("--min-cell", "5")), blastic(run("--min-cell", "0"))) == ("3", "", "3")
    assert read(run("--form", "summarised-result"))[1]["min_cell_count"] == "5"
    assert read(run("--form", "summarised-result", "--min-cell", "0"))[1]["min_cell_count"] == "0"
    assert '"n_positive":null' in run("--json", "--min-cell", "5").replace(" ", "")


def test_the_flow_has_this_form_too(results: str) -> None:
    done = CliRunner().invoke(app, ["cohort", "flow", results, "--form", "summarised-result", "--min-cell", "0"])
    rows, settings = read(done.stdout)
    said = rows.set_index(["strata_level", "estimate_name"])["estimate_value"]
    assert (said["in the archive", "studies"], settings["result_type"]) == ("29", "spinemet_flow")
