"""Readings and labels become crops; crops are read back unchanged, in an order that depends on their content only."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from spinemet.config import changed
from spinemet.errors import BadInput
from spinemet.files import join
from spinemet.training.crops import (
    MANIFEST,
    SHARDS,
    WHERE,
    read_crops,
    read_info,
    whose,
    write_manifest,
    write_shard,
)
from spinemet.training.labels import LABEL_CLASSES
from spinemet.training.matching import match_labels
from tests.readings import SERIES, reading
from tests.training.crops import NAMES, cropped, crops_info, label_table, write_crops

LABELS = label_table(
    {"patient": "p1", "level": "T12", "bone_quality": "normal"},
    {"patient": "p1", "level": "L1", "bone_quality": "lytic", "posterolateral": "bilateral"},
    {"patient": "p1", "level": "L2", "bone_quality": "normal"},
    {"patient": "p1", "level": "L3"},
    {"patient": "p2", "level": "L1", "posterolateral": "none"},
    {"patient": "p2", "level": "L4", "bone_quality": "mixed"},
)


def test_only_whole_named_labelled_vertebrae_become_crops() -> None:
    one = reading("p1", ["?1", "T12", "L1", "L2", "L3", "L4"], cut=("L2",))
    rows = cropped(one, LABELS).to_pydict()
    assert rows["level"] == ["T12"] * 3 + ["L1"] * 3
    assert rows["bone_quality"] == ["normal"] * 3 + ["lytic"] * 3
    assert rows["posterolateral"] == [None] * 3 + ["bilateral"] * 3
    assert rows["offset_mm"] == [3.0, 0.0, -3.0] * 2


def test_the_most_specific_label_counts() -> None:
    labels = label_table(
        {"patient": "p1", "level": "L1", "bone_quality": "normal"},
        {"patient": "p1", "study": "1.2", "level": "L1", "bone_quality": "blastic"},
        {"patient": "p1", "study": "1.2", "series": SERIES.SeriesInstanceUID, "level": "L1", "bone_quality": "lytic"},
        {"patient": "p1", "study": "1.2", "series": "9.9.2", "level": "L1", "bone_quality": "mixed"},
        {"patient": "p1", "study": "1.3", "level": "L1", "bone_quality": "blastic"},
    )
    words = [
        set(cropped(reading("p1", ["L1"], study=study), labels)["bone_quality"].to_pylist())
        for study in ("1.1", "1.2", "1.3")
    ]
    assert words == [{"normal"}, {"lytic"}, {"blastic"}]


def test_labels_of_other_reconstructions_count_unless_they_disagree() -> None:
    def row(level: str, series: str, word: str) -> dict[str, str]:
        return {"patient": "p1", "study": "1.2", "series": series, "level": level, "bone_quality": word}

    labels = label_table(
        row("L1", "8.1", "lytic"),
        row("L2", "8.1", "lytic"),
        row("L2", "8.2", "lytic"),
        row("L3", "8.1", "lytic"),
        row("L3", "8.2", "normal"),
        row("L4", "8.1", "lytic"),
        row("L4", "", "blastic"),
        {"patient": "p1", "level": "L3", "bone_quality": "mixed"},
    )
    rows = cropped(reading("p1", ["L1", "L2", "L3", "L4"], study="1.2"), labels).to_pydict()
    assert dict(zip(rows["level"], rows["bone_quality"], strict=True)) == {
        "L1": "lytic",
        "L2": "lytic",
        "L3": "mixed",
        "L4": "blastic",
    }


def test_a_study_named_by_its_uid_belongs_to_the_patient_of_the_label_table() -> None:
    labels = label_table({"patient": "case 7", "study": "1.2", "level": "L1", "bone_quality": "lytic"})
    one = reading("another pseudonym", ["L1"], study="1.2")
    found = whose(one, labels, match_labels(one, labels))
    assert found == {"patient": "case 7", "archive_patient": "another pseudonym", "study": "1.2"}


def test_a_study_without_vertebrae_has_no_rows() -> None:
    assert cropped(reading("p1", []), LABELS).num_rows == 0


@pytest.mark.parametrize("place", ["local", "s3"])
@pytest.mark.parametrize("in_memory_bytes", [1 << 20, 0])
def test_crops_are_read_back_unchanged(
    tmp_path: Path, s3_bucket: str, place: str, in_memory_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    uri = join(s3_bucket, "crops") if place == "s3" else str(tmp_path / "crops")
    readings = [reading("p1", ["T12", "L1"]), reading("p2", ["L1", "L4"])]
    write_crops(uri, readings, LABELS)
    for _ in range(2):  # the second time from the mapped file
        crops = read_crops(uri, in_memory_bytes)
        expected = np.concatenate([stack.hu_NHW for one in readings for stack in one.stacks])
        np.testing.assert_array_equal(crops.hu_NHW, expected)
        assert isinstance(crops.hu_NHW, np.memmap) == (in_memory_bytes == 0)
        assert crops.table["vertebra"].tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
        assert crops.table["bone_quality"].tolist() == ["normal"] * 3 + ["lytic"] * 3 + [None] * 3 + ["mixed"] * 3
        assert crops.table["patient"].nunique() == 2


def test_labels_of_slices_and_further_columns_are_read_back(tmp_path: Path) -> None:
    row = {"patient": "p1", "study": "1.2", "level": "L1"}
    labels = label_table(
        {**row, "bone_quality": "lytic"}, {**row, "slice": "0", "bone_quality": "normal"}, {"collapse": "yes"}
    )
    info = write_crops(str(tmp_path), [reading("p1", ["L1"], study="1.2")], labels)
    table = read_crops(str(tmp_path)).table
    assert table["bone_quality"].tolist() == ["lytic"] * 3
    assert table["slice_bone_quality"].tolist() == [None, "normal", None]
    assert table["collapse"].tolist() == table["slice_collapse"].tolist() == [None] * 3
    write_manifest(str(tmp_path), changed(info, classes={}, slice_classes={}))
    assert list(read_crops(str(tmp_path)).table) == [*WHERE, *LABEL_CLASSES]


def test_no_identifier_is_written(tmp_path: Path) -> None:
    labels = label_table({"patient": "MRN-4711", "level": "L1", "bone_quality": "normal"})
    write_crops(str(tmp_path), [reading("MRN-4711", ["L1"], study="1.2.840.4711")], labels)
    for path in tmp_path.rglob("*"):
        assert "4711" not in path.name
        assert path.is_dir() or b"4711" not in path.read_bytes()


def test_crops_have_the_pseudonyms_of_the_results(tmp_path: Path) -> None:
    labels = label_table({"patient": "case 7", "study": "1.2", "level": "L1", "bone_quality": "normal"})
    write_crops(str(tmp_path), [reading("MRN-4711", ["L1"], study="1.2")], labels)
    row = read_crops(str(tmp_path)).table.iloc[0]
    assert row["patient"] == NAMES.patient_key("case 7")
    assert row["archive_patient"] == NAMES.patient_key("MRN-4711")
    assert row["study"] == NAMES.study_key("1.2")
    assert read_info(str(tmp_path)).pseudonym_key_id == NAMES.key_id


def test_crops_of_an_earlier_version_are_refused_with_the_way_out(tmp_path: Path) -> None:
    info = write_crops(str(tmp_path), [reading("p1", ["L1"])], LABELS).model_dump()
    old = {name: value for name, value in info.items() if name != "pseudonym_key_id"}
    (tmp_path / MANIFEST).write_text(json.dumps(old))
    with pytest.raises(BadInput, match=r"hashes without a key.*jobs/prepare\.py"):
        read_info(str(tmp_path))


def test_equal_crops_change_nothing_and_others_replace_the_old(tmp_path: Path) -> None:
    uri = str(tmp_path)
    first = write_crops(uri, [reading("p1", ["T12", "L1"])], LABELS)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert write_crops(uri, [reading("p1", ["T12", "L1"])], LABELS) == first
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    other = write_crops(uri, [reading("p2", ["L1"])], LABELS)
    assert other.digest != first.digest
    assert [path.stem for path in (tmp_path / SHARDS).iterdir()] == [shard.name for shard in other.shards]


def test_a_label_or_a_pixel_changes_the_shard_name(tmp_path: Path) -> None:
    one = reading("p1", ["L1"])
    names = {write_shard(str(tmp_path), cropped(one, LABELS)).name}
    relabelled = label_table({"patient": "p1", "level": "L1", "bone_quality": "blastic"})
    names.add(write_shard(str(tmp_path), cropped(one, relabelled)).name)
    one.stacks[0].hu_NHW[0, 0, 0] += 1
    names.add(write_shard(str(tmp_path), cropped(one, LABELS)).name)
    assert len(names) == 3


def test_a_folder_without_crops_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"expected crops .* found none"):
        read_crops(str(tmp_path / "nowhere"))
    (tmp_path / MANIFEST).write_text(json.dumps({"something": "else"}))
    with pytest.raises(BadInput, match="of another kind"):
        read_crops(str(tmp_path))


def test_damaged_and_missing_shards_are_bad_input(tmp_path: Path) -> None:
    uri = str(tmp_path)
    shard = write_shard(uri, cropped(reading("p1", ["L1"]), LABELS))
    write_manifest(uri, crops_info([replace_slices(shard, shard.slices + 1)]))
    with pytest.raises(BadInput, match="expected 4 slices"):
        read_crops(uri)
    write_manifest(uri, crops_info([shard]))
    path = tmp_path / SHARDS / f"{shard.name}.parquet"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BadInput, match="damaged"):
        read_crops(uri)
    path.unlink()
    with pytest.raises(BadInput, match="found none"):
        read_crops(uri)


def replace_slices(shard: object, slices: int) -> object:
    return changed(shard, slices=slices)  # type: ignore[attr-defined]


def test_take_keeps_vertebra_numbers(tmp_path: Path) -> None:
    write_crops(str(tmp_path), [reading("p1", ["T12", "L1"]), reading("p2", ["L1"])], LABELS)
    crops = read_crops(str(tmp_path))
    part = crops.take((crops.table["patient"] == NAMES.patient_key("p2")).to_numpy())
    assert part.table["vertebra"].tolist() == [2, 2, 2]
    np.testing.assert_array_equal(part.hu_NHW, crops.hu_NHW[6:])


@pytest.mark.parametrize("kind", ["open to others", "a link", "a file"])
def test_a_cache_that_somebody_else_may_have_made_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    write_crops(str(tmp_path / "crops"), [reading("p1", ["T12", "L1"])], LABELS)
    place = tmp_path / f"spinemet-{os.getuid()}"
    if kind == "a file":
        place.write_text("")
    elif kind == "a link":
        (tmp_path / "theirs").mkdir(mode=0o700)
        place.symlink_to(tmp_path / "theirs")
    else:
        place.mkdir()
        place.chmod(0o777)
    with pytest.raises(BadInput, match="that nobody else can enter"):
        read_crops(str(tmp_path / "crops"), 0)


def test_a_cached_file_of_another_shape_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    write_crops(str(tmp_path / "crops"), [reading("p1", ["T12", "L1"])], LABELS)
    good = read_crops(str(tmp_path / "crops"), 0).hu_NHW.copy()
    (file,) = (tmp_path / f"spinemet-{os.getuid()}").iterdir()
    np.save(file, np.zeros((2, 2), np.int16))
    np.testing.assert_array_equal(read_crops(str(tmp_path / "crops"), 0).hu_NHW, good)
