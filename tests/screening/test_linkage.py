"""The linkage table joins the ledger, names each study, and is readable by its owner alone."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from spinemet.dicom.pseudonym import Pseudonymizer
from spinemet.errors import BadInput, Reason
from spinemet.model.marks import UNMARKED
from spinemet.reading import NotScreened, State
from spinemet.screening.linkage import Linkage, check_linkage_apart, linkage_row
from spinemet.screening.outcome import MadeWith, study_rows
from tests.readings import CALLS, READING, REF

NAMES = Pseudonymizer(b"a key for the tests only", "shifted")


def test_rows_join_the_ledger_and_name_the_study() -> None:
    ledger = study_rows(REF, READING, CALLS, MadeWith("m", "c", "1", "r"), NAMES, UNMARKED)["studies"][0]
    row = linkage_row(REF, READING, NAMES)
    assert {key: row[key] for key in row if key.endswith("_key")} == {
        key: ledger[key] for key in ("source_key", "patient_key", "study_key", "series_key")
    }
    assert row["PatientID"] == READING.chosen.PatientID
    assert row["source"].endswith(REF.key)


def test_a_study_without_headers_still_has_its_place_in_the_archive() -> None:
    row = linkage_row(REF, NotScreened(State.FAILED, Reason.BROKEN_ARCHIVE), NAMES)
    assert {name for name, value in row.items() if value} == {"source_key", "source"}


def test_only_the_owner_can_read_the_files(tmp_path: Path) -> None:
    odd = replace(REF, key="caf\udce9")  # a file name that is not UTF-8
    linkage = Linkage(str(tmp_path / "linkage"), NAMES)
    for ref in (REF, odd):
        linkage.add(ref, READING)
    linkage.write("w1")
    (path,) = (tmp_path / "linkage").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert pq.read_table(path).column("source").to_pylist()[1].endswith("caf?")


def test_without_a_place_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    linkage = Linkage(None, NAMES)
    linkage.add(REF, READING)
    linkage.write("w1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "place",
    [
        "s3://b/results",
        "s3://b/results/linkage",
        "s3://b",
        "s3://b/./results/x",
        "s3://b/y/../results",
        "s3://b//results",
    ],
)
def test_a_place_inside_the_results_is_refused(place: str) -> None:
    with pytest.raises(BadInput, match="apart from the results"):
        check_linkage_apart(place, "s3://b/results")
    check_linkage_apart("s3://b/results-linkage", "s3://b/results")


def test_a_local_place_inside_the_results_is_refused_however_it_is_written(tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    (tmp_path / "link").symlink_to(results)
    (tmp_path / "other").mkdir()
    for place in (results / "x", tmp_path / "link", tmp_path / "link" / "x", tmp_path / "other" / ".." / "results"):
        with pytest.raises(BadInput, match="apart from the results"):
            check_linkage_apart(str(place), str(results))
    check_linkage_apart(str(tmp_path / "other"), str(results))


def test_a_linkage_file_is_private_from_its_first_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    replace_file = Path.replace

    def watched(part: Path, target: Path) -> Path:
        seen.append(stat.S_IMODE(part.stat().st_mode))
        return replace_file(part, target)

    monkeypatch.setattr(Path, "replace", watched)
    before = os.umask(0)
    try:
        linkage = Linkage(str(tmp_path / "new" / "linkage"), NAMES)
        linkage.add(REF, READING)
        linkage.write("w1")
    finally:
        os.umask(before)
    assert seen == [0o600]
    assert stat.S_IMODE((tmp_path / "new" / "linkage").stat().st_mode) == 0o700


def test_a_linkage_place_that_cannot_be_written_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    linkage = Linkage(str(tmp_path / "file" / "linkage"), NAMES)
    linkage.add(REF, READING)
    with pytest.raises(BadInput, match="cannot write the linkage"):
        linkage.write("w1")
