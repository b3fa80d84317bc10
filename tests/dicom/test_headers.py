"""Objects are grouped into series, and their headers are read."""

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
from spinemet.dicom.headers import SeriesScan, read_series
from spinemet.dicom.select import select_series
from spinemet.dicom.values import age_years, quiet_dicom
from spinemet.dicom.volume import read_volume
from spinemet.errors import Reason, StudyExcluded, StudyFailed
from spinemet.types import Flag, StudyRef
from tests.dicom.writer import write_enhanced, write_series


def scan(place: Path) -> SeriesScan:
    with open_study(study_at(place)) as objects:
        return read_series(objects)


def test_series_differ_by_uid_matrix_and_orientation(tmp_path: Path) -> None:
    write_series(tmp_path / "a", count=4, series_uid="1.2")
    write_series(tmp_path / "b", count=5, series_uid="1.3")
    write_series(tmp_path / "c", count=6, series_uid="1.3", shape=(10, 10))
    write_series(tmp_path / "d", count=7, series_uid="1.3", column=(0, 0, -1), step=(0, 1, 0))
    assert [len(series.instances) for series in scan(tmp_path).series] == [4, 5, 6, 7]


def test_the_order_of_arrival_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for series in ("1.2", "1.3"):
        write_series(tmp_path / series, count=4, series_uid=series)
    (tmp_path / "cut.dcm").write_bytes(next(tmp_path.rglob("*.dcm")).read_bytes()[:300])
    (tmp_path / "notes").write_text("not DICOM")
    with open_study(study_at(tmp_path)) as objects:
        heads = list(objects.heads(objects.names(), headers.HEAD_BYTES))
        scans = []
        for order in (sorted(heads), sorted(heads)[::-1]):
            monkeypatch.setattr(objects, "heads", lambda _names, _size, order=order: iter(order))
            scans.append(read_series(objects))
    assert scans[0] == scans[1]
    assert list(scans[0].skipped) == list(scans[1].skipped) == [Reason.TRUNCATED, Reason.NOT_DICOM]


def test_a_folder_is_a_series_without_uids(tmp_path: Path) -> None:
    def strip(dataset: Dataset, _: int) -> None:
        dataset.SOPInstanceUID = dataset.SOPClassUID = ""

    write_series(tmp_path / "a", count=4, series_uid="", edit=strip)
    write_series(tmp_path / "b", count=5, series_uid="", edit=strip)
    assert [len(series.instances) for series in scan(tmp_path).series] == [4, 5]


def test_a_frame_of_reference_per_slice_and_jitter_do_not_split_a_series(tmp_path: Path) -> None:
    def jitter(dataset: Dataset, place: int) -> None:
        dataset.FrameOfReferenceUID = f"1.2.{place + 1}"
        dataset.ImageOrientationPatient = [1, 0.0049 + 0.0002 * (place % 2), 0, -0.005, 1, 0]

    write_series(tmp_path, count=6, edit=jitter)
    assert [len(series.instances) for series in scan(tmp_path).series] == [6]


def _passes(folder: Path, passes: list[tuple[int, list[float]]]) -> list[tuple[int, int]]:
    """(slices, slices left out) of each series that is read from passes (AcquisitionNumber, z of the slices)."""
    for number, places in passes:

        def edit(dataset: Dataset, n: int, number: int = number, places: list[float] = places) -> None:
            dataset.AcquisitionNumber = number
            dataset.ImagePositionPatient = [0, 0, places[n]]

        write_series(folder / f"{number}-{places[0]}", count=len(places), series_uid="1.2", edit=edit)
    return [(len(series.instances), series.left_out) for series in scan(folder).series]


RANGE = [2.0 * n for n in range(20)]


