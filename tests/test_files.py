from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import pytest
from pydantic import BaseModel

from spinemet import files
from spinemet.errors import BadInput
from spinemet.files import check_folder, claim, exists, join, normalize, open_store, read_bytes, split, write_bytes


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


class _Size(BaseModel):
    wide: int
    parts: list[str] = []


class _Request(BaseModel):
    name: str
    size: _Size


@pytest.mark.parametrize("place", ["local", "s3"])
def test_a_folder_belongs_to_one_request(place: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    folder = str(tmp_path) if place == "local" else request.getfixturevalue("s3_bucket")
    note, asked = join(folder, "request.json"), _Request(name="a", size=_Size(wide=2))
    claim(note, asked)
    claim(note, asked)
    assert _Request.model_validate_json(read_bytes(note)) == asked
    with pytest.raises(BadInput, match=f"{folder} belongs to another request: name is a, not b; use another folder"):
        claim(note, _Request(name="b", size=_Size(wide=2)))
    with pytest.raises(BadInput, match=r"request: another size\.parts, size\.wide is 2, not 3; use"):
        claim(note, _Request(name="a", size=_Size(wide=3, parts=["c"])))
    assert _Request.model_validate_json(read_bytes(note)) == asked


def test_a_folder_with_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "request.json").write_text('{"wide": "yes"}')
    with pytest.raises(BadInput, match="holds no _Size of this version; use another folder"):
        claim(str(tmp_path / "request.json"), _Size(wide=1))
    assert (tmp_path / "request.json").read_text() == '{"wide": "yes"}'


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("")
    for place in (tmp_path / "report.html", tmp_path / "report.html" / "crops"):
        for use in (check_folder, partial(open_store, create=True)):
            with pytest.raises(BadInput, match=rf"expected a folder at {place}, but {tmp_path}/report.html is a file"):
                use(str(place))
    check_folder(str(tmp_path / "new"))
    check_folder("s3://bucket/report.html")


def test_a_local_disk_without_room_is_an_error_of_the_store(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    files.check_room(str(tmp_path), free // 2)
    files.check_room("s3://bucket/results", 10 * free)
    with pytest.raises(OSError, match="No space left on device") as caught:
        files.check_room(str(tmp_path), 2 * free)
    assert files.cause(caught.value) == "No space left on device"
