"""Which studies an archive holds, and how they are read, from a folder and from S3 over HTTP."""

from __future__ import annotations

import io
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import boto3
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spinemet.archive.layouts import folder, packed
from spinemet.archive.listing import list_studies, open_study, study_at
from spinemet.dicom.headers import read_series
from spinemet.errors import BadInput, Reason, StudyFailed
from tests.archive.conftest import Put


def found(uri: str) -> dict[str, tuple[str, list[str]]]:
    return {ref.key: (str(ref.layout), [item.key for item in ref.objects]) for ref in list_studies(uri)}


def test_patients_studies_and_single_files(put: Put) -> None:
    uri = put(
        {
            "labels.csv": b"x",
            "README.md": b"x",
            "p1/report.txt": b"x",
            "p1/s1/a/1": b"1",
            "p1/s1/b/1": b"2",
            "p1/s1-again/1": b"3",
            "p1/s1/DICOMDIR": b"4",
            "p1/s1/.DS_Store": b"5",
            "p2/s1.zip": b"6",
            "p2/s2.tar.gz": b"7",
            "s3/1.dcm": b"8",
            "s3/2.dcm": b"9",
        }
    )
    assert found(uri) == {
        "p1/s1-again": ("prefix", ["p1/s1-again/1"]),
        "p1/s1": ("prefix", ["p1/s1/a/1", "p1/s1/b/1"]),
        "p2/s1.zip": ("zip", ["p2/s1.zip"]),
        "p2/s2.tar.gz": ("tar", ["p2/s2.tar.gz"]),
        "s3": ("prefix", ["s3/1.dcm", "s3/2.dcm"]),
    }


def test_objects_in_the_root_are_one_study(put: Put) -> None:
    uri = put({"1.dcm": b"1", "2": b"2"})
    assert found(uri) == {"": ("prefix", ["1.dcm", "2"])}


def test_loose_objects_of_a_patient_are_one_study_whatever_lies_between_them(put: Put) -> None:
    uri = put({"p/a.dcm": b"1", "p/s/1.dcm": b"2", "p/z.dcm": b"3"})
    assert found(uri) == {"p/s": ("prefix", ["p/s/1.dcm"]), "p": ("prefix", ["p/a.dcm", "p/z.dcm"])}


def test_verse_masks_go_with_their_volumes(put: Put) -> None:
    uri = put(
        {
            "derivatives/sub-1/sub-1_dir-ax_seg-vert_msk.nii.gz": b"m",
            "derivatives/sub-1/sub-1_dir-ax_seg-subreg_ctd.json": b"j",
            "rawdata/sub-1/sub-1_dir-ax_ct.nii.gz": b"c",
            "rawdata/sub-2/sub-2_ct.nii.gz": b"c",
        }
    )
    one = "rawdata/sub-1/sub-1_dir-ax_ct.nii.gz"
    mask = "derivatives/sub-1/sub-1_dir-ax_seg-vert_msk.nii.gz"
    two = "rawdata/sub-2/sub-2_ct.nii.gz"
    assert found(uri) == {one: ("nifti", [one, mask]), two: ("nifti", [two])}
    by_path = study_at(f"{uri}/{one}")
    with open_study(by_path) as objects:
        assert [objects.read(item.key) for item in by_path.objects] == [b"c", b"m"]


def test_label_maps_alone_are_no_study(put: Put) -> None:
    uri = put({"s/ct.nii.gz": b"c", "s/totalseg.nii.gz": b"l", "t/volume.nii": b"c", "t/volume_seg.nii": b"l"})
    assert list(found(uri)) == ["s/ct.nii.gz", "t/volume.nii"]


