"""The headers of a study's objects are read."""

from __future__ import annotations

import tracemalloc
from contextlib import suppress
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence

from spinemet.archive.listing import open_study, study_at
from spinemet.config import SelectConfig
from spinemet.dicom import headers
from spinemet.dicom.headers import read_series
from spinemet.dicom.select import select_series
from spinemet.dicom.values import age_years, quiet_readers
from spinemet.dicom.volume import read_volume
from spinemet.errors import Reason, StudyExcluded, StudyFailed
from spinemet.types import StudyRef
from tests.dicom.reader import scan
from tests.dicom.writer import write_enhanced, write_series


def real_world(*units: str) -> Sequence:
    coded = []
    for unit in units:
        code, mapping = Dataset(), Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = unit, "UCUM", unit
        mapping.MeasurementUnitsCodeSequence = Sequence([code])
        coded.append(mapping)
    return Sequence(coded)


@pytest.mark.parametrize(
    ("units", "reason"),
    [
        (("mg/cm3",), Reason.NOT_HU),
        (("1",), Reason.NOT_HU),
        (("[hnsf'U]",), Reason.TOO_FEW_SLICES),
        (("mg/cm3", "[hnsf'U]"), Reason.TOO_FEW_SLICES),
        ((), Reason.TOO_FEW_SLICES),
    ],
)
@pytest.mark.parametrize("enhanced", [False, True])
def test_real_world_values_must_be_hu(tmp_path: Path, units: tuple[str, ...], reason: Reason, enhanced: bool) -> None:
    files = write_series(tmp_path / "classic", count=6)
    path = write_enhanced(tmp_path / "enhanced", files) if enhanced else files[0]
    for file in [path] if enhanced else files:
        dataset = pydicom.dcmread(file)
        at = dataset.SharedFunctionalGroupsSequence[0] if enhanced else dataset
        at.RealWorldValueMappingSequence = real_world(*units)
        dataset.save_as(file)
    with pytest.raises(StudyExcluded) as caught:
        select_series(scan(path.parent).series, SelectConfig())
    assert caught.value.reason is reason


