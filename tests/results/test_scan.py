from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from spinemet.results.scan import define_scan
from spinemet.results.tables import connect
from tests.cohort.cases import Study, write_results


def _scanned(place: str) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    define_scan(connection, "stored", DeltaTable(place).to_pyarrow_dataset(), place)
    return connection


@pytest.mark.parametrize("folder", ["plain", "a 'b'", "what?", "100 %"])
def test_every_name_of_a_folder_is_read(tmp_path: Path, folder: str) -> None:
    place = str(tmp_path / folder)
    write_deltalake(place, pa.table({"model_digest": ["a", "b"], "n": [1, 2]}), partition_by=["model_digest"])
    assert _scanned(place).execute("select model_digest, n from stored order by n").fetchall() == [("a", 1), ("b", 2)]


def test_a_digest_of_digits_alone_stays_text(tmp_path: Path) -> None:
    results = write_results(str(tmp_path), [Study("p1", levels="L1")], model="000000000012")
    found = connect(results).execute("select distinct model_digest from vertebrae").fetchall()
    assert found == [("000000000012",)]


def test_a_column_that_came_later_is_null_in_earlier_rows(tmp_path: Path) -> None:
    place = str(tmp_path)
    write_deltalake(place, pa.table({"a": [1]}))
    write_deltalake(place, pa.table({"a": [2], "b": ["x"]}), mode="append", schema_mode="merge")
    assert _scanned(place).execute("select a, b from stored order by a").fetchall() == [(1, None), (2, "x")]


def test_a_file_of_an_earlier_version_is_not_read(tmp_path: Path) -> None:
    place = str(tmp_path)
    write_deltalake(place, pa.table({"a": [1]}))
    write_deltalake(place, pa.table({"a": [2]}), mode="overwrite")
    assert _scanned(place).execute("from stored").fetchall() == [(2,)]


def test_few_local_files_are_read_without_arrow(tmp_path: Path) -> None:
    place = str(tmp_path)
    write_deltalake(place, pa.table({"a": [1]}))
    assert "PARQUET" in str(_scanned(place).execute("explain select a from stored").fetchall())
