"""Listing and reading a store in which something is odd, locked, gone or misnamed: the rest is listed all the same."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spinemet.archive import store as module
from spinemet.archive.listing import describe, list_studies, open_study, study_at
from spinemet.archive.store import LocalStore, Unlisted
from spinemet.dicom.headers import read_series
from spinemet.errors import BadInput, Reason, StudyFailed
from spinemet.types import ObjectRef
from tests.archive.conftest import Put
from tests.dicom.writer import write_series

ODD_KEYS = [
    "p//s/1", "//p/s/1", "p/s//1", "p/./s/1", "./p/s/1", "p/../s/1", "../s/1", "p/s/..", "p/s\x07/1", "p/s/\x7f",
    "/p/s/1", "p/s/1 %2F+#?",
]  # fmt: skip


def keys(uri: str | Path, unlisted: Counter[Unlisted] | None = None) -> dict[str, list[str]]:
    return {ref.key: [item.key for item in ref.objects] for ref in list_studies(str(uri), unlisted)}


@pytest.fixture
def archive() -> Iterator[Path]:
    """An archive of two studies, read by a user without special rights."""
    root = Path(tempfile.mkdtemp())
    root.chmod(0o755)
    for study in ("p/s", "q/t"):
        write_series(root / study / "a", count=3, shape=(4, 4), study_uid=f"1.{ord(study[0])}")
        write_series(root / study / "b", count=3, shape=(4, 4), study_uid=f"1.{ord(study[0])}")
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    yield root
    if is_root:
        os.seteuid(0)
    for folder, _, _ in os.walk(root):
        Path(folder).chmod(0o755)
    shutil.rmtree(root)


def lock(path: Path, mode: int = 0) -> None:
    """Take rights away, as the owner."""
    with as_owner():
        path.chmod(mode)


@contextmanager
def as_owner() -> Iterator[None]:
    """As the user who owns the archive of the fixture."""
    user = os.geteuid()
    os.seteuid(os.getuid())
    yield
    os.seteuid(user)


# ---- S3 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("odd", ODD_KEYS)
@pytest.mark.parametrize("below", ["", "ct/"])
def test_an_odd_key_is_listed_and_read_like_any_other(odd: str, below: str, s3_bucket: str) -> None:
    client, bucket = boto3.client("s3"), s3_bucket.removeprefix("s3://")
    contents = {odd: b"odd", "a/s/1": b"1", "z/s/2": b"2", "z/t/3": b"3"}
    for key, content in contents.items():
        client.put_object(Bucket=bucket, Key=below + key, Body=content)
    store = module.open_store(f"{s3_bucket}/{below}".rstrip("/"))
    listed = list(store.objects())
    assert [item.key for item in listed] == sorted(contents)
    assert {item.key: store.read(item.key) for item in listed} == contents
    assert {item.key: store.read(item.key, 1) for item in listed} == {key: text[:1] for key, text in contents.items()}
    assert store.open(odd).read() == b"odd"
    assert not store.unlisted


@pytest.mark.parametrize("odd", ["PAT1//study1/", "PAT1/./study1/", "/PAT1/study1/", "PAT1/\x01/"])
def test_a_study_below_odd_keys_is_read(odd: str, s3_bucket: str, tmp_path: Path) -> None:
    client, bucket = boto3.client("s3"), s3_bucket.removeprefix("s3://")
    for path in write_series(tmp_path, count=3, shape=(4, 4)):
        client.put_object(Bucket=bucket, Key=odd + path.name, Body=path.read_bytes())
    client.put_object(Bucket=bucket, Key="ZZ/good/series/1", Body=b"x")
    odd_study, _ = sorted(list_studies(s3_bucket), key=lambda ref: ref.key)
    with open_study(odd_study) as objects:
        assert [len(series.instances) for series in read_series(objects).series] == [3]


def test_a_listing_of_many_pages_goes_on_after_an_odd_key(s3_bucket: str) -> None:
    client, bucket = boto3.client("s3"), s3_bucket.removeprefix("s3://")
    contents = [f"p{n // 500}/s/{n:04}" for n in range(2300)] + ["p2/s//odd"]
    for key in contents:
        client.put_object(Bucket=bucket, Key=key, Body=b"x")
    assert [item.key for item in module.open_store(s3_bucket).objects()] == sorted(contents)


def test_an_odd_object_that_vanished_is_unreachable(s3_bucket: str) -> None:
    for key in ("p//s/1", "p/s/1"):
        with pytest.raises(StudyFailed) as caught:
            module.open_store(s3_bucket).read(key)
        assert caught.value.reason is Reason.UNREACHABLE
        assert isinstance(caught.value, module.ObjectLost)


def test_folder_markers_are_no_objects_whatever_lies_between(s3_bucket: str) -> None:
    client, bucket = boto3.client("s3"), s3_bucket.removeprefix("s3://")
    for key in ("p/", "p/s/", "p/s-old/1", "p/s/1", "q/t/1", "q/empty", "r/", "s/1//", "s/1/x"):
        client.put_object(Bucket=bucket, Key=key, Body=b"x" * key[-1].isalnum() * (key != "q/empty"))
    assert keys(s3_bucket) == {
        "p/s-old": ["p/s-old/1"], "p/s": ["p/s/1"], "q/t": ["q/t/1"], "q": ["q/empty"], "s/1": ["s/1/x"],
    }  # fmt: skip


@given(st.sets(st.lists(st.sampled_from(["a", "a-", "a.", "b"]), min_size=1, max_size=3).map("/".join), min_size=1))
def test_markers_alone_are_left_out(names: set[str]) -> None:
    """Every name that another lies below is an empty object, the others are not."""
    above = {name for name in names if any(other.startswith(f"{name}/") for other in names)}
    listed = [ObjectRef(name, 0 if name in above else 1) for name in sorted(names)]
    assert sorted(item.key for item in module._without_markers(listed)) == sorted(names - above)
    everything_empty = [ObjectRef(name, 0) for name in sorted(names)]
    assert sorted(item.key for item in module._without_markers(everything_empty)) == sorted(names - above)


# ---- folders ---------------------------------------------------------------------------------------------------


def test_a_locked_folder_beside_the_patients_is_counted(archive: Path) -> None:
    with as_owner():
        (archive / "lost+found").mkdir(mode=0)
    unlisted: Counter[Unlisted] = Counter()
    assert set(keys(archive, unlisted)) == {"p/s", "q/t"}
    assert unlisted == {Unlisted.FOLDER: 1}
    assert describe(unlisted) == "folders without access: 1"


@pytest.mark.parametrize("place", ["p/s", "p/s/a"])
def test_a_locked_folder_of_a_study_fails_that_study_alone(place: str, archive: Path) -> None:
    lock(archive / place)
    unlisted: Counter[Unlisted] = Counter()
    refs = {ref.key: ref for ref in list_studies(str(archive), unlisted)}
    assert set(refs) == {"p/s", "q/t"}
    assert unlisted == {Unlisted.FOLDER: 1}
    assert outcome(refs["p/s"]) is Reason.UNREACHABLE
    assert outcome(refs["q/t"]) is None


def test_a_folder_whose_files_cannot_be_looked_at_fails_its_study_alone(archive: Path) -> None:
    lock(archive / "p" / "s" / "a", 0o444)  # names can be read, nothing else
    unlisted: Counter[Unlisted] = Counter()
    refs = {ref.key: ref for ref in list_studies(str(archive), unlisted)}
    assert unlisted == {Unlisted.FILE: 3}
    assert (outcome(refs["p/s"]), outcome(refs["q/t"])) == (Reason.UNREACHABLE, None)


def test_a_locked_file_among_many_patients_fails_alone(archive: Path) -> None:
    """In one flat folder headers tell patients apart; an object that cannot be read must not stop that."""
    flat = archive / "flat"
    with as_owner():
        flat.mkdir()
        for n, path in enumerate(sorted(archive.glob("?/?/a/*.dcm"))):
            shutil.copy(path, flat / f"{n}.dcm")
        (flat / "locked.dcm").write_bytes(b"x")
    lock(flat / "locked.dcm")
    refs = {ref.key: ref for ref in list_studies(str(flat))}
    assert {key: len(ref.objects) for key, ref in refs.items()} == {"#P1/1.112": 3, "#P1/1.113": 3, "": 1}
    assert all(ref.settled for ref in refs.values())
    assert outcome(refs[""]) is Reason.UNREACHABLE


def outcome(ref: object) -> Reason | None:
    try:
        with open_study(ref) as objects:  # type: ignore[arg-type]
            read_series(objects)
    except StudyFailed as problem:
        return problem.reason
    return None


def test_an_archive_that_is_locked_is_bad_input(archive: Path) -> None:
    with as_owner():
        (archive / "locked").mkdir(mode=0)
        (archive / "other" / "inner").mkdir(parents=True)
    with pytest.raises(BadInput, match="cannot be listed"):
        keys(archive / "locked")
    lock(archive / "other" / "inner")
    with pytest.raises(BadInput, match="folders without access: 1"):
        keys(archive / "other")


@pytest.mark.parametrize("error", [FileNotFoundError, NotADirectoryError, OSError])
def test_a_folder_that_vanishes_during_the_listing_is_counted(
    error: type[OSError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("p/s/1", "q/s/1", "r/s/1"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"x")
    scandir = os.scandir

    def scan(path: Path) -> object:
        if Path(path).name == "q":
            raise error("gone")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)
    unlisted: Counter[Unlisted] = Counter()
    assert set(keys(tmp_path, unlisted)) == {"p/s", "r/s"}
    assert unlisted == {Unlisted.FOLDER if error is OSError else Unlisted.VANISHED: 1}


def test_a_folder_that_is_emptied_while_it_is_walked_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("p/s/1", "p/s/2", "q/s/1"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    listed = LocalStore(str(tmp_path)).objects()
    assert next(listed).key == "p/s/1"
    shutil.rmtree(tmp_path / "p")
    assert [item.key for item in listed] == ["q/s/1"]


def test_names_that_are_not_unicode_are_counted(tmp_path: Path) -> None:
    (tmp_path / "p" / "s").mkdir(parents=True)
    (tmp_path / "p" / "s" / "Müller\n患者").write_bytes(b"x")
    for name in (b"p/s/\xff", b"p/\xe4s"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).mkdir()
    unlisted: Counter[Unlisted] = Counter()
    assert keys(tmp_path, unlisted) == {"p/s": ["p/s/Müller\n患者"]}
    assert unlisted == {Unlisted.NAME: 2}


def test_files_dated_before_1970_are_listed(tmp_path: Path) -> None:
    (tmp_path / "p" / "s").mkdir(parents=True)
    (tmp_path / "p" / "s" / "1").write_bytes(b"x")
    os.utime(tmp_path / "p" / "s" / "1", (-86400.0, -86400.0))
    (ref,) = list_studies(str(tmp_path))
    assert ref.last_modified == -86400.0


def test_sockets_and_broken_links_are_no_objects(put: Put, tmp_path: Path) -> None:
    uri = put({"p/s/1": b"x"})
    if not uri.startswith("s3://"):
        (Path(uri) / "p" / "s" / "2").symlink_to("nowhere")
        (Path(uri) / "p" / "s" / "3").symlink_to("3")
        os.mkfifo(Path(uri) / "p" / "s" / "4")
    assert keys(uri) == {"p/s": ["p/s/1"]}
    assert [item.key for item in study_at(f"{uri}/p/s").objects] == ["1"]
