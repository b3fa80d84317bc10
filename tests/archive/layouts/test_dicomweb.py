"""DICOMweb as static files, written from CT slices in the forms that OHIF's and other writers store."""

from __future__ import annotations

import copy
import gzip
import io
import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import JPEGLSLossless

from spinemet.archive.layouts.dicom_json import beginning, instance_of
from spinemet.archive.layouts.dicomweb import DicomwebLayout
from spinemet.archive.listing import list_studies, open_study, study_at
from spinemet.dicom.headers import HEAD_BYTES, read_series
from spinemet.errors import Reason, StudyExcluded, StudyFailed
from spinemet.types import Volume
from tests.archive.conftest import Put
from tests.archive.layouts.dicomweb_forms import (
    BELOW,
    FORMS,
    ROOT,
    SERIES,
    STUDY,
    Json,
    bulk,
    by_instance,
    by_series,
    frames,
    instance,
    metadata,
    multipart,
    text,
    volume_of,
)
from tests.dicom.writer import write_enhanced, write_series


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> list[Dataset]:
    folder = tmp_path_factory.mktemp("series")
    return [pydicom.dcmread(path) for path in write_series(folder, count=6, series_uid=SERIES)]


def expected(slices: list[Dataset], tmp_path: Path) -> Volume:
    (tmp_path / "part10").mkdir()
    for n, dataset in enumerate(slices):
        dataset.save_as(tmp_path / "part10" / str(n))
    return volume_of(study_at(tmp_path / "part10"))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("above", ["", "site/dicomweb/"])
def test_each_form_gives_the_volume_of_the_objects(
    form: Callable[[list[Dataset]], Mapping[str, bytes]], above: str, slices: list[Dataset], put: Put, tmp_path: Path
) -> None:
    uri = put({above + key: content for key, content in form(slices).items()})
    (ref,) = list_studies(uri)
    assert (ref.layout, ref.key) == ("dicomweb", above + ROOT)
    assert not any(word in item.key for item in ref.objects for word in ("index.json.gz", "thumbnail"))
    volume, whole = volume_of(ref), expected(slices, tmp_path)
    assert np.array_equal(volume.hu_DHW, whole.hu_DHW)
    assert np.array_equal(volume.affine, whole.affine)
    by_path = study_at(f"{uri}/{above}{ROOT}")
    assert by_path.objects == tuple(type(item)(item.key.removeprefix(above), item.size) for item in ref.objects)
    assert np.array_equal(volume_of(by_path).hu_DHW, whole.hu_DHW)


def test_headers_say_what_the_objects_say(slices: list[Dataset], put: Put, tmp_path: Path) -> None:
    (ref,) = list_studies(put(by_series(slices)))
    with open_study(ref) as objects:
        (series,) = read_series(objects).series
    expected(slices, tmp_path)
    with open_study(study_at(tmp_path / "part10")) as objects:
        (whole,) = read_series(objects).series
    for name in (
        "PatientID",
        "PatientSex",
        "age_years",
        "StudyInstanceUID",
        "StudyDate",
        "ConvolutionKernel",
        "Modality",
    ):
        assert getattr(series, name) == getattr(whole, name)
    by_uid = {item.SOPInstanceUID: item for item in whole.instances}
    for item in series.instances:
        other = by_uid[item.SOPInstanceUID]
        for name in ("ImagePositionPatient", "PixelSpacing", "ImageType", "stored", "TransferSyntaxUID", "SOPClassUID"):
            assert getattr(item, name) == getattr(other, name), name


@pytest.mark.parametrize("form", FORMS)
def test_a_head_is_the_beginning_of_the_object(
    form: Callable[[list[Dataset]], Mapping[str, bytes]], slices: list[Dataset], put: Put
) -> None:
    (ref,) = list_studies(put(form(slices)))
    with open_study(ref) as objects:
        assert len(objects.names()) == len(slices)
        for name, head in objects.heads(objects.names(), HEAD_BYTES):
            whole = objects.read(name)
            assert whole.startswith(head)
            assert head.endswith(struct.pack("<HH2sxxI", 0x7FE0, 0x10, b"OW", 24 * 32 * 2))
            assert objects.head(name, 200) == whole[:200]


