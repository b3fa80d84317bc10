from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from deltalake import DeltaTable
from typer.testing import CliRunner

from spinemet.cli import app, main
from spinemet.errors import BadInput
from spinemet.results.lease import hold_lease
from spinemet.results.maintenance import compact, history, pin, unpin, vacuum
from spinemet.results.tables import Results, connect, open_results
from spinemet.results.versions import moment_of, pins
from tests.results.test_tables import study_row, vertebra_row, wave_rows


@pytest.fixture
def results(tmp_path: Path) -> Results:
    """One wave; `redo` does a study again."""
    return first_wave(str(tmp_path / "results"))


def first_wave(place: str) -> Results:
    made = open_results(place, create=True)
    made.commit_wave("run-1-1", wave_rows("k1", "k2"))
    return made


def redo(results: Results) -> None:
    """A study of two vertebrae again, now with one."""
    rows = {"studies": [study_row("k2")], "vertebrae": [vertebra_row("k2", 0)]}
    results.commit_wave("run-2-1", rows, replace=True)


def vertebrae(results: Results, as_of: str | None = None) -> int:
    connection = connect(results.uri, None if as_of is None else moment_of(results.uri, as_of))
    return len(connection.sql("select * from vertebrae").fetchall())


def test_a_pinned_version_outlives_compact_and_vacuum(results: Results) -> None:
    check_outlives(results)


def test_a_pinned_version_outlives_them_on_s3(s3_bucket_apart: str) -> None:
    check_outlives(first_wave(f"{s3_bucket_apart}/night"))


def check_outlives(results: Results) -> None:
    pin(results.uri, "paper")
    redo(results)
    later = moment_of(results.uri, str(results.table("studies").version()))
    for _ in range(2):
        compact(results.uri)
        vacuum(results.uri, 0)
    assert (vertebrae(results), vertebrae(results, "paper")) == (3, 4)
    with pytest.raises(BadInput, match="a vacuum has removed"):
        connect(results.uri, later)


def test_a_version_without_its_pin_goes_with_the_next_vacuum(results: Results) -> None:
    pin(results.uri, "paper")
    redo(results)
    compact(results.uri)
    when = moment_of(results.uri, "paper")
    unpin(results.uri, "paper")
    vacuum(results.uri, 0)
    with pytest.raises(BadInput, match="a vacuum has removed its files"):
        connect(results.uri, when)
    with pytest.raises(BadInput, match=r"a pin \(there are none\), found paper"):
        moment_of(results.uri, "paper")


def test_an_earlier_version_can_be_pinned_until_a_vacuum_removed_it(results: Results) -> None:
    first = str(max(commit["version"] for commit in results.table("studies").history()))
    redo(results)
    pin(results.uri, "first", first)
    assert vertebrae(results, "first") == 4
    unpin(results.uri, "first")
    compact(results.uri)
    vacuum(results.uri, 0)
    with pytest.raises(BadInput, match="a vacuum has removed"):
        pin(results.uri, "late", first)
    assert pins(results.uri) == {}


def test_history_names_the_pins(results: Results) -> None:
    pin(results.uri, "paper")
    pin(results.uri, "thesis", "paper")
    redo(results)
    named = history(results.uri).set_index(["table", "version"])["pins"]
    versions = pins(results.uri)["paper"].versions
    assert set(named[named != ""].index) == set(versions.items())
    assert set(named[named != ""]) == {"paper thesis"}


def test_a_pin_keeps_the_log_that_its_version_needs(tmp_path: Path) -> None:
    """Delta's writers delete log entries older than the retention with every checkpoint."""
    results = open_results(str(tmp_path), create=True)
    eager = {"delta.logRetentionDuration": "interval 0 seconds", "delta.checkpointInterval": "2"}
    for name in ("studies", "vertebrae"):
        results.table(name).alter.set_table_properties(eager)
    results.commit_wave("run-1-1", wave_rows("k1", "k2"))
    pin(results.uri, "paper")
    for number in range(2, 9):
        results.commit_wave(f"run-{number}-1", wave_rows(f"l{number}"))
    assert vertebrae(results, "paper") == 4
    unpin(results.uri, "paper")
    for number in range(9, 15):
        results.commit_wave(f"run-{number}-1", wave_rows(f"l{number}"))
    assert len(DeltaTable(tmp_path / "studies").history()) < 10  # without a pin the log is cleaned as before


def test_names_and_pins_that_cannot_be(results: Results) -> None:
    pin(results.uri, "paper")
    for name in ("2026-11-30", "7", "", "a/b", "../x", "a" * 65):
        with pytest.raises(BadInput, match="expected a name of at most 64 letters"):
            pin(results.uri, name)
    with pytest.raises(BadInput, match="the pin paper exists"):
        pin(results.uri, "paper")
    with pytest.raises(BadInput, match="one of the pins paper, found papre"):
        moment_of(results.uri, "papre")
    with pytest.raises(BadInput, match="expected one of the pins paper, found thesis"):
        unpin(results.uri, "thesis")
    with hold_lease(results.uri, "run-3"), pytest.raises(BadInput, match="run-3 on"):
        pin(results.uri, "other")
    with pytest.raises(BadInput, match="There are no screening results"):
        pin(results.uri + "-none", "paper")


def test_the_moment_of_a_pin_is_that_of_the_last_commit(results: Results) -> None:
    pin(results.uri, "now")
    newest = history(results.uri).query("operation != 'SET TBLPROPERTIES'")["committed_at"].max()
    assert timedelta(0) <= moment_of(results.uri, "now") - newest < timedelta(milliseconds=1)


def test_the_commands_pin_read_and_end_with_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = open_results(str(tmp_path), create=True)
    results.commit_wave("run-1-1", wave_rows("k1"))
    command, query = CliRunner().invoke, ["sql", results.uri, "select count(*) as n from studies"]
    pinned = command(app, ["tables", "pin", results.uri, "paper"]).stdout.splitlines()
    assert pinned[:2] == ["table,version", "studies,1"]
    results.commit_wave("run-1-2", wave_rows("k2"))
    assert command(app, [*query, "--as-of", "paper"]).stdout.split() == ["n", "1"]
    assert ",studies,1,WRITE,paper" in command(app, ["tables", "history", results.uri]).stdout
    assert main(["tables", "unpin", results.uri, "paper"]) == 0
    assert main([*query, "--as-of", "paper"]) == 2
    assert "a pin (there are none), found paper" in capsys.readouterr().err
