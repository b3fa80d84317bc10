"""Which objects are one series."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from spinemet.archive.listing import open_study, study_at
from spinemet.dicom import headers
from spinemet.dicom.headers import read_series
from spinemet.dicom.volume import read_volume
from spinemet.errors import Reason
from spinemet.types import Flag
from tests.dicom.reader import scan
from tests.dicom.writer import write_series


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
        pytest.param([(1, RANGE), (2, [z + 0.6 for z in RANGE])], [(20, 0), (20, 0)], id="uneven"),
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


def test_different_slices_with_one_uid_are_kept(tmp_path: Path) -> None:
    write_series(tmp_path, count=6, edit=lambda d, _: setattr(d, "SOPInstanceUID", "1.2.3"))
    (series,) = scan(tmp_path).series
    assert (len(series.instances), series.left_out) == (6, 0)


def one_field(keyword: str, value: object):
    def edit(dataset: Dataset, _: int) -> None:
        setattr(dataset, keyword, value)

    return edit


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("ImageType", ["DERIVED", "PRIMARY", "AXIAL", "CT_SOM7 SPI DECT"]),
        ("ConvolutionKernel", "B70f"),
        ("KVP", "140"),
        ("SeriesDescription", "Late phase"),
    ],
)
def test_slices_at_the_same_places_are_told_apart_by_what_differs(tmp_path: Path, keyword: str, value: object) -> None:
    files = write_series(tmp_path / "a", count=12, series_uid="1.2")
    write_series(tmp_path / "b", count=8, series_uid="1.2", edit=one_field(keyword, value))
    (tmp_path / "a" / "copy.dcm").write_bytes(files[3].read_bytes())
    assert [len(series.instances) for series in scan(tmp_path).series] == [12, 8]


def test_passes_that_overlap_stay_one_series_though_a_kind_differs(tmp_path: Path) -> None:
    write_series(tmp_path / "a", places=range(12), series_uid="1.2")
    write_series(tmp_path / "b", places=range(11, 20), series_uid="1.2", edit=one_field("KVP", "140"))
    assert sum(len(series.instances) for series in scan(tmp_path).series) in {20, 21}
    assert len(scan(tmp_path).series) == 1