@pytest.mark.parametrize("kind", ["image/jls", "image/jls; transfer-syntax=1.2.840.10008.1.2.4.80", None])
def test_compressed_frames(kind: str | None, slices: list[Dataset], put: Put, tmp_path: Path) -> None:
    def form(frame: bytes) -> bytes:
        dataset = copy.deepcopy(slices[0])
        dataset.PixelData = frame
        dataset.compress(JPEGLSLossless, generate_instance_uid=False)
        (code,) = pydicom.encaps.generate_frames(dataset.PixelData)
        return multipart(code, kind) if kind else code

    # A server may have compressed what the metadata calls uncompressed: the frame has the last word.
    syntax = text("00083002", "1.2.840.10008.1.2.1" if kind else JPEGLSLossless)
    listed = {f"{BELOW}/metadata": json.dumps([metadata(one, **syntax) for one in slices]).encode()}
    volume = volume_of(*list_studies(put(listed | frames(slices, form))))
    assert np.array_equal(volume.hu_DHW, expected(slices, tmp_path).hu_DHW)


def test_an_object_of_many_frames(slices: list[Dataset], put: Put, tmp_path: Path) -> None:
    whole = expected(slices, tmp_path)
    enhanced = pydicom.dcmread(write_enhanced(tmp_path / "enhanced", sorted((tmp_path / "part10").iterdir())))
    place = f"{ROOT}/series/{enhanced.SeriesInstanceUID}/instances/{enhanced.SOPInstanceUID}"
    size = len(enhanced.PixelData) // len(slices)
    files = {f"{place}/metadata": json.dumps([metadata(enhanced)]).encode()}
    for n in range(len(slices)):  # ten would stand before two in the order of the keys
        files[f"{place}/frames/{n + 1 if n < 2 else n + 8}"] = enhanced.PixelData[n * size : (n + 1) * size]
    volume = volume_of(*list_studies(put(files)))
    assert np.array_equal(volume.hu_DHW, whole.hu_DHW)


def test_pixels_within_the_metadata(slices: list[Dataset], put: Put, tmp_path: Path) -> None:
    found = [json.loads(dataset.to_json()) for dataset in slices]
    volume = volume_of(*list_studies(put({f"{BELOW}/metadata": json.dumps(found).encode()})))
    assert np.array_equal(volume.hu_DHW, expected(slices, tmp_path).hu_DHW)


def test_studies_are_told_apart_and_other_objects_stay_in_folders(slices: list[Dataset], put: Put) -> None:
    other = {key.replace(STUDY, "1.9.9"): content for key, content in by_series(slices).items()}
    part10 = io.BytesIO()
    slices[0].save_as(part10)
    loose = {
        "studies/2.1/series/2.2/instances/2.3.dcm": part10.getvalue(),
        "studies/2.1/series/2.2/instances/2.4/2.dcm": part10.getvalue(),
        "1.2.3/1.dcm": part10.getvalue(),
        "1.2.3/metadata.json": b"[]",
    }
    refs = {ref.key: ref for ref in list_studies(put(by_series(slices) | other | loose))}
    assert {key: ref.layout for key, ref in refs.items()} == {
        ROOT: "dicomweb",
        "studies/1.9.9": "dicomweb",
        f"#P1/{STUDY}": "prefix",
    }
    assert len(refs[f"#P1/{STUDY}"].objects) == 3


def test_an_archive_may_begin_at_the_folder_studies(slices: list[Dataset], put: Put) -> None:
    uri = put(by_series(slices))
    assert [(ref.layout, ref.key) for ref in list_studies(f"{uri}/studies")] == [("dicomweb", STUDY)]


def test_instances_without_readable_metadata_are_counted(slices: list[Dataset], put: Put) -> None:
    files = by_instance(slices)
    files[f"{instance(slices[0])}/metadata"] = b"[{"
    files[f"{instance(slices[1])}/metadata"] = gzip.compress(b"[]")
    del files[f"{instance(slices[2])}/metadata"]
    (ref,) = list_studies(put(files))
    with open_study(ref) as objects:
        scan = read_series(objects)
    assert [len(series.instances) for series in scan.series] == [3]
    assert scan.skipped == {Reason.TRUNCATED: 3}


@pytest.mark.parametrize("content", [b"[{", b"[]", b"[1, {}]", b"\xff"])
def test_metadata_without_an_instance_is_a_broken_study(content: bytes, slices: list[Dataset], put: Put) -> None:
    (ref,) = list_studies(put(bulk(slices) | {f"{ROOT}/metadata": content}))
    with pytest.raises(StudyFailed) as caught:
        open_study(ref)
    assert caught.value.reason is Reason.BROKEN_ARCHIVE


def test_a_study_of_frames_alone_is_seen(slices: list[Dataset], put: Put) -> None:
    (ref,) = list_studies(put(frames(slices)))
    with open_study(ref) as objects, pytest.raises(StudyFailed) as caught:
        read_series(objects)
    assert caught.value.reason is Reason.TRUNCATED


