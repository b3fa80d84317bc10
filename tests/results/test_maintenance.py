from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from deltalake import DeltaTable
from typer.testing import CliRunner

from spinemet.cli import app
from spinemet.errors import BadInput
from spinemet.results.lease import hold_lease
from spinemet.results.maintenance import compact, history, vacuum
from spinemet.results.tables import Results, connect, open_results
from tests.results.test_tables import seen, study_row, vertebra_row, wave_rows


@pytest.fixture
def results(tmp_path: Path) -> Results:
    """Three waves: in the second a study is done again; the third never reached the ledger."""
    made = open_results(str(tmp_path / "results"), create=True)
    made.commit_wave("run-1-1", wave_rows("k1", "k2"))
    made.commit_wave("run-2-1", {"studies": [study_row("k2")], "vertebrae": [vertebra_row("k2", 0)]}, replace=True)
    made.commit_wave("run-2-2", {"vertebrae": [vertebra_row("k3", 0)]})
    return made


def test_compacting_keeps_the_rows_that_count_in_one_file(results: Results) -> None:
    before = {table: seen(results, table) for table in ("studies", "vertebrae")}
    done = compact(results.uri).set_index("table")
    assert {table: seen(results, table) for table in before} == before
    assert done.loc["vertebrae", "rows_removed"] == 3  # two of k2 as it was first, one of k3
    for table, rows in before.items():
        assert connect(results.uri).sql(f"SELECT count(*) FROM all_{table}").fetchall() == [(len(rows),)]
        assert len(DeltaTable(f"{results.uri}/{table}").file_uris()) == 1
    again = compact(results.uri)
    assert (again["rows_removed"].sum(), again["files_after"].sum()) == (0, 0)


def test_vacuum_deletes_only_files_that_no_version_needs(results: Results) -> None:
    then = datetime.now(UTC)
    time.sleep(0.02)
    before = seen(results, "vertebrae")
    compact(results.uri)
    assert vacuum(results.uri)["files_deleted"].sum() == 0  # all is younger than a month
    connect(results.uri, as_of=then)
    planned = vacuum(results.uri, 0, dry_run=True)["files_to_delete"].sum()
    files = sum(1 for _ in Path(results.uri).rglob("*.parquet"))
    assert planned > 0
    assert vacuum(results.uri, 0)["files_deleted"].sum() == planned
    assert sum(1 for _ in Path(results.uri).rglob("*.parquet")) == files - planned
    assert seen(results, "vertebrae") == before


def test_history_lists_every_version_newest_first(results: Results) -> None:
    versions = history(results.uri)
    assert list(versions["committed_at"]) == sorted(versions["committed_at"], reverse=True)
    assert set(versions["table"]) == {"studies", "vertebrae", "calls", "slices", "pictures", "runs"}
    assert list(versions[versions["table"] == "studies"]["version"]) == [2, 1, 0]


def test_the_commands_answer_as_csv_and_as_of_a_moment(results: Results) -> None:
    command = CliRunner().invoke
    assert command(app, ["tables", "compact", results.uri]).stdout.startswith("table,rows_removed,files_before")
    assert "vertebrae" in command(app, ["tables", "vacuum", results.uri, "--dry-run"]).stdout
    versions = command(app, ["tables", "history", results.uri]).stdout.splitlines()
    made = next(line.split(",")[0] for line in versions if ",studies,0," in line)
    query = ["sql", results.uri, "select count(*) as n from studies"]
    assert command(app, query).stdout.split() == ["n", "2"]
    assert command(app, [*query, "--as-of", made]).stdout.split() == ["n", "0"]
    query = ["sql", results.uri, "select max(wave) as wave from studies"]
    for version, wave in (("1", "run-1-1"), ("2", "run-2-1")):
        assert command(app, [*query, "--as-of", version]).stdout.split() == ["wave", wave]
    refused = {word: command(app, [*query, "--as-of", word]).exception for word in ("yesterday", "99")}
    assert all(isinstance(error, BadInput) for error in refused.values())
    assert "of the table studies from 0 to " in str(refused["99"])


def test_a_copy_of_the_results_has_the_same_history(results: Results) -> None:
    """The dates of a copy's files are those of copying; a slow write dates a file after its commit."""
    made = {
        version["version"]: version["committed_at"]
        for version in history(results.uri).query("table == 'studies'").to_dict("records")
    }
    for number, file in enumerate(sorted(Path(results.uri, "studies", "_delta_log").glob("*.json"))):
        os.utime(file, (time.time() + 3600 + number,) * 2)
    counts = [
        connect(results.uri, made[version]).sql("SELECT max(wave) FROM studies").fetchall() for version in (0, 1, 2)
    ]
    assert counts == [[(None,)], [("run-1-1",)], [("run-2-1",)]]


def test_upkeep_is_refused_during_a_run_and_without_results(results: Results, tmp_path: Path) -> None:
    with hold_lease(results.uri, "run-3"):
        for work in (compact, vacuum):
            with pytest.raises(BadInput, match="run-3 on"):
                work(results.uri)
    for work in (compact, vacuum, history):
        with pytest.raises(BadInput, match="There are no screening results"):
            work(str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()
