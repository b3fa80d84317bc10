from __future__ import annotations

from pathlib import Path

import pytest

from spinemet.errors import BadInput
from spinemet.files import exists, join, normalize, read_bytes, split, write_bytes


@pytest.mark.parametrize("place", ["local", "s3"])
def test_written_bytes_come_back(place: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    root = str(tmp_path / "new") if place == "local" else request.getfixturevalue("s3_bucket")
    uri = join(root, "deep", "file.bin")
    assert not exists(uri)
    write_bytes(uri, b"content")
    assert exists(uri)
    assert read_bytes(uri) == b"content"


@pytest.mark.parametrize("place", ["local", "s3"])
def test_a_missing_file_is_bad_input(place: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    root = str(tmp_path) if place == "local" else request.getfixturevalue("s3_bucket")
    with pytest.raises(BadInput, match="found none"):
        read_bytes(join(root, "nothing.bin"))


def test_an_unwritable_place_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BadInput):
        write_bytes(join(str(tmp_path / "file"), "below.bin"), b"content")


def test_uris_are_normalized_and_split() -> None:
    assert normalize("s3://bucket/a/") == "s3://bucket/a"
    assert split("s3://bucket/a/b.txt") == ("s3://bucket/a", "b.txt")
    with pytest.raises(BadInput, match=r"s3://"):
        normalize("gs://bucket/a")