def test_a_place_without_a_study_is_bad_input(put: Put, tmp_path: Path) -> None:
    uri = put({".hidden": b"x"})
    for place in (uri, f"{uri}/absent"):
        with pytest.raises(BadInput):
            list(list_studies(place))
        with pytest.raises(BadInput):
            study_at(place)
    with pytest.raises(BadInput):
        study_at(f"{uri}/absent.zip")
    (tmp_path / "two").mkdir()
    for name in ("a.zip", "b.zip"):
        (tmp_path / "two" / name).write_bytes(b"")
    with pytest.raises(BadInput, match="there are 2"):
        study_at(tmp_path / "two")


def test_a_missing_bucket_is_bad_input(s3_server: str) -> None:
    with pytest.raises(BadInput):
        list(list_studies("s3://no-such-bucket/x"))


def test_folder_markers_of_s3_consoles_are_no_objects(s3_bucket: str) -> None:
    client = boto3.client("s3")
    for key, content in (("p/", b""), ("p/s/", b""), ("p/s/1", b"x")):
        client.put_object(Bucket=s3_bucket.removeprefix("s3://"), Key=key, Body=content)
    assert found(s3_bucket) == {"p/s": ("prefix", ["p/s/1"])}


def test_links_are_followed_but_not_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "real" / "s").mkdir(parents=True)
    (tmp_path / "real" / "s" / "1").write_bytes(b"x")
    (tmp_path / "real" / "s" / "loop").symlink_to(tmp_path / "real")
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "p").symlink_to(tmp_path / "real")
    assert found(str(tmp_path / "archive")) == {"p/s": ("prefix", ["p/s/1"])}


CONTENTS = {f"series/{n:03}.dcm": bytes([n]) * (1000 + n) for n in range(80)}


