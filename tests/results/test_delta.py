"""Damaged tables end in one sentence with the way back, and never in fewer rows; tables are read without Python."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from spinemet.cli import main
from spinemet.errors import BadInput
from spinemet.files import join
from spinemet.results.delta import dataset
from spinemet.results.maintenance import compact, history, restore
from spinemet.results.tables import Results, connect, open_results
from tests.results.test_tables import study_row, wave_rows


def commit(place: Path, version: int) -> Path:
    """The commit of the ledger's `version`; 2 is the second wave."""
    return place / "studies" / "_delta_log" / f"{version:020d}.json"


def part(place: Path, table: str) -> Path:
    """The data file that the first wave wrote; names are random."""
    return min((place / table).rglob("*.parquet"), key=lambda file: file.stat().st_mtime_ns)


def cut(file: Path, size: int) -> None:
    file.write_bytes(file.read_bytes()[:size])


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "an empty commit": (lambda at: cut(commit(at, 2), 0), "studies .* version 2 of its log is an empty file"),
    "half a commit": (lambda at: cut(commit(at, 2), 100), r"studies .* its log cannot be read \(Kernel error: Json"),
    "a commit of zeros": (lambda at: commit(at, 2).write_bytes(bytes(400)), "studies .* its log cannot be read"),
    "a commit that is missing": (lambda at: commit(at, 1).unlink(), "studies .* its log cannot be read"),
    "no log": (lambda at: shutil.rmtree(at / "vertebrae" / "_delta_log"), "vertebrae .* it has no log"),
    "no table": (lambda at: shutil.rmtree(at / "pictures"), "pictures .* it has no log"),
    "data that are missing": (lambda at: part(at, "vertebrae").unlink(), r"vertebrae .* part-\S+ is missing"),
    "data cut off": (lambda at: cut(part(at, "vertebrae"), 300), r"vertebrae .* part-\S+ has 300 bytes, not \d+"),
    "empty data": (lambda at: cut(part(at, "studies"), 0), r"studies .* has 0 bytes, not \d+"),
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Two waves of two studies."""
    results = open_results(str(tmp_path / "results"), create=True)
    results.commit_wave("run-1-1", wave_rows("k1", "k2"))
    results.commit_wave("run-1-2", wave_rows("k3", "k4"))
    return Path(results.uri)


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_table_is_named_with_the_way_back_and_nothing_is_written(name: str, place: Path) -> None:
    damage, sentence = DAMAGES[name]
    damage(place)
    before = sorted(place.rglob("*"))
    for attempt in (
        lambda: connect(str(place)),
        lambda: compact(str(place)),
        lambda: open_results(str(place), create=True).check_whole(),
    ):
        with pytest.raises(BadInput, match=f"^The table {sentence}.*back from a copy") as said:
            attempt()
        assert len(str(said.value).splitlines()) == 1
        assert ("tables restore" in str(said.value)) == ("log cannot" not in sentence and "no log" not in sentence)
    assert sorted(place.rglob("*")) == before


def test_an_empty_commit_older_than_a_checkpoint_is_no_damage(place: Path) -> None:
    open_results(str(place)).table("studies").create_checkpoint()
    cut(commit(place, 1), 0)
    assert len(connect(str(place)).sql("FROM studies").fetchall()) == 4


@pytest.mark.parametrize("name", ["an empty commit", "data cut off", "data that are missing"])
def test_restoring_a_whole_version_makes_damaged_tables_usable(name: str, place: Path) -> None:
    part_of_the_second_wave = max((place / "vertebrae").rglob("*.parquet"), key=lambda file: file.stat().st_mtime_ns)
    if name == "an empty commit":
        cut(commit(place, 2), 0)
    elif name == "data cut off":
        cut(part_of_the_second_wave, 300)
    else:
        part_of_the_second_wave.unlink()
    with pytest.raises(BadInput, match="is damaged"):
        connect(str(place))
    done = restore(str(place), "1").set_index("table")["version"]
    assert (done["studies"], done["vertebrae"], done["runs"]) == (1, 1, 0)
    results = open_results(str(place))
    results.check_whole()
    assert sorted(results.ledger()) == ["k1", "k2"]
    assert len(connect(results.uri).sql("FROM vertebrae").fetchall()) == 4
    results.commit_wave("run-2-1", wave_rows("k3", "k4"))
    assert sorted(results.ledger()) == ["k1", "k2", "k3", "k4"]
    assert len(connect(results.uri).sql("FROM all_vertebrae").fetchall()) == 8


def test_only_a_version_that_can_be_read_is_restored(place: Path) -> None:
    before = history(str(place))
    part(place, "vertebrae").unlink()  # of the first wave, as a vacuum would
    for version, sentence in (("9", "expected a version of the table studies"), ("1", "a vacuum has removed")):
        with pytest.raises(BadInput, match=sentence):
            restore(str(place), version)
    assert history(str(place)).equals(before)


def counted(results: Results, run_id: str, state: str, screened: int) -> None:
    now = datetime(2026, 11, 27, 1, tzinfo=UTC)
    results.write_run(
        {"run_id": run_id, "state": state, "asked_by": "nightly", "started_at": now, "archive_key": "a",
         "pseudonym_key_id": "k", "date_policy": "shifted", "model_digest": "a" * 12, "config_digest": "b" * 12,
         "config": "{}", "software_version": "0", "chosen": False, "screened": screened, "excluded": 0, "failed": 0}
    )  # fmt: skip


def test_rows_of_studies_that_a_run_counted_are_not_deleted_as_leftovers(place: Path) -> None:
    results = open_results(str(place))
    counted(results, "run-1", "done", 4)
    assert results.drop_leftovers() == 0
    results.table("studies").delete("wave = 'run-1-2'")  # as if the ledger lost a commit
    for deletes in (results.drop_leftovers, lambda: compact(results.uri)):
        with pytest.raises(BadInput, match="studies that were committed by run-1, so nothing was deleted"):
            deletes()
    assert connect(results.uri).sql("SELECT count(*) FROM all_vertebrae").fetchall() == [(8,)]


@pytest.mark.parametrize("state", ["running", "failed"])
def test_a_wave_that_no_run_counted_is_still_removed(place: Path, state: str) -> None:
    results = open_results(str(place))
    counted(results, "run-1", state, 4)
    results.commit_wave("run-1-3", {"vertebrae": wave_rows("k5")["vertebrae"]})
    assert results.drop_leftovers() == 2
    results.commit_wave("run-2-1", {"studies": [study_row("k1")]}, replace=True)
    assert compact(results.uri).set_index("table").loc["vertebrae", "rows_removed"] == 2  # of k1 as it was first


def test_rows_are_read_by_arrow_alone(place: Path, s3_bucket: str) -> None:
    there = join(s3_bucket, "results")
    open_results(there, create=True).commit_wave("run-1-1", wave_rows("k1"))
    for uri, kind, rows in ((str(place), pafs.LocalFileSystem, 4), (there, pafs.S3FileSystem, 1)):
        stored = dataset(uri, "studies")
        assert isinstance(stored.filesystem.base_fs, kind)
        assert stored.count_rows() == rows


def test_bytes_that_changed_inside_a_data_file_are_one_sentence(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = part(place, "studies")
    content = bytearray(file.read_bytes())
    content[40:900] = bytes(byte ^ 0xFF for byte in content[40:900])
    file.write_bytes(content)
    assert main(["sql", str(place), "select * from studies"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("spinemet: a data file of the tables seems damaged (")