@pytest.mark.parametrize(
    ("passes", "expected"),
    [
        pytest.param([(1, RANGE), (2, RANGE)], [(20, 0), (20, 0)], id="two phases"),
        pytest.param([(1, RANGE), (2, [z + 1 for z in RANGE])], [(20, 0), (20, 0)], id="half a step apart"),
        pytest.param([(1, RANGE[:12]), (2, RANGE[12:])], [(20, 0)], id="end to end"),
        pytest.param([(2, RANGE[:12]), (1, RANGE[12:])], [(20, 0)], id="end to end, lower one second"),
        pytest.param([(1, RANGE[:12]), (2, RANGE[7:])], [(20, 5)], id="five slices overlap"),
        pytest.param([(n, RANGE[4 * n : 4 * n + 4]) for n in range(5)], [(20, 0)], id="rotations"),
        pytest.param([(n, [z]) for n, z in enumerate(RANGE)], [(20, 0)], id="one number per slice"),
        pytest.param([(n, RANGE[:1]) for n in range(4)], [(4, 0)], id="bolus tracking"),
        pytest.param([(1, RANGE[:8] + RANGE[12:]), (2, RANGE[8:12])], [(20, 0)], id="a gap filled later"),
    ],
)
def test_passes_are_joined_or_told_apart_by_place(
    tmp_path: Path, passes: list[tuple[int, list[float]]], expected: list[tuple[int, int]]
) -> None:
    assert _passes(tmp_path, passes) == expected


@pytest.mark.parametrize("rotation", [100, 4, 1])
def test_an_object_stored_twice_is_read_once(tmp_path: Path, rotation: int) -> None:
    files = write_series(tmp_path, count=12, edit=lambda d, n: setattr(d, "AcquisitionNumber", 1 + n // rotation))
    for number in (3, 4):
        (tmp_path / f"copy {number}.dcm").write_bytes(files[number].read_bytes())
    (series,) = scan(tmp_path).series
    assert (len(series.instances), series.left_out) == (12, 2)
    with open_study(study_at(tmp_path)) as objects:
        assert Flag.LEFT_OUT in read_volume(objects, series).flags


@pytest.mark.parametrize(
    ("keyword", "value", "series"),
    [
        ("RescaleType", "MGML", 2),
        ("RescaleType", "HU", 1),
        ("RescaleType", "US", 1),
        ("ImageType", ["DERIVED", "PRIMARY", "AXIAL", "IODINE"], 2),
        ("ImageType", ["DERIVED", "PRIMARY", "AXIAL", "Z EFFECTIVE"], 2),
        ("ImageType", ["DERIVED", "PRIMARY", "AXIAL", "VMI"], 2),
        ("ImageType", ["DERIVED", "SECONDARY", "AXIAL", "MIP"], 2),
        ("ImageType", ["ORIGINAL", "PRIMARY", "SCOUT"], 2),
        ("ImageType", ["ORIGINAL", "PRIMARY", "HELICAL"], 1),
        ("ImageType", ["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SEQ"], 1),
    ],
)
def test_a_map_in_the_series_of_a_ct_is_a_series_of_its_own(
    tmp_path: Path, keyword: str, value: str | list[str], series: int
) -> None:
    write_series(tmp_path / "a", places=range(6), series_uid="1.2")
    write_series(tmp_path / "b", places=range(6, 12), series_uid="1.2", edit=lambda d, _: setattr(d, keyword, value))
    assert len(scan(tmp_path).series) == series


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


def test_different_slices_with_one_uid_are_kept(tmp_path: Path) -> None:
    write_series(tmp_path, count=6, edit=lambda d, _: setattr(d, "SOPInstanceUID", "1.2.3"))
    (series,) = scan(tmp_path).series
    assert (len(series.instances), series.left_out) == (6, 0)


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
        with quiet_dicom():
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
    with quiet_dicom():
        dataset.PatientAge, dataset.PatientBirthDate, dataset.StudyDate = age, born, seen
    assert age_years(dataset) == (None if years is None else pytest.approx(years, abs=0.01))


def test_values_never_reach_warnings_or_logs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    def plant(dataset: Dataset, _: int) -> None:
        with quiet_dicom():
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