def test_pixels_are_never_fetched_from_outside_the_study(slices: list[Dataset], put: Put) -> None:
    secret = {"secret/studies/9.9/bulkdata/1": slices[0].PixelData, "bulkdata/1": slices[0].PixelData}
    for where in (
        "../../../../secret/studies/9.9/bulkdata/1",
        "file:///etc/passwd",
        "http://localhost:1/x",
        "/bulkdata/1",
    ):
        listed = [metadata(one, **{"7FE00010": {"vr": "OW", "BulkDataURI": where}}) for one in slices]
        uri = put({f"{BELOW}/metadata": json.dumps(listed).encode()} | secret)
        ref = next(ref for ref in list_studies(uri) if ref.key == ROOT)
        with open_study(ref) as objects:
            (series,) = read_series(objects).series
            assert not any(item.has_pixels for item in series.instances)


def test_objects_without_pixels_have_none(slices: list[Dataset], put: Put) -> None:
    report = {**metadata(slices[0])}
    for tag in ("7FE00010", "00280010", "00280011"):
        report.pop(tag)
    (ref,) = list_studies(put({f"{BELOW}/metadata": json.dumps([report]).encode()}))
    with open_study(ref) as objects:
        ((item,),) = (series.instances for series in read_series(objects).series)
    assert not item.has_pixels


def test_a_bomb_is_refused(slices: list[Dataset], put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spinemet.archive.layouts.dicomweb.METADATA_LIMIT", 1 << 20)
    (ref,) = list_studies(put({f"{BELOW}/metadata.gz": gzip.compress(b" " * (2 << 20))}))
    with pytest.raises(StudyFailed) as caught:
        open_study(ref)
    assert caught.value.reason is Reason.MEMORY_LIMIT


@pytest.mark.parametrize("cut", [20, -20])
def test_a_damaged_frame_is_a_reason(cut: int, slices: list[Dataset], put: Put) -> None:
    files = by_series(slices)
    key = f"{instance(slices[3])}/frames/1.gz"
    files[key] = files[key][:cut]
    with pytest.raises((StudyFailed, StudyExcluded)) as caught:
        volume_of(*list_studies(put(files)))
    assert caught.value.reason in {Reason.BROKEN_ARCHIVE, Reason.UNDECODABLE, Reason.TRUNCATED}


def test_odd_values_lose_only_themselves(slices: list[Dataset], put: Put) -> None:
    odd: Json = {
        "00081030": {"vr": "LO", "Value": "no list"},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Doe^Jane", "Ideographic": "x"}, None]},
        "00100030": {"vr": "DA", "Value": [None]},
        "00181030": {"vr": "XX", "Value": [1]},
        "00180050": {"Value": [1]},
        "00180060": "no element",
        "00280030": {"vr": "DS", "Value": ["1.5", 1.25]},
        "00281050": {"vr": "US", "Value": [1e9]},
        "00081110": {"vr": "SQ", "Value": [None, {"00081150": {"vr": "UI", "Value": ["1.2"]}}, []]},
        "not a tag": {"vr": "LO"},
        "00091001": {"vr": "OB", "InlineBinary": "!"},
    }
    (ref,) = list_studies(
        put(by_instance(slices) | {f"{BELOW}/metadata": json.dumps([metadata(one, **odd) for one in slices]).encode()})
    )
    with open_study(ref) as objects:
        (series,) = read_series(objects).series
    assert series.instances[0].PixelSpacing == (1.5, 1.25)
    assert len(series.instances) == len(slices)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "vr",
                        "Value",
                        "InlineBinary",
                        "BulkDataURI",
                        "00080016",
                        "00080018",
                        "0020000E",
                        "7FE00010",
                        "00280010",
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_is_an_instance_or_none(value: Any) -> None:
    found = instance_of(value) if isinstance(value, dict) else None
    assert found is None or pydicom.dcmread(io.BytesIO(beginning(found, "", 0)), force=True) is not None


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("studies/1.2/series/1.3/instances/1.4/frames/1", "studies/1.2"),
        ("a/studies/1.2/series/1.3/metadata.gz", "a/studies/1.2"),
        ("1.2/series/1.3/metadata", "1.2"),
        ("studies/1.2/deduplicated/index.json.gz", "studies/1.2"),
        ("studies.gz", ""),
        ("studies/1.2/series/1.3/instances/1.4.dcm", None),
        ("studies/1.2/series/1.3/instances/1.4/1.dcm", None),
        ("studies/1.2/series/1.3/1.dcm", None),
        ("studies/p1/series/1.3/metadata", None),
        ("p1/studies/2020/series/1.dcm", None),
        ("instances/1.2/1.dcm", None),
    ],
)
def test_which_keys_are_dicomweb(key: str, place: str | None) -> None:
    assert DicomwebLayout().place(key) == place
