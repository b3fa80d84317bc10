import datetime as dt
import json
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from spinemet.errors import BadInput, JobFailed, Reason
from spinemet.reading import State
from spinemet.results.schemas import SCHEMAS, Row
from spinemet.results.tables import Results, connect, moment, open_results

MADE_WITH: Row = {
    "model_digest": "a" * 12,
    "config_digest": "b" * 12,
    "software_version": "0",
    "run_id": "run-1",
}


def study_row(key: str, reason: str | None = None) -> Row:
    state = "screened" if reason is None else "failed"
    return {"source_key": key, "state": state, "reason": reason, "layout": "zip", "objects": 1, "size_bytes": 9,
            "flags": [], **MADE_WITH}  # fmt: skip


def vertebra_row(key: str, vertebra: int) -> Row:
    numbers = ("level_confidence", "confidence", "center_x_mm", "center_y_mm", "center_z_mm", "canal_mm", "height_mm")
    return {"source_key": key, "vertebra": vertebra, "level": "T1", "completeness": "whole", "evaluable": True,
            "slices": 7, "flags": [], **dict.fromkeys(numbers, 1.0), **MADE_WITH}  # fmt: skip


def wave_rows(*keys: str) -> dict[str, list[Row]]:
    return {
        "studies": [study_row(key) for key in keys],
        "vertebrae": [vertebra_row(k, n) for k in keys for n in (0, 1)],
    }


@pytest.fixture(params=["local", "s3"])
def results(request: pytest.FixtureRequest, tmp_path: Path) -> Results:
    if request.param == "local":
        return open_results(str(tmp_path / "results"), create=True)
    return open_results(request.getfixturevalue("s3_bucket") + "/results", create=True)


def seen(results: Results, table: str) -> list[tuple[Any, ...]]:
    return connect(results.uri).sql(f"SELECT source_key, wave FROM {table} ORDER BY ALL").fetchall()