def pack_zip(contents: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def pack_tar(contents: dict[str, bytes], mode: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def pack_zstd(contents: dict[str, bytes]) -> bytes:
    return pa.Codec("zstd").compress(pack_tar(contents, "w"), asbytes=True)  # type: ignore[no-any-return]


def test_folders_zips_and_tars_give_the_same_objects(put: Put) -> None:
    ignored = {"series/.hidden": b"x", "DICOMDIR": b"x", "__MACOSX/1": b"x"}
    everything = CONTENTS | ignored
    uri = put(
        {f"p/folder/{name}": content for name, content in everything.items()}
        | {
            "p/a.zip": pack_zip(everything),
            "p/b.tar": pack_tar(everything, "w"),
            "p/c.tar.gz": pack_tar(everything, "w:gz"),
            "p/d.tgz": pack_tar(everything, "w:gz"),
            "p/e.tar.xz": pack_tar(everything, "w:xz"),
            "p/f.tar.zst": pack_zstd(everything),
        }
    )
    refs = list(list_studies(uri))
    assert len(refs) == 7
    for ref in refs:
        before = "p/folder/" if ref.layout == "prefix" else ""
        with open_study(ref) as objects:
            names = objects.names()
            assert names == [before + name for name in CONTENTS]
            assert dict(objects.read_many(names[::-1])) == {before + name: c for name, c in CONTENTS.items()}
            heads = dict(objects.heads(names, 1010))
            assert [len(heads[name]) for name in names] == [min(1010, 1000 + n) for n in range(80)]
            assert objects.size(names[5]) == 1005
            assert objects.head(names[5], 5000) == CONTENTS["series/005.dcm"]


@pytest.mark.parametrize("prefix", ["./", "ct//", "./ct/./", ".\\ct\\", "././"])
def test_members_are_named_alike_in_every_container(prefix: str, tmp_path: Path) -> None:
    contents = {f"{prefix}1.dcm": b"1", f"{prefix}sub/2.dcm": b"2", f"{prefix}.hidden": b"3", f"{prefix}DICOMDIR": b"4"}
    (tmp_path / "a.zip").write_bytes(pack_zip(contents))
    (tmp_path / "a.tar").write_bytes(pack_tar(contents, "w"))
    folder = "ct/" if "ct" in prefix else ""
    for name in ("a.zip", "a.tar"):
        with open_study(study_at(tmp_path / name)) as objects:
            assert dict(objects.read_many(objects.names())) == {f"{folder}1.dcm": b"1", f"{folder}sub/2.dcm": b"2"}


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.xz", "a.tar.zst"])
def test_broken_archives_say_so(tmp_path: Path, name: str) -> None:
    packers = {"zip": pack_zip, "tar": lambda c: pack_tar(c, "w"), "gz": lambda c: pack_tar(c, "w:gz")}
    packers |= {"xz": lambda c: pack_tar(c, "w:xz"), "zst": pack_zstd}
    whole = packers[name.rsplit(".", 1)[-1]](CONTENTS)
    # A plain tar cut between two members, or a compressed one cut near its end, looks whole except for its end.
    near_end = 20 * (512 + 1024) if name == "a.tar" else len(whole) - 40
    for content in (b"not an archive", whole[: len(whole) // 2], whole[:near_end]):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(StudyFailed) as caught, open_study(study_at(tmp_path / name)) as objects:
            dict(objects.read_many(objects.names()))
        assert caught.value.reason is Reason.BROKEN_ARCHIVE


def test_an_archive_bomb_is_refused_before_it_unpacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "UNPACKED_LIMIT", 50_000)
    (tmp_path / "a.zip").write_bytes(pack_zip(CONTENTS))
    (tmp_path / "a.tar").write_bytes(pack_tar(CONTENTS, "w"))
    for name in ("a.zip", "a.tar"):
        with pytest.raises(StudyFailed) as caught:
            open_study(study_at(tmp_path / name))
        assert caught.value.reason is Reason.MEMORY_LIMIT


def refused(path: Path) -> Reason:
    with pytest.raises(StudyFailed) as caught:
        open_study(study_at(path))
    return caught.value.reason


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/../../b", "/etc/passwd", "..\\b", "C:\\b", "a/.."])
def test_names_that_lead_out_of_an_archive_are_refused(tmp_path: Path, name: str) -> None:
    for suffix, content in (("zip", pack_zip({name: b"x"})), ("tar", pack_tar({name: b"x"}, "w"))):
        (tmp_path / f"a.{suffix}").write_bytes(content)
        assert refused(tmp_path / f"a.{suffix}") is Reason.UNSAFE_ARCHIVE


def test_too_many_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "MEMBERS_LIMIT", 70)
    (tmp_path / "a.zip").write_bytes(pack_zip(CONTENTS))
    (tmp_path / "a.tar").write_bytes(pack_tar(CONTENTS, "w"))
    assert refused(tmp_path / "a.zip") is refused(tmp_path / "a.tar") is Reason.UNSAFE_ARCHIVE
    # A directory that is too large is refused before it is parsed, whatever it declares.
    monkeypatch.setattr(packed, "MEMBERS_LIMIT", 100)
    monkeypatch.setattr(packed, "DIRECTORY_LIMIT", 1000)
    monkeypatch.setattr(zipfile, "ZipFile", lambda _: pytest.fail("parsed"))
    assert refused(tmp_path / "a.zip") is Reason.UNSAFE_ARCHIVE


def test_bombs_cost_no_memory(tmp_path: Path) -> None:
    zeros = bytes(80 << 20)
    (tmp_path / "a.zip").write_bytes(pack_zip({"1": zeros}))
    (tmp_path / "a.tar.gz").write_bytes(pack_tar({"1": zeros}, "w:gz"))
    long_name = io.BytesIO()
    with tarfile.open(fileobj=long_name, mode="w:gz") as archive:
        info = tarfile.TarInfo("1")
        info.pax_headers = {"comment": "0" * (80 << 20)}
        archive.addfile(info)
    (tmp_path / "b.tar.gz").write_bytes(long_name.getvalue())
    del zeros, long_name
    tracemalloc.start()
    reasons = {refused(tmp_path / name) for name in ("a.zip", "a.tar.gz", "b.tar.gz")}
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert reasons == {Reason.UNSAFE_ARCHIVE}
    assert peak < 200 << 20


def test_an_archive_inside_an_archive_stays_closed(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(pack_zip({"inner.zip": pack_zip(CONTENTS)}))
    with open_study(study_at(tmp_path / "a.zip")) as objects:
        assert objects.names() == ["inner.zip"]
        with pytest.raises(StudyFailed) as caught:
            read_series(objects)
    assert caught.value.reason is Reason.NOT_DICOM


def test_an_object_larger_than_any_image_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "MEMBER_LIMIT", 1000)
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "1").write_bytes(bytes(2000))
    with open_study(study_at(tmp_path / "s")) as objects:
        assert len(objects.head("1", 132)) == 132
        with pytest.raises(StudyFailed) as caught:
            objects.read("1")
    assert caught.value.reason is Reason.MEMORY_LIMIT


def test_an_object_that_vanished_is_unreachable(put: Put, tmp_path: Path) -> None:
    uri = put({"p/s/name-of-patient": b"x", "p/s/2": b"y"})
    (ref,) = list_studies(uri)
    if uri.startswith("s3://"):
        boto3.client("s3").delete_object(Bucket=uri.split("/")[2], Key="ct/p/s/name-of-patient")
    else:
        (tmp_path / "archive/p/s/name-of-patient").unlink()
    with open_study(ref) as objects, pytest.raises(StudyFailed) as caught:
        dict(objects.read_many(objects.names()))
    assert caught.value.reason is Reason.UNREACHABLE
    assert "name-of-patient" not in str(caught.value)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sets(st.lists(st.sampled_from(["a", "a-b", "a.b", "b", "ab"]), min_size=1, max_size=4).map(tuple), min_size=1)
)
def test_each_object_belongs_to_exactly_one_study(
    tmp_path_factory: pytest.TempPathFactory, paths: set[tuple[str, ...]]
) -> None:
    root = tmp_path_factory.mktemp("archive")
    kept = {path for path in paths if not any(other[: len(path)] == path and other != path for other in paths)}
    for path in kept:
        (root.joinpath(*path)).parent.mkdir(parents=True, exist_ok=True)
        (root.joinpath(*path)).write_bytes(b"x")
    refs = list(list_studies(str(root)))
    keys = [item.key for ref in refs for item in ref.objects]
    assert sorted(keys) == sorted("/".join(path) for path in kept)
    assert len({ref.key for ref in refs}) == len(refs)
    assert all(item.key.startswith(ref.key) for ref in refs for item in ref.objects)


def test_a_folder_with_documents_only_is_no_study(tmp_path: Path) -> None:
    for name in ("README.md", "p1/README.md", "p1/s1/1.dcm", "p2/letter/report.pdf", "p3/s1/notes.txt", "p3/s1/1.dcm"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert [ref.key for ref in list_studies(str(tmp_path))] == ["p1/s1", "p3/s1"]
    with pytest.raises(BadInput, match="no study was found"):
        list(list_studies(str(tmp_path / "p2")))
    with pytest.raises(BadInput, match=r"one study is expected at .*/p2, but there is none"):
        study_at(tmp_path / "p2")


@pytest.mark.parametrize(("beside", "count"), [("other.zip", 2), ("other.tar", 2), ("copy.nii.gz", 1), ("a.txt", 1)])
def test_a_zip_beside_dicom_objects_is_another_study(tmp_path: Path, beside: str, count: int) -> None:
    (tmp_path / "s1").mkdir()
    (tmp_path / "s1" / "1.dcm").write_bytes(b"x")
    (tmp_path / beside).write_bytes(b"x")
    if count == 1:
        assert study_at(tmp_path).layout == "prefix"
        return
    with pytest.raises(BadInput, match="but there are 2"):
        study_at(tmp_path)
