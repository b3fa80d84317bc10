"""Tables of the older form, written here by hand: refused with one sentence, migrated, and read as of a time before."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from typer.testing import CliRunner

from spinemet.cli import app
from spinemet.cohort.prevalence import prevalence
from spinemet.cohort.views import open_cohort
from spinemet.errors import BadInput
from spinemet.report.html import write_report
from spinemet.results import maintenance
from spinemet.results.lease import hold_lease
from spinemet.results.maintenance import compact, history, migrate, vacuum
from spinemet.results.schemas import PARTITION_COLUMN, SCHEMAS
from spinemet.results.tables import connect, open_results
from tests.cohort.cases import Study, write_results
from tests.results.test_tables import study_row

Row = dict[str, Any]
STUDIES = [
    Study("p1", levels="T12=cut L1=lytic L2", more={"flags": ["lossy", "deskewed"]}),
    Study("p2", levels="L1 L2=mixed ?3=?"),
    Study("p3", state="excluded", reason="no_spine"),
]
WITHOUT_COLUMNS = ("collapse",)


def rows_of(uri: str, **options: Any) -> dict[str, list[Row]]:
    connection = connect(uri, **options)
    return {name: connection.sql(f"FROM {name}").to_arrow_table().to_pylist() for name in SCHEMAS}


def sorted_rows(uri: str, **options: Any) -> dict[str, list[str]]:
    unstamped = {
        name: [{column: value for column, value in row.items() if column != "committed_at"} for row in rows]
        for name, rows in rows_of(uri, **options).items()
    }
    return {name: sorted(map(repr, rows)) for name, rows in unstamped.items()}


def older_schema(name: str) -> pa.Schema:
    fields = [
        pa.field("flags", pa.string(), nullable=False) if field.name == "flags" else field for field in SCHEMAS[name]
    ]
    if name == "vertebrae":
        place = SCHEMAS[name].names.index("sins_location")
        fields.insert(place, pa.field("further_tasks", pa.string()))
    return pa.schema(fields)


def older_row(row: Row, calls: list[Row]) -> Row:
    further: dict[str, dict[str, float]] = {}
    for call in calls:
        same = (call["source_key"], call["vertebra"]) == (row.get("source_key"), row.get("vertebra"))
        if same and call["task"] in WITHOUT_COLUMNS:
            further.setdefault(call["task"], {})[call["class"]] = call["probability"]
    text = {"flags": " ".join(row["flags"])} if "flags" in row else {}
    return row | text | {"further_tasks": json.dumps(further) if further else None}


@pytest.fixture(params=[("L1", "?3"), None], ids=["with a further task", "without"])
def newer(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return write_results(str(tmp_path / "newer"), STUDIES, pictures=True, collapsed=request.param)


@pytest.fixture
def older(newer: str, tmp_path: Path) -> str:
    """The rows of `newer` in the older form."""
    rows = rows_of(newer)
    for name in SCHEMAS:
        if name == "calls":
            continue
        schema = older_schema(name)
        content = [{k: v for k, v in older_row(row, rows["calls"]).items() if k in schema.names} for row in rows[name]]
        place, partition = str(tmp_path / "older" / name), None if name == "runs" else [PARTITION_COLUMN]
        DeltaTable.create(place, schema, name=name, partition_by=partition)
        write_deltalake(place, pa.Table.from_pylist(content, schema=schema), mode="append")
    return str(tmp_path / "older")


def test_migrated_tables_are_those_that_this_version_writes(newer: str, older: str) -> None:
    done = migrate(older).set_index("table")["rows_written"]
    assert done["studies"] == 3
    assert done["vertebrae"] == 6
    assert done["calls"] == len(rows_of(newer)["calls"]) > 0
    assert sorted_rows(older) == sorted_rows(newer)
    for name in ("studies", "vertebrae", "calls"):
        stored, fresh = (DeltaTable(f"{place}/{name}") for place in (older, newer))
        assert stored.schema() == fresh.schema()
        assert stored.metadata().partition_columns == fresh.metadata().partition_columns
    open_results(older, create=True).commit_wave("run-9-1", {"studies": [study_row("k9")]})
    assert len(rows_of(older)["studies"]) == 4


def test_migrating_again_writes_nothing(older: str) -> None:
    migrate(older)
    versions = history(older)
    assert migrate(older)["rows_written"].tolist() == [0, 0, 0]
    assert len(history(older)) == len(versions)


@pytest.mark.parametrize("committed", [0, 1, 2])
def test_a_killed_migration_is_finished_by_the_next(
    newer: str, older: str, committed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite, count = maintenance._rewrite, 0

    def dies(*arguments: Any) -> int:
        nonlocal count
        count += 1
        if count > committed:
            raise KeyboardInterrupt
        return rewrite(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(maintenance, "_rewrite", dies)
        with pytest.raises(KeyboardInterrupt):
            migrate(older)
    with pytest.raises(BadInput, match="spinemet tables migrate"):
        open_results(older)
    migrate(older)
    assert sorted_rows(older) == sorted_rows(newer)


def test_the_tables_stay_readable_as_of_a_moment_before(newer: str, older: str) -> None:
    then = datetime.now(UTC)
    time.sleep(0.02)
    migrate(older)
    assert sorted_rows(older, as_of=then) == sorted_rows(newer)
    asked = [prevalence(open_cohort(place, when), ["level"]) for place, when in ((older, then), (newer, None))]
    assert asked[0].equals(asked[1])


@pytest.mark.parametrize(
    "work",
    [
        open_results,
        lambda uri: open_results(uri, create=True),
        connect,
        compact,
        vacuum,
        history,
        open_cohort,
        lambda uri: write_report(uri, f"{uri}.html"),
    ],
    ids=["open", "create", "connect", "compact", "vacuum", "history", "cohort", "report"],
)
def test_everything_else_says_what_to_do_and_changes_nothing(older: str, work: Callable[[str], object]) -> None:
    before = sorted(Path(older).rglob("*"))
    with pytest.raises(
        BadInput, match=r"written by an earlier version of SpineMet\. Bring .*: spinemet tables migrate /"
    ):
        work(older)
    assert sorted(Path(older).rglob("*")) == before


def test_the_command_migrates_and_waits_for_no_run(older: str, tmp_path: Path) -> None:
    with hold_lease(older, "run-3"), pytest.raises(BadInput, match="run-3 on"):
        migrate(older)
    shown = CliRunner().invoke(app, ["tables", "migrate", older]).stdout.splitlines()
    assert shown[0] == "table,rows_written"
    assert "vertebrae,6" in shown
    with pytest.raises(BadInput, match="There are no screening results"):
        migrate(str(tmp_path / "none"))
