"""Stored values and HU of one slice, against pydicom and plain arithmetic."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels.utils import pixel_array
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from spinemet.dicom import pixels
from spinemet.dicom.decoding import decoding_threads
from spinemet.dicom.pixels import MOST_HU, slice_hu, stored_values, to_hu
from spinemet.errors import Reason, StudyFailed
from spinemet.types import AIR_HU

SHAPE = (64, 80)
COMPRESSED = [JPEGLSLossless, JPEG2000Lossless, RLELossless]


def slice_of(bits: int, signed: bool, seed: int = 0, frames: int = 1) -> tuple[Dataset, np.ndarray]:
    """An uncompressed object of random values over the whole range of `bits`, and the values (frames, H, W)."""
    low = -(1 << (bits - 1)) if signed else 0
    values = np.random.default_rng(seed).integers(low, low + (1 << bits), (frames, *SHAPE))
    values = values.astype(np.int16 if signed else np.uint16)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.Rows, dataset.Columns = SHAPE
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, bits, bits - 1
    dataset.PixelRepresentation = int(signed)
    dataset.NumberOfFrames = frames
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
    dataset.PixelData = values.tobytes()
    dataset["PixelData"].VR = "OW"
    return dataset, values


def no_pydicom(*_: object, **__: object) -> None:
    raise AssertionError("pydicom was asked to decode what is decoded here")


@settings(max_examples=40, deadline=None)
@given(bits=st.integers(9, 16), signed=st.booleans(), syntax=st.sampled_from([None, *COMPRESSED]), seed=st.integers(0))
def test_values_are_exact_in_every_syntax_without_pydicom(
    bits: int, signed: bool, syntax: str | None, seed: int
) -> None:
    dataset, values = slice_of(bits, signed, seed)
    if syntax:
        dataset.compress(syntax, generate_instance_uid=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pixels, "pixel_array", no_pydicom)
        found = stored_values(dataset, None)
    np.testing.assert_array_equal(found, values[0])
    assert found.dtype == values.dtype


@pytest.mark.parametrize("syntax", [None, *COMPRESSED])
def test_each_frame_is_decoded(syntax: str | None) -> None:
    dataset, values = slice_of(12, True, frames=3)
    if syntax:
        dataset.compress(syntax, generate_instance_uid=False)
    for frame in range(3):
        np.testing.assert_array_equal(stored_values(dataset, frame), values[frame])


@settings(max_examples=20, deadline=None)
@given(bits=st.integers(9, 15), signed=st.booleans(), seed=st.integers(0))
def test_unused_high_bits_are_ignored(bits: int, signed: bool, seed: int) -> None:
    dataset, values = slice_of(bits, signed, seed)
    noise = np.random.default_rng(seed).integers(0, 1 << 16, values.shape).astype(np.uint16) << bits
    dataset.PixelData = ((values.view(np.uint16) & ((1 << bits) - 1)) | noise).tobytes()
    np.testing.assert_array_equal(stored_values(dataset, None), values[0])
    np.testing.assert_array_equal(stored_values(dataset, None), pixel_array(dataset, raw=True))


@pytest.mark.parametrize("syntax", COMPRESSED)
@pytest.mark.parametrize(("bits", "signed"), [(12, False), (12, True)])
def test_a_header_with_the_wrong_sign_is_read_as_by_pydicom(syntax: str, bits: int, signed: bool) -> None:
    dataset, _ = slice_of(bits, signed)
    dataset.compress(syntax, generate_instance_uid=False)
    dataset.PixelRepresentation = int(not signed)
    np.testing.assert_array_equal(stored_values(dataset, None), pixel_array(dataset, raw=True))


@pytest.mark.parametrize("syntax", [None, *COMPRESSED])
@pytest.mark.parametrize("change", [{"Rows": 65}, {"Columns": 8000, "Rows": 8000}])
def test_a_matrix_that_contradicts_the_header_is_undecodable(syntax: str | None, change: dict[str, int]) -> None:
    dataset, _ = slice_of(12, False)
    if syntax:
        dataset.compress(syntax, generate_instance_uid=False)
    for keyword, value in change.items():
        setattr(dataset, keyword, value)
    assert outcome(dataset) in {Reason.UNDECODABLE, Reason.TRUNCATED}


@pytest.mark.parametrize("syntax", COMPRESSED)
def test_a_truncated_code_is_undecodable_or_a_slice(syntax: str) -> None:
    dataset, _ = slice_of(12, False)
    dataset.compress(syntax, generate_instance_uid=False)
    whole = dataset.PixelData
    assert outcome(dataset) == SHAPE
    for kept in range(8, len(whole), len(whole) // 40):
        dataset.PixelData = whole[:kept]
        assert outcome(dataset) in {SHAPE, Reason.UNDECODABLE, Reason.TRUNCATED}


def outcome(dataset: Dataset) -> tuple[int, ...] | Reason:
    try:
        return slice_hu(dataset, None).shape
    except StudyFailed as problem:
        return problem.reason


def test_real_objects_are_equal_to_pydicoms(realct: Path) -> None:
    seen = set()
    for path in sorted((realct / "conformance" / "transfer-syntaxes").iterdir()):
        dataset = pydicom.dcmread(path, force=True)
        if "PixelData" not in dataset or dataset.SamplesPerPixel != 1:
            continue
        try:
            expected = pixel_array(dataset, raw=True)
        except RuntimeError:
            continue  # no decoder
        np.testing.assert_array_equal(stored_values(dataset, None), expected, err_msg=path.name)
        seen.add(str(dataset.file_meta.TransferSyntaxUID))
    assert len(seen) >= 12


@settings(max_examples=100, deadline=None)
@given(
    signed=st.booleans(),
    intercept=st.integers(-70_000, 70_000),
    padding=st.none() | st.tuples(st.integers(-40_000, 0), st.integers(0, 70_000)),
    seed=st.integers(0),
)
def test_whole_rescale_is_exact_at_every_intercept(
    signed: bool, intercept: int, padding: tuple[int, int] | None, seed: int
) -> None:
    limits = np.iinfo(np.int16 if signed else np.uint16)
    stored = np.random.default_rng(seed).integers(limits.min, limits.max + 1, SHAPE).astype(limits.dtype)
    stored[0, :2] = limits.min, limits.max
    expected = np.clip(stored.astype(np.int64) + intercept, AIR_HU, MOST_HU)
    if padding is not None:
        expected[(stored >= padding[0]) & (stored <= padding[1])] = AIR_HU
    found = to_hu(stored, 1.0, float(intercept), padding)
    assert found.dtype == np.int16
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("share", "threads"), [("3", 3), ("1", 1)])
def test_the_threads_follow_the_share_of_the_cores(monkeypatch: pytest.MonkeyPatch, share: str, threads: int) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", share)
    assert decoding_threads() == threads
    for unusable in ("", "0", "4,2"):
        monkeypatch.setenv("OMP_NUM_THREADS", unusable)
        assert decoding_threads() >= 1
