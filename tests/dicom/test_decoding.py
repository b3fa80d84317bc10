"""Slices are decoded while their study is still being fetched."""

from __future__ import annotations

import threading
from pathlib import Path

import boto3
import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless

from spinemet.archive.listing import open_study, study_at
from spinemet.dicom import decoding
from spinemet.dicom.decoding import SliceDecoder
from spinemet.dicom.headers import read_series
from spinemet.dicom.volume import read_volume
from tests.dicom.writer import formula_error, write_series


def compressed(dataset: Dataset, _place: int) -> None:
    dataset.compress(JPEGLSLossless, generate_instance_uid=False)


def slow_to_decode(dataset: Dataset, _place: int) -> None:
    dataset.compress(JPEG2000Lossless, generate_instance_uid=False)


def localizer(dataset: Dataset, _place: int) -> None:
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    compressed(dataset, _place)


def upload(folder: Path, bucket: str, prefix: str) -> str:
    for path in sorted(folder.rglob("*.dcm")):
        key = f"{prefix}/{path.relative_to(folder)}"
        boto3.client("s3").put_object(Bucket=bucket.removeprefix("s3://"), Key=key, Body=path.read_bytes())
    return f"{bucket}/{prefix}"


@pytest.mark.parametrize("place", ["folder", "s3"])
def test_the_first_ct_series_is_decoded_ahead_and_either_can_be_read(
    place: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit = compressed if place == "s3" else slow_to_decode
    write_series(tmp_path / "a", count=3, edit=localizer)
    write_series(tmp_path / "b", count=8, shape=(64, 64), edit=edit)
    write_series(tmp_path / "c", count=8, shape=(64, 64), edit=edit, origin=(-20.0, -30.0, 60.0))
    started: list[str] = []

    def recorded(content: bytes, instance: decoding.InstanceHeader) -> object:
        started.append(instance.name)
        return quick_hu(content, instance)

    quick_hu = decoding.quick_hu
    monkeypatch.setattr(decoding, "quick_hu", recorded)
    uri = upload(tmp_path, request.getfixturevalue("s3_bucket"), "study") if place == "s3" else str(tmp_path)
    with open_study(study_at(uri)) as objects, SliceDecoder(objects) as decoder:
        series = read_series(objects, decoder.begin).series
        volumes = [read_volume(objects, each, decoder) for each in series[1:]]
    for volume in volumes:
        assert formula_error(volume.hu_DHW, volume.affine) < 2
    assert volumes[0].affine[2, 3] == pytest.approx(-40)
    # Each slice once: those of the first series ahead, in the order of arrival, the others on request.
    assert [name[0] for name in started].count("b") == 8
    assert len(started) == len(set(started)) == 16
    assert not any(name.startswith("a") for name in started)


@pytest.mark.parametrize("place", ["folder", "s3"])
@pytest.mark.parametrize("begun", [slice(0, 3), slice(5, 6), slice(1, None, 2)])
def test_slices_keep_their_places_if_only_some_were_decoded_ahead(
    begun: slice, place: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    write_series(tmp_path, count=12, shape=(64, 64), edit=slow_to_decode)
    uri = upload(tmp_path, request.getfixturevalue("s3_bucket"), f"part{begun}") if place == "s3" else str(tmp_path)
    with open_study(study_at(uri)) as objects, SliceDecoder(objects) as decoder:
        series = read_series(objects).series[0]
        for item in series.instances[begun]:
            decoder.begin(item, series)
        if place == "folder":
            for future in decoder._ahead.values():
                future.result()  # a slice not yet begun would be dropped
        volume = read_volume(objects, series, decoder)
    assert formula_error(volume.hu_DHW, volume.affine) < 2


def test_dropped_slices_do_not_delay_the_chosen_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_series(tmp_path / "b", count=8, shape=(64, 64), edit=slow_to_decode)
    write_series(tmp_path / "c", count=8, shape=(64, 64), edit=slow_to_decode, origin=(-20.0, -30.0, 60.0))
    started: list[str] = []
    parsed = threading.Event()

    def delayed(content: bytes, instance: decoding.InstanceHeader) -> object:
        started.append(instance.name)
        assert parsed.wait(20)
        return quick_hu(content, instance)

    quick_hu, drop_ahead = decoding.quick_hu, SliceDecoder._drop_ahead
    monkeypatch.setattr(decoding, "quick_hu", delayed)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with open_study(study_at(tmp_path)) as objects, SliceDecoder(objects) as decoder:
        series = read_series(objects, decoder.begin).series
        monkeypatch.setattr(SliceDecoder, "_drop_ahead", lambda *given: (drop_ahead(*given), parsed.set()))
        assert len(list(decoder.slices(series[1].instances))) == 8
    assert [name[0] for name in started] == ["b"] + ["c"] * 8


def test_a_slice_that_fails_to_decode_ahead_is_parsed_whole(
    tmp_path: Path, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_series(tmp_path, count=5, edit=compressed)
    monkeypatch.setattr(decoding, "quick_hu", lambda _content, _instance: None)
    with open_study(study_at(upload(tmp_path, s3_bucket, "odd"))) as objects, SliceDecoder(objects) as decoder:
        volume = read_volume(objects, read_series(objects, decoder.begin).series[0], decoder)
    assert volume.hu_DHW.dtype == np.int16
    assert formula_error(volume.hu_DHW, volume.affine) < 2