@pytest.mark.parametrize("feature", ["deletionVectors", "columnMapping", "v2Checkpoint"])
def test_a_feature_that_another_tool_set_is_named(tmp_path: Path, feature: str) -> None:
    """Spark sets such features; deltalake then refuses the table."""
    uri = open_results(str(tmp_path), create=True).uri
    protocol = {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": [feature], "writerFeatures": [feature]}
    (tmp_path / "studies" / "_delta_log" / f"{1:020d}.json").write_text(json.dumps({"protocol": protocol}) + "\n")
    with pytest.raises(BadInput, match=f"table studies .* {feature}"):
        connect(uri)


def test_a_wave_is_read_back_whole(results: Results) -> None:
    results.commit_wave("run-1-1", wave_rows("k2", "k1"))
    results.commit_wave("run-1-2", wave_rows("k3"))
    assert seen(results, "studies") == [("k1", "run-1-1"), ("k2", "run-1-1"), ("k3", "run-1-2")]
    assert [key for key, _ in seen(results, "vertebrae")] == ["k1", "k1", "k2", "k2", "k3", "k3"]
    assert results.ledger("a" * 12, "b" * 12).keys() == {"k1", "k2", "k3"}
    assert results.ledger("c" * 12, "b" * 12).keys() == set()
    assert results.ledger("a" * 12, "c" * 12).keys() == set()


def test_a_wave_that_never_reached_the_ledger_is_invisible_and_then_removed(results: Results) -> None:
    results.commit_wave("run-1-1", wave_rows("k1"))
    lost = wave_rows("k2")
    results.commit_wave("run-1-2", {"vertebrae": lost["vertebrae"]})  # the state after a kill between two commits
    assert [key for key, _ in seen(results, "vertebrae")] == ["k1", "k1"]
    assert results.drop_leftovers() == 2
    assert results.drop_leftovers() == 0
    assert connect(results.uri).sql("SELECT count(*) FROM all_vertebrae").fetchall() == [(2,)]
    results.commit_wave("run-2-1", lost)
    assert [key for key, _ in seen(results, "vertebrae")] == ["k1", "k1", "k2", "k2"]


def test_a_replaced_study_has_one_ledger_row_and_only_its_new_vertebrae(results: Results) -> None:
    results.commit_wave("run-1-1", wave_rows("k1", "k2"))
    results.commit_wave("run-2-1", {"studies": [study_row("k2")], "vertebrae": [vertebra_row("k2", 0)]}, replace=True)
    assert seen(results, "studies") == [("k1", "run-1-1"), ("k2", "run-2-1")]
    assert seen(results, "vertebrae") == [("k1", "run-1-1")] * 2 + [("k2", "run-2-1")]


def test_replacing_leaves_other_models_rows_alone(results: Results) -> None:
    other = {**study_row("k1"), "model_digest": "c" * 12}
    results.commit_wave("run-1-1", {"studies": [other]})
    results.commit_wave("run-2-1", wave_rows("k1"))
    results.commit_wave("run-3-1", wave_rows("k1"), replace=True)
    assert seen(results, "studies") == [("k1", "run-1-1"), ("k1", "run-3-1")]


def test_ledger_keys_of_some_reasons(results: Results) -> None:
    rows = [study_row("k1"), study_row("k2", Reason.UNREACHABLE), study_row("k3", Reason.CRASHED)]
    results.commit_wave("run-1-1", {"studies": rows})
    assert results.ledger("a" * 12, "b" * 12, only=[Reason.UNREACHABLE]).keys() == {"k2"}
    assert results.ledger("a" * 12, "b" * 12, only=[Reason.TRUNCATED]).keys() == set()


def test_ledger_keys_of_a_state_and_of_all_models(results: Results) -> None:
    other = {**study_row("k3"), "model_digest": "c" * 12}
    results.commit_wave("run-1-1", {"studies": [study_row("k1"), study_row("k2", Reason.CRASHED)]})
    results.commit_wave("run-1-2", {"studies": [other]})
    assert results.ledger("a" * 12, "b" * 12, state=State.FAILED).keys() == {"k2"}
    assert results.ledger().keys() == {"k1", "k2", "k3"}
    assert results.ledger("a" * 12, "b" * 12) == {"k1": 9, "k2": 9}


def test_nothing_is_written_if_the_guard_raises(tmp_path: Path) -> None:
    def lost() -> None:
        raise JobFailed("the lease is lost")

    results = Results(open_results(str(tmp_path), create=True).uri, lost)
    with pytest.raises(JobFailed):
        results.commit_wave("run-1-1", wave_rows("k1"))
    assert seen(results, "studies") == []


def test_a_moment_is_a_date_or_a_time_with_or_without_a_zone() -> None:
    assert moment("2026-11-30") == dt.datetime(2026, 11, 30, tzinfo=dt.UTC)
    assert moment("2026-11-30T22:00+02:00") == dt.datetime(2026, 11, 30, 20, tzinfo=dt.UTC)
    with pytest.raises(BadInput, match="found yesterday"):
        moment("yesterday")


def test_a_run_keeps_one_row_while_its_state_changes(results: Results) -> None:
    assert results.last_run() is None
    now = dt.datetime.now(dt.UTC)
    row = {"run_id": "run-1", "state": "running", "asked_by": "me", "started_at": now, "archive_key": "a",
           "pseudonym_key_id": "k", "date_policy": "year", "model_digest": "m", "config_digest": "c", "config": "{}",
           "software_version": "0"}  # fmt: skip
    results.write_run(row)
    results.write_run({**row, "run_id": "run-2", "started_at": now + dt.timedelta(seconds=1)})
    assert results.last_rate() is None
    results.write_run({**row, "state": "done", "screened": 3, "studies_per_hour": 90.0})
    assert results.last_rate() == 90
    runs = connect(results.uri).sql("SELECT run_id, state, screened FROM runs ORDER BY run_id").fetchall()
    assert runs == [("run-1", "done", 3), ("run-2", "running", None)]
    last = results.last_run()
    assert last is not None
    assert last["run_id"] == "run-2"


def test_as_of_shows_the_tables_of_that_moment(tmp_path: Path) -> None:
    before = dt.datetime.now(dt.UTC)
    time.sleep(0.01)
    results = open_results(str(tmp_path), create=True)
    results.commit_wave("run-1-1", wave_rows("k1"))
    time.sleep(0.02)
    between = dt.datetime.now(dt.UTC)
    time.sleep(0.02)
    results.commit_wave("run-2-1", wave_rows("k1", "k2"), replace=True)
    then = connect(results.uri, as_of=between)
    assert then.sql("SELECT source_key, wave FROM studies").fetchall() == [("k1", "run-1-1")]
    assert then.sql("SELECT count(*) FROM vertebrae").fetchall() == [(2,)]
    with pytest.raises(BadInput, match="no results yet at"):
        connect(results.uri, as_of=before)


def test_descriptions_are_stored_with_the_columns(tmp_path: Path) -> None:
    results = open_results(str(tmp_path), create=True)
    results.commit_wave("run-1-1", wave_rows("k1"))
    fields = {field.name: field for field in DeltaTable(tmp_path / "studies").schema().fields}
    assert fields["kvp"].metadata == {"comment": "KVP of the chosen series."}
    assert not fields["source_key"].nullable


def test_a_reworded_description_stops_no_write(tmp_path: Path) -> None:
    reworded = [field.with_metadata({"comment": "as an earlier version said it"}) for field in SCHEMAS["runs"]]
    DeltaTable.create(tmp_path / "runs", pa.schema([field for field in reworded if field.name != "drift"]))
    results = open_results(str(tmp_path), create=True)
    results.write_run(run_row("run-01"))
    fields = {field.name: field for field in DeltaTable(tmp_path / "runs").schema().fields}
    assert fields["state"].metadata == {"comment": "as an earlier version said it"}
    assert fields["drift"].metadata["comment"].startswith("What left the control limits")


def test_opening_twice_changes_nothing(results: Results) -> None:
    results.commit_wave("run-1-1", wave_rows("k1"))
    again = open_results(results.uri, create=True)
    assert seen(again, "studies") == [("k1", "run-1-1")]


def test_a_place_without_results_is_bad_input(tmp_path: Path, s3_bucket: str) -> None:
    for place in (str(tmp_path / "none"), str(tmp_path), s3_bucket, s3_bucket + "-missing/results"):
        with pytest.raises(BadInput, match=r"(There are no|Cannot read) screening results at"):
            connect(place)


def test_an_unwritable_place_is_bad_input(tmp_path: Path, s3_bucket: str) -> None:
    (tmp_path / "file").write_text("in the way")
    for place in (str(tmp_path / "file" / "results"), str(tmp_path / "file"), s3_bucket + "-missing/results"):
        with pytest.raises(BadInput, match="Cannot write screening results at"):
            open_results(place, create=True)
    with pytest.raises(BadInput, match="NoSuchBucket"):
        open_results(s3_bucket + "-missing/results", create=True)
    assert (tmp_path / "file").read_text() == "in the way"


def run_row(run_id: str, **changes: Any) -> Row:
    made_with = {name: MADE_WITH[name] for name in ("model_digest", "config_digest", "software_version")}
    about = {"archive_key": "a", "pseudonym_key_id": "p", "date_policy": "shifted", "asked_by": "me", "config": "{}"}
    start = dt.datetime(2026, 11, int(run_id[-2:]), 20, tzinfo=dt.UTC)
    return {"run_id": run_id, "state": "done", "started_at": start, **about, **made_with, **changes}


def test_usual_runs_are_the_last_finished_ones_that_screened_new_studies(tmp_path: Path) -> None:
    schema = SCHEMAS["runs"]
    early = [field for field in schema if field.name not in {"chosen", "drift", "evaluable", "mean_hu"}]
    DeltaTable.create(tmp_path / "runs", pa.schema(early))  # from a version with fewer columns
    old = pa.Table.from_pylist([run_row("run-01", failed=1)], schema=pa.schema(early))
    write_deltalake(tmp_path / "runs", old, mode="append")
    results = open_results(str(tmp_path), create=True)
    made_with = ("a" * 12, "b" * 12)
    assert [run["run_id"] for run in results.usual_runs(*made_with)] == ["run-01"]
    others: list[Row] = [{"chosen": True}, {"state": "failed"}, {"state": "running"}, {"model_digest": "c" * 12}]
    for day, changes in enumerate([*others, {"state": "stopped", "mean_hu": 150.0}, {"chosen": False}], start=2):
        results.write_run(run_row(f"run-{day:02d}", **changes))
    usual = results.usual_runs(*made_with)
    assert [run["run_id"] for run in usual] == ["run-01", "run-06", "run-07"]
    assert [run["mean_hu"] for run in usual] == [None, 150.0, None]


def test_columns_of_a_later_version_are_null_until_it_writes(tmp_path: Path) -> None:
    results = open_results(str(tmp_path), create=True)
    table = results.table("runs").to_pyarrow_table().drop_columns(["trained_on", "drift"])
    write_deltalake(str(tmp_path / "runs"), table, mode="overwrite", schema_mode="overwrite")
    shown = connect(str(tmp_path)).sql("select trained_on, drift, state from runs")
    assert (shown.columns, shown.fetchall()) == (["trained_on", "drift", "state"], [])
