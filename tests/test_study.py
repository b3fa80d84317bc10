"""Which series of a study is read if the pixels of the preferred one are no CT volume."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from spinemet.archive.listing import study_at
from spinemet.config import SelectConfig, StudyConfig
from spinemet.errors import Reason
from spinemet.study import read_study
from tests.dicom.writer import set_pixels, write_series

CONFIG = StudyConfig(select=SelectConfig(min_slices=5, min_coverage_mm=10))


def one_value(dataset: Dataset, _: int) -> None:
    set_pixels(dataset, np.full((24, 32), 1000, np.int16))


def different_at_one_place(dataset: Dataset, place: int) -> None:
    set_pixels(dataset, np.random.default_rng().integers(0, 2000, (24, 32), np.int16))
    dataset.ImagePositionPatient = [0, 0, float(place // 2)]


def colour(dataset: Dataset, _: int) -> None:
    dataset.SamplesPerPixel = 3


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (one_value, Reason.NOT_HU),
        (different_at_one_place, Reason.DUPLICATE_POSITIONS),
        (colour, Reason.UNSUPPORTED_PIXELS),
    ],
)
@pytest.mark.parametrize("names", ["ab", "ba"])
def test_the_next_series_is_read_and_the_refusal_kept(tmp_path: Path, spoil, reason: Reason, names: str) -> None:
    preferred, next_best = names
    write_series(tmp_path / preferred, count=60, edit=spoil)
    write_series(tmp_path / next_best, count=10)
    reading = read_study(study_at(tmp_path), CONFIG)
    assert (reading.reason, reading.slice_count) == (Reason.NO_SPINE, 10)
    assert "series_refused" in reading.flags
    assert {len(series.instances): why for series, why in reading.series_seen} == {60: reason, 10: None}


def test_a_study_of_nothing_but_maps_has_the_reason_of_the_best_one(tmp_path: Path) -> None:
    write_series(tmp_path / "a", count=10, edit=colour)
    write_series(tmp_path / "b", count=60, edit=one_value)
    reading = read_study(study_at(tmp_path), CONFIG)
    assert (reading.state, reading.reason) == ("excluded", Reason.NOT_HU)
    assert "one value" in reading.detail
    assert len(reading.chosen.instances) == 60
    assert [reason for _, reason in reading.series_seen] == [Reason.UNSUPPORTED_PIXELS, Reason.NOT_HU]


def test_a_slice_stored_again_under_another_uid_is_counted(tmp_path: Path) -> None:
    write_series(tmp_path, places=[*range(8), 3, 5])
    reading = read_study(study_at(tmp_path), CONFIG)
    assert (reading.slice_count, reading.chosen.left_out) == (8, 2)
    assert "left_out" in reading.flags


def test_a_map_alone_beside_series_that_cannot_be_used_stays_refused(tmp_path: Path) -> None:
    write_series(tmp_path / "a", count=60, edit=one_value)
    write_series(tmp_path / "b", count=60, edit=lambda d, _: setattr(d, "Modality", "MR"))
    reading = read_study(study_at(tmp_path), CONFIG)
    assert reading.reason is Reason.NOT_HU


def cut(place: Path, *numbers: int) -> None:
    """Cut the pixels of some files short, as a transfer that was interrupted does."""
    files = sorted(place.iterdir())
    for number in numbers:
        files[number].write_bytes(files[number].read_bytes()[:-700])


@pytest.mark.parametrize(
    ("count", "broken", "slices", "flags"),
    [
        pytest.param(20, [7], 20, {"broken_objects", "interpolated_slice"}, id="one in the middle"),
        pytest.param(20, [0, 19], 18, {"broken_objects"}, id="both ends"),
        pytest.param(20, [12, 13, 14], 12, {"broken_objects", "divided"}, id="three in the middle"),
        pytest.param(20, range(10, 20), 10, {"broken_objects"}, id="half of it"),
    ],
)
def test_broken_slices_are_left_out_and_flagged(tmp_path: Path, count: int, broken, slices: int, flags) -> None:
    write_series(tmp_path, count=count)
    cut(tmp_path, *broken)
    reading = read_study(study_at(tmp_path), CONFIG)
    assert (reading.reason, reading.slice_count) == (Reason.NO_SPINE, slices)
    assert flags <= set(reading.flags)
    assert reading.chosen.left_out == len(broken)


@pytest.mark.parametrize("names", ["ab", "ba"])
def test_a_whole_series_is_read_in_place_of_a_broken_one(tmp_path: Path, names: str) -> None:
    preferred, next_best = names
    write_series(tmp_path / preferred, count=30)
    write_series(tmp_path / next_best, count=10)
    cut(tmp_path / preferred, *range(30))
    reading = read_study(study_at(tmp_path), CONFIG)
    assert (reading.slice_count, reading.flags) == (10, ("series_refused",))
    assert {len(series.instances): why for series, why in reading.series_seen} == {30: Reason.TRUNCATED, 10: None}


@pytest.mark.parametrize("broken", [range(20), range(18), range(0, 20, 2)])
def test_a_study_fails_as_truncated_if_too_little_is_left(tmp_path: Path, broken: range) -> None:
    write_series(tmp_path / "a", count=20)
    write_series(tmp_path / "b", count=3)
    cut(tmp_path / "a", *broken)
    reading = read_study(study_at(tmp_path), CONFIG)
    assert (reading.state, reading.reason) == ("failed", Reason.TRUNCATED)
    assert len(reading.chosen.instances) <= 20


@pytest.mark.parametrize("size", [0, 140, 400, 900])
def test_an_object_whose_header_is_cut_short_raises_a_flag(tmp_path: Path, size: int) -> None:
    files = write_series(tmp_path, count=12)
    files[11].write_bytes(files[11].read_bytes()[:size])
    reading = read_study(study_at(tmp_path), CONFIG)
    assert (reading.slice_count, reading.flags) == (11, ("broken_objects",))
