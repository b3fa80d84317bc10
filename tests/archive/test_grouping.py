"""Studies told apart by their headers, on real headers and on listings of any length."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path

import boto3
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from spinemet.archive import grouping
from spinemet.archive.grouping import NO_IDENTITY, Identity, identity_in, settle
from spinemet.archive.listing import list_studies, open_study
from spinemet.archive.store import LocalStore, Store
from spinemet.dicom.headers import read_series
from spinemet.errors import Reason, StudyFailed
from spinemet.types import ObjectRef, StudyRef
from tests.dicom.writer import write_series


def of(patient: str) -> Callable[[Dataset, int], None]:
    return lambda dataset, _: setattr(dataset, "PatientID", patient)


def write(folder: Path, patient: str, study: str, series: str, count: int = 3) -> None:
    write_series(folder, count=count, shape=(4, 4), study_uid=study, series_uid=series, edit=of(patient))


def found(uri: str | Path) -> dict[str, list[str]]:
    refs = list(list_studies(str(uri)))
    assert len({ref.key for ref in refs}) == len(refs)
    assert all(ref.settled for ref in refs)
    return {ref.key: sorted({item.key.rpartition("/")[0] for item in ref.objects}) for ref in refs}


def test_series_folders_of_one_study_are_one_study(tmp_path: Path) -> None:
    for series in ("1.7", "1.8"):
        write(tmp_path / "p" / series, "P", "1.2", series)
    write(tmp_path / "q" / "1.9", "Q", "1.3", "1.9")
    assert found(tmp_path) == {"#P/1.2": ["p/1.7", "p/1.8"], "#Q/1.3": ["q/1.9"]}


def test_a_flat_root_of_many_patients_is_told_apart(tmp_path: Path) -> None:
    for patient in ("A", "B", "C"):
        write(tmp_path / patient, patient, f"1.{ord(patient)}", "1.7")
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in sorted(tmp_path.glob("?/*.dcm")):
        # Names that mix the patients.
        path.rename(flat / f"{path.stem}-{path.parent.name}.dcm")
    (flat / "notes").write_text("not DICOM")
    refs = {ref.key: len(ref.objects) for ref in list_studies(str(flat))}
    assert refs == {"#A/1.65": 3, "#B/1.66": 3, "#C/1.67": 3, "": 1}


def test_the_same_study_uid_in_two_patients_is_two_studies(tmp_path: Path) -> None:
    for patient in ("A", "B"):
        write(tmp_path / patient, patient, "1.2", "1.7")
    assert set(found(tmp_path)) == {"#A/1.2", "#B/1.2"}


def test_one_study_in_several_prefixes_is_joined(tmp_path: Path) -> None:
    write(tmp_path / "disk1" / "a", "A", "1.2", "1.7")
    write(tmp_path / "disk1" / "b", "B", "1.3", "1.8")
    write(tmp_path / "disk2" / "rest", "A", "1.2", "1.9")
    assert found(tmp_path) == {"#A/1.2": ["disk1/a", "disk2/rest"], "#B/1.3": ["disk1/b"]}
    (ref,) = (ref for ref in list_studies(str(tmp_path)) if ref.key == "#A/1.2")
    with open_study(ref) as objects:
        assert [len(series.instances) for series in read_series(objects).series] == [3, 3]


def test_several_studies_under_one_deep_prefix_are_told_apart(tmp_path: Path) -> None:
    for study in ("1.2", "1.3"):
        for series in ("a", "b"):
            write(tmp_path / "site" / "p" / study / series, "P", study, f"{study}.{ord(series)}", count=2)
    below = "site/p"
    assert found(tmp_path) == {f"#P/{study}": [f"{below}/{study}/a", f"{below}/{study}/b"] for study in ("1.2", "1.3")}


def test_the_studies_of_a_patient_below_a_site_are_told_apart(tmp_path: Path) -> None:
    for study in ("1.2", "1.3"):
        write(tmp_path / "site" / "p" / study, "P", study, f"{study}.7", count=2)
    write(tmp_path / "site" / "q" / "1.4", "Q", "1.4", "1.9")
    for series in ("a", "b"):
        write(tmp_path / "site" / "r" / series, "R", "1.5", f"1.5.{ord(series)}", count=2)
    split = {f"#P/{study}": [f"site/p/{study}"] for study in ("1.2", "1.3")}
    assert found(tmp_path) == split | {"site/q": ["site/q/1.4"], "site/r": ["site/r/a", "site/r/b"]}


@pytest.mark.parametrize("below_a_site", [False, True])
def test_keys_are_trusted_after_enough_headers_confirm_them(below_a_site: bool) -> None:
    asked: set[str] = set()

    def head(key: str, _size: int) -> bytes:
        asked.add(key[:-2])
        patient, folder = int(key[2:6]), int(key[7])
        return fake_head(f"p{patient * 10 + folder * below_a_site:07}", 0)

    keys = [f"s/{patient:04}/{folder}/{n}" for patient in range(200) for folder in range(3) for n in range(4)]
    by_patient = groupby((ObjectRef(key, 10) for key in keys), key=lambda item: item.key[:6])
    refs = list(settle((StudyRef("/a", key, "prefix", tuple(items)) for key, items in by_patient), head))
    if below_a_site:
        assert [(ref.key[:3], len(ref.objects)) for ref in refs] == [("#/1", 4)] * 600
    else:
        assert [ref.key for ref in refs] == [f"s/{patient:04}" for patient in range(200)]
        assert grouping.TRIED * 3 <= len(asked) <= (grouping.TRIED + grouping.PREFIXES_AHEAD) * 3


@pytest.mark.parametrize("several", [False, True])
def test_a_prefix_that_comes_in_parts_is_divided_as_a_whole(several: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "PART_OBJECTS", 4)
    objects = [ObjectRef(f"s/p/{folder}/{n}", 10) for folder in range(3) for n in range(5)]
    parts = [StudyRef("/a", "s/p", "prefix", tuple(objects[n : n + 4])) for n in range(0, len(objects), 4)]
    refs = list(settle(parts, lambda key, _: fake_head(f"p{int(key[4]) * several:07}", 0)))
    assert [len(ref.objects) for ref in refs] == ([5, 5, 5] if several else [15])


def test_a_study_keeps_its_key_when_others_arrive_beside_it(tmp_path: Path) -> None:
    write(tmp_path / "p", "P", "1.2", "1.7")
    before = set(found(tmp_path))
    write(tmp_path / "p" / "more", "P", "1.3", "1.8")
    assert before < set(found(tmp_path))


def test_a_usual_archive_is_planned_without_a_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "p" / "study" / "series", "P", "1.2", "1.7")
    monkeypatch.setattr(LocalStore, "read", pytest.fail)
    assert found(tmp_path) == {"p/study": ["p/study/series"]}


def test_studies_on_s3_are_grouped_by_ranged_reads(tmp_path: Path, s3_bucket: str) -> None:
    write(tmp_path, "P", "1.2", "1.7", count=2)
    client = boto3.client("s3")
    for n, path in enumerate(sorted(tmp_path.iterdir())):
        # Larger than the first read, which is then a ranged one.
        content = path.read_bytes() + bytes(20_000)
        client.put_object(Bucket=s3_bucket.removeprefix("s3://"), Key=f"p/{n}/1.dcm", Body=content)
    assert found(s3_bucket) == {"#P/1.2": ["p/0", "p/1"]}


def test_a_prefix_whose_headers_cannot_be_reached_is_not_settled() -> None:
    def down(_key: str, _size: int) -> bytes:
        raise StudyFailed(Reason.UNREACHABLE, "expected a readable object, found a fault.")

    ref = StudyRef("/a", "p/s", "prefix", (ObjectRef("p/s/1", 10),))
    (given_back,) = settle([ref], down)
    assert (given_back.key, given_back.settled) == ("p/s", False)


def fake_listing(studies: int, each: int) -> Iterator[StudyRef]:
    for n in range(studies):
        objects = tuple(ObjectRef(f"p{n:07}/s/{k:04}", 500_000) for k in range(each))
        yield StudyRef("/a", f"p{n:07}/s", "prefix", objects)


def fake_head(key: str, _size: int) -> bytes:
    study = f"1.{int(key[1:8])}".encode()
    study += b"\0" * (len(study) % 2)
    return b"\x08\x00\x60\x00CS\x02\x00CT" + b"\x20\x00\x0d\x00UI" + len(study).to_bytes(2, "little") + study


def test_memory_does_not_grow_with_the_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "HELD_OBJECTS", 1_000)
    peaks = []
    for studies in (60, 240):
        tracemalloc.start()
        keys = {ref.key for ref in settle(fake_listing(studies, 100), fake_head)}
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(keys) == studies
    assert peaks[1] < 1.5 * peaks[0]


FOLDERS = st.lists(st.sampled_from("abc"), min_size=0, max_size=4).map("/".join)


@given(st.dictionaries(FOLDERS, st.tuples(st.integers(0, 3), st.integers(1, 7)), min_size=1, max_size=8))
def test_every_object_is_in_one_study_and_every_study_in_one_piece(folders: dict[str, tuple[int, int]]) -> None:
    """Folders with one study each (0: objects that are not DICOM), anywhere: the listing gives what headers say."""
    study_of = {f"{folder}/{n}".lstrip("/"): study for folder, (study, count) in folders.items() for n in range(count)}

    def head(key: str, _size: int) -> bytes:
        return fake_head(f"p{study_of[key]:07}", 0) if study_of[key] else b"not DICOM"

    listing = [ObjectRef(key, 10) for key in sorted(study_of)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "objects", lambda _: iter(listing))
        patch.setattr(LocalStore, "read", lambda _, key, size: head(key, size))
        refs = list(list_studies("/archive"))
    assert sorted(item.key for ref in refs for item in ref.objects) == sorted(study_of)
    assert len({ref.key for ref in refs}) == len(refs)
    for ref in refs:
        assert len({study_of[item.key] for item in ref.objects} - {0}) <= 1 or not ref.key.startswith("#")
    asked = [ref for ref in refs if ref.key.startswith("#")]
    studies = [({study_of[item.key] for item in ref.objects} - {0}).pop() for ref in asked]
    assert len(studies) == len(set(studies))


def test_parts_that_lie_too_far_apart_never_share_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "HELD_OBJECTS", 10)
    refs = list(settle([*fake_listing(4, 8), *fake_listing(1, 8)], fake_head))
    assert len({ref.key for ref in refs}) == len(refs) == 5


def test_an_identity_is_whole_or_unknown_wherever_the_head_ends(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    write(tmp_path, "P", "1.2", "1.7", count=1)
    content = next(tmp_path.iterdir()).read_bytes()
    assert identity_in(content) == ("P", "1.2")
    recwarn.clear()
    for size in range(len(content)):
        assert identity_in(content[:size]) in ({("P", "1.2"), None} if size >= 132 else {NO_IDENTITY})
    assert not recwarn.list


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_have_an_identity_or_none(content: bytes, marked: bool) -> None:
    identity: Identity | None = identity_in((b"\0" * 128 + b"DICM" if marked else b"") + content)
    assert identity is None or len(identity) == 2


@pytest.mark.parametrize(
    "syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"]
)
def test_identities_are_read_in_every_encoding(realct: Path, syntax: str) -> None:
    folder = realct / "conformance" / "transfer-syntaxes"
    (path,) = (path for path in folder.iterdir() if path.name.endswith(f"_{syntax}.dcm"))
    dataset = pydicom.dcmread(path, stop_before_pixels=True)
    assert identity_in(path.read_bytes()) == (dataset.PatientID, dataset.StudyInstanceUID)