def test_a_pet_in_the_study_raises_a_doubt_and_a_flag(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", count=6)
    write_series(tmp_path / "pt", count=3, edit=lambda d, _: setattr(d, "Modality", "PT"))
    with open_study(study_at(tmp_path)) as objects:
        volume = read_volume(objects, read_series(objects).series[0])
    assert volume.flags == ("attenuation_ct",)


def test_objects_without_preamble_are_read_and_unusable_ones_counted(tmp_path: Path) -> None:
    for path in write_series(tmp_path, count=4):
        content = path.read_bytes()
        path.write_bytes(content[132:])
    (tmp_path / "notes.txt").write_text("not DICOM")
    (tmp_path / "empty.dcm").write_bytes(b"")
    (tmp_path / "cut.dcm").write_bytes(b"\0" * 128 + b"DICM\x02\x00")
    result = scan(tmp_path)
    assert [len(series.instances) for series in result.series] == [4]
    assert result.skipped == {Reason.NOT_DICOM: 1, Reason.TRUNCATED: 2}


def test_a_study_without_usable_objects_has_a_reason(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not DICOM")
    (tmp_path / "a-empty.dcm").write_bytes(b"")
    with pytest.raises(StudyFailed) as caught:
        scan(tmp_path)
    assert caught.value.reason is Reason.NOT_DICOM
    with pytest.raises(StudyExcluded) as excluded, open_study(StudyRef("/", "", "prefix", ())) as objects:
        read_series(objects)
    assert excluded.value.reason is Reason.EMPTY


def test_large_private_blocks_cost_a_second_read_and_no_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headers, "HEAD_BYTES", 600)
    write_series(tmp_path, count=4)
    (series,) = scan(tmp_path).series
    assert all(item.has_pixels and item.Rows == 24 for item in series.instances)


def test_enhanced_ct_is_one_slice_per_frame(tmp_path: Path) -> None:
    files = write_series(tmp_path / "classic", count=6)
    write_enhanced(tmp_path / "enhanced", files)
    (series,) = scan(tmp_path / "enhanced").series
    assert [item.frame for item in series.instances] == list(range(6))
    (classic,) = scan(tmp_path / "classic").series
    assert {item.ImagePositionPatient for item in series.instances} == {
        item.ImagePositionPatient for item in classic.instances
    }
    assert series.instances[0].PixelSpacing == classic.instances[0].PixelSpacing


@pytest.mark.parametrize("frames", [5, 7, 2_000_000_000])
def test_a_wrong_number_of_frames_is_not_read(tmp_path: Path, frames: int) -> None:
    path = write_enhanced(tmp_path / "enhanced", write_series(tmp_path / "classic", count=6))
    dataset = pydicom.dcmread(path)
    dataset.NumberOfFrames = frames
    dataset.save_as(path)
    with pytest.raises(StudyExcluded) as caught:
        select_series(scan(tmp_path / "enhanced").series, SelectConfig(min_slices=3))
    assert caught.value.reason is Reason.NO_GEOMETRY


def test_absurd_dimensions_are_rejected_before_they_take_memory(tmp_path: Path) -> None:
    def absurd(dataset: Dataset, _: int) -> None:
        dataset.Rows = dataset.Columns = 65_535
        dataset.NumberOfFrames = 2_000_000_000

    write_series(tmp_path, count=20, edit=absurd)
    tracemalloc.start()
    with pytest.raises(StudyExcluded) as caught:
        select_series(scan(tmp_path).series, SelectConfig())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.reason is Reason.UNSUPPORTED_PIXELS
    assert peak < 20 << 20


@pytest.mark.parametrize("tag", [b"\x08\x00\x40\x11", b"\x00\x52\x30\x92"])
def test_endlessly_nested_sequences_are_rejected(tmp_path: Path, tag: bytes) -> None:
    whole = write_series(tmp_path, count=1)[0]
    head = whole.read_bytes()[:132] + b"\x08\x00\x60\x00CS\x02\x00CT"
    level = tag + b"SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    whole.write_bytes(head + level * 100_000)
    with pytest.raises(StudyFailed) as caught:
        scan(tmp_path)
    assert caught.value.reason is Reason.UNDECODABLE


def test_an_object_larger_than_any_image_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = write_series(tmp_path, count=4)
    paths[0].write_bytes(paths[0].read_bytes() + bytes(50_000))
    monkeypatch.setattr(headers, "MEMBER_LIMIT", 40_000)
    result = scan(tmp_path)
    assert result.skipped == {Reason.MEMORY_LIMIT: 1}
    assert [len(series.instances) for series in result.series] == [3]


def test_a_long_header_is_read_without_the_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def private(dataset: Dataset, _: int) -> None:
        dataset.add_new(0x00091001, "OB", bytes(2000))

    write_series(tmp_path, count=4, edit=private)
    monkeypatch.setattr(headers, "HEAD_BYTES", 600)
    monkeypatch.setattr(headers, "LONG_HEAD_BYTES", 3500)
    with open_study(study_at(tmp_path)) as objects:
        monkeypatch.setattr(objects, "read", lambda _: pytest.fail("read the pixels"))
        (series,) = read_series(objects).series
    assert all(item.has_pixels for item in series.instances)


def test_an_element_of_an_unknown_type_counts_as_absent(tmp_path: Path) -> None:
    for path in write_series(tmp_path, count=3)[:2]:
        content, element = path.read_bytes(), b"\x28\x00\x52\x10DS\x08\0-1024.0 "
        assert element in content
        path.write_bytes(content.replace(element, b"\x28\x00\x52\x10D\0\0\0"))
    with open_study(study_at(tmp_path)) as objects:
        (series,) = headers.read_series(objects).series
    intercepts = [instance.stored.RescaleIntercept for instance in series.instances]
    assert sorted(intercepts, key=str) == [-1024, None, None]


def test_attributes_of_a_series(tmp_path: Path) -> None:
    def attributes(dataset: Dataset, place: int) -> None:
        dataset.KVP = "120"
        if place:
            dataset.ContrastBolusAgent = " Iodine "
        with quiet_readers():
            dataset.StudyDate = "2020.01.31"

    write_series(tmp_path, count=4, edit=attributes)
    (series,) = scan(tmp_path).series
    assert (series.age_years, series.PatientSex, series.StudyDate, series.KVP) == (67, "F", "20200131", 120)
    assert (series.ContrastBolusAgent, series.ConvolutionKernel, series.lossy) == ("Iodine", "B30f", False)


@pytest.mark.parametrize(
    ("age", "born", "seen", "years"),
    [
        ("045Y", "", "", 45),
        ("018M", "", "", 1.5),
        ("", "19500101", "20200101", 70),
        ("000Y", "", "", None),
        ("old", "", "20200101", None),
        ("", "20200101", "19500101", None),
        ("", "", "", None),
    ],
)
def test_age(age: str, born: str, seen: str, years: float | None) -> None:
    dataset = Dataset()
    with quiet_readers():
        dataset.PatientAge, dataset.PatientBirthDate, dataset.StudyDate = age, born, seen
    assert age_years(dataset) == (None if years is None else pytest.approx(years, abs=0.01))


def test_values_never_reach_warnings_or_logs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    def plant(dataset: Dataset, _: int) -> None:
        with quiet_readers():
            dataset.StudyDate = "DOE^JANE"
            dataset.PatientAge = "DOE^JANE"
            dataset.add_new("KVP", "LO", "DOE^JANE")
        # Unused bits make the decoder warn as well.
        dataset.BitsStored, dataset.HighBit = 12, 11

    write_series(tmp_path, count=4, edit=plant)
    recwarn.clear()
    caplog.clear()
    with open_study(study_at(tmp_path)) as objects:
        (series,) = read_series(objects).series
        read_volume(objects, series)
    assert (series.StudyDate, series.KVP) == ("", None)
    assert not recwarn.list
    assert not caplog.records


@given(st.binary(max_size=400), st.booleans())
def test_random_bytes_raise_only_study_failed(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, marked: bool
) -> None:
    path = tmp_path_factory.mktemp("bytes") / "x"
    path.write_bytes((b"\0" * 128 + b"DICM" if marked else b"") + content)
    # The outcome is always a series or one of two reasons.
    with suppress(StudyFailed):
        assert scan(path).series


def test_real_slices_without_uids_are_one_series(realct: Path) -> None:
    (series,) = scan(realct / "totalsegmentator" / "example_ct_dicom").series
    assert len(series.instances) == 20
    assert series.SeriesInstanceUID == ""
    assert not series.lossy


def test_every_form_of_lossy_is_detected(realct: Path) -> None:
    folder = realct / "conformance" / "transfer-syntaxes"
    for part, lossy in {"JPEGLSLossy": True, "JPEG2000Tr": True, "Process1T": True, "JPEGLSLossless": False}.items():
        (path,) = (path for path in folder.iterdir() if part in path.name)
        (series,) = scan(path).series
        assert series.lossy is lossy, part
        assert pydicom.uid.UID(series.instances[0].TransferSyntaxUID).is_compressed


@pytest.mark.parametrize(("implicit", "little"), [(True, True), (False, True), (False, False)])
def test_slices_without_file_meta_are_read_as_they_are(tmp_path: Path, implicit: bool, little: bool) -> None:
    files = write_series(tmp_path / "whole", count=6)
    (tmp_path / "bare").mkdir()
    for path in files:
        dataset = pydicom.dcmread(path)
        if not little:
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
        dataset.file_meta, dataset.preamble = FileMetaDataset(), None
        with (tmp_path / "bare" / path.name).open("wb") as file:
            pydicom.dcmwrite(file, dataset, implicit_vr=implicit, little_endian=little, enforce_file_format=False)
    volumes = []
    for folder in ("whole", "bare"):
        with open_study(study_at(tmp_path / folder)) as objects:
            (series,) = read_series(objects).series
            volumes.append(read_volume(objects, series))
    assert np.array_equal(volumes[0].hu_DHW, volumes[1].hu_DHW)


@pytest.mark.parametrize("missing", [("Modality",), ("SOPClassUID",), ("Modality", "SOPClassUID")])
def test_a_ct_is_known_by_its_modality_or_its_sop_class(tmp_path: Path, missing: tuple[str, ...]) -> None:
    for file in write_series(tmp_path, count=3):
        dataset = pydicom.dcmread(file)
        for keyword in missing:
            delattr(dataset, keyword)
        dataset.save_as(file, enforce_file_format=False)
    (found,) = scan(tmp_path).series
    assert found.Modality == ("" if len(missing) == 2 else "CT")
    assert len(found.instances) == 3
