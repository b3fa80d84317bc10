"""The crops of one study, and the manifest of all studies."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import pydicom
import pytest

from spinemet.archive.listing import study_at
from spinemet.archive.store import Unlisted
from spinemet.config import StudyConfig, changed
from spinemet.errors import BadInput, Reason
from spinemet.reading import NotScreened, State, StudyReading
from spinemet.training.crops import CropsInfo, Shard, read_info, write_manifest
from spinemet.training.preparing import PreparedStudy, may_have_labels, prepare_archive, prepare_study, summarize
from spinemet.types import StudyRef
from tests.readings import SLICES, reading
from tests.training.crops import NAMES, label_table, with_slices

CONFIG = StudyConfig(slices=SLICES)
LABELS = label_table(
    {"patient": "p1", "level": "L1", "bone_quality": "lytic"},
    {"patient": "p1", "level": "L2", "bone_quality": "normal"},
    {"patient": "p2", "level": "L1", "posterolateral": "none"},
    {"patient": "p3", "level": "L1"},
)


def prepare(out: Path, one: StudyReading, labels: pd.DataFrame = LABELS) -> PreparedStudy:
    # NIfTI: such a study is read without a look at its head.
    ref = StudyRef(str(out), "volume.nii", "nifti", ())
    return prepare_study(ref, labels, CONFIG, str(out), lambda ref, config: one)


def test_an_archive_is_prepared_in_rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spinemet.training.preparing.ROUND", 2)
    (tmp_path / "archive").mkdir()
    for number in range(5):
        (tmp_path / "archive" / f"{number}.zip").write_bytes(b"not read here")
    Path(os.fsdecode(os.fsencode(tmp_path / "archive") + b"/\xff.zip")).write_bytes(b"a name that cannot be listed")
    (tmp_path / "labels.csv").write_text("patient,level,bone_quality\np1,L1,lytic\n")
    out, rounds, shown = tmp_path / "crops", [], []

    def prepared(studies: Sequence[StudyRef], labels: pd.DataFrame) -> Iterator[PreparedStudy]:
        rounds.append([ref.key for ref in studies])
        for ref in studies:
            one = reading("p1", ["L1"]) if ref.key == "1.zip" else NotScreened(State.FAILED, Reason.TRUNCATED)
            yield prepare(out, one, labels)

    args = (str(tmp_path / "archive"), str(tmp_path / "labels.csv"), str(out), CONFIG, NAMES, prepared)
    info = prepare_archive(*args, lambda *told: shown.append(told))
    assert rounds == [["0.zip", "1.zip"], ["2.zip", "3.zip"], ["4.zip"]]
    assert [told[:2] for told in shown] == [(1, 0), (2, 0), (3, 0), (4, 0), (5, 5)]
    assert shown[-1][2] == "1 with labels"
    assert (info.studies, info.problems) == (1, {"truncated": 4})
    assert info.unlisted == {str(Unlisted.NAME): 1}
    assert f"not listed, {Unlisted.NAME}: 1" in str(info)
    assert read_info(str(out)) == info


def test_the_manifest_does_not_depend_on_the_order_of_studies(tmp_path: Path) -> None:
    prepared = [
        prepare(tmp_path, one)
        for one in (
            reading("p1", ["L1", "L3"]),
            reading("p1", ["L1"], study="1.2"),
            reading("p2", ["L1"]),
            reading("p2", ["L5"], study="1.3"),
            NotScreened(State.FAILED, Reason.TRUNCATED),
        )
    ]
    info = summarize(prepared, LABELS, CONFIG, str(tmp_path), NAMES)
    assert info == summarize(prepared[::-1], LABELS, CONFIG, str(tmp_path), NAMES)
    assert (info.patients, info.studies, info.vertebrae, info.slices) == (2, 3, 3, 9)
    assert info.classes["bone_quality"] == {"normal": 0, "blastic": 0, "mixed": 0, "lytic": 2}
    assert info.classes["posterolateral"] == {"none": 1, "unilateral": 0, "bilateral": 0}
    assert info.labels_unmatched == 1
    assert info.problems == {"truncated": 1}


def test_labels_of_slices_are_counted_separately_and_strays_named_by_row(tmp_path: Path) -> None:
    def row(at: str, word: str, level: str = "L1") -> dict[str, str]:
        return {"patient": "p1", "study": "1.2", "level": level, "slice": at, "bone_quality": word}

    labels = label_table(
        row("", "lytic"), row("0", "lytic"), row("1.2.3.1", "normal"), row("1.2.3.9", "mixed"), row("40", "lytic", "L2")
    )
    one = with_slices(reading("p1", ["L1", "L2"], study="1.2"), {"1.2.3.1": 3.0})
    info = summarize([prepare(tmp_path, one, labels)] * 2, labels, CONFIG, str(tmp_path), NAMES)
    assert (info.vertebrae, info.slices) == (1, 3)
    assert info.classes["bone_quality"] == {"normal": 0, "blastic": 0, "mixed": 0, "lytic": 1}
    assert info.slice_classes["bone_quality"] == {"normal": 1, "blastic": 0, "mixed": 0, "lytic": 1}
    assert info.labels_unmatched == 2
    assert info.strays == (3,)
    assert info.label_columns[2:] == ["slice_bone_quality", "slice_posterolateral"]


def test_a_study_that_is_in_the_archive_twice_counts_once(tmp_path: Path) -> None:
    prepared = [prepare(tmp_path, reading("p1", ["L1"])) for _ in range(2)]
    info = summarize(prepared, LABELS, CONFIG, str(tmp_path), NAMES)
    assert (len(info.shards), info.studies, info.vertebrae) == (1, 1, 1)


def test_an_archive_without_labels_is_bad_input_with_counts_of_its_studies(tmp_path: Path) -> None:
    prepared = [PreparedStudy(skipped=True), PreparedStudy(reason=Reason.NOT_DICOM), PreparedStudy()]
    with pytest.raises(BadInput, match=r"no labelled vertebra in 3 studies \(not_dicom: 1\)"):
        summarize(prepared, LABELS, CONFIG, str(tmp_path), NAMES)


def test_the_manifest_is_read_back(tmp_path: Path) -> None:
    info = summarize([prepare(tmp_path, reading("p1", ["L1", "L2"]))], LABELS, CONFIG, str(tmp_path), NAMES)
    write_manifest(str(tmp_path), info)
    assert read_info(str(tmp_path)) == info


def test_the_digest_changes_with_shards_slices_and_patients() -> None:
    def info(shard: str, pixel_mm: float, patient: str = "a") -> CropsInfo:
        prepared = PreparedStudy(shard=Shard(name=shard, slices=3, vertebrae=1, patient=patient), labels=(0,))
        slices = changed(SLICES, pixel_mm=pixel_mm)
        return summarize([prepared], LABELS, StudyConfig(slices=slices), "archive", NAMES)

    assert info("x", 1.0).digest == info("x", 1.0).digest
    others = (info("x", 1.0), info("y", 1.0), info("x", 2.0), info("x", 1.0, "b"))
    assert len({one.digest for one in others}) == 4


def test_a_dicom_study_is_read_only_if_it_has_labels(realct: Path) -> None:
    folder = realct / "conformance" / "gantry-tilt" / "In" / "Philips"
    ref = study_at(folder)
    first = next(path for path in sorted(folder.rglob("*")) if path.is_file())
    header = pydicom.dcmread(first, stop_before_pixels=True)
    answers = [
        may_have_labels(ref, label_table({"level": "L1", "bone_quality": "normal", **row}))
        for row in (
            {"patient": str(header.PatientID)},
            {"patient": "x", "study": str(header.StudyInstanceUID)},
            {"patient": "x"},
            {"patient": str(header.PatientID), "study": "1.2"},
        )
    ]
    assert answers == [True, True, False, False]


def test_a_study_without_dicom_headers_is_read(tmp_path: Path) -> None:
    (tmp_path / "1.dcm").write_bytes(b"nothing that is DICOM")
    assert may_have_labels(study_at(tmp_path), LABELS)


@pytest.mark.parametrize(
    ("origins", "expected"),
    [
        (("", ""), ""),
        (("phantom", "phantom"), "phantoms"),
        (("phantom", "implant"), "implanted lesions and phantoms"),
        (("phantom", ""), "phantoms and other studies"),
    ],
)
def test_crops_know_whether_they_are_of_patients(tmp_path: Path, origins: tuple[str, str], expected: str) -> None:
    rows = [{"patient": "p1", "level": level, "bone_quality": "lytic"} for level in ("L1", "L2")]
    unused = {"patient": "p2", "level": "L1", "bone_quality": "lytic", "origin": "implant"}
    labels = label_table(*({**row, "origin": word} for row, word in zip(rows, origins, strict=True)), unused)
    one = prepare(tmp_path, reading("p1", ["L1", "L2"]), labels)
    assert summarize([one], labels, CONFIG, str(tmp_path), NAMES).trained_on == expected
