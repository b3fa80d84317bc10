"""Volumes against an analytic phantom and real conformance cases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from spinemet.archive.listing import open_study, study_at
from spinemet.dicom import decoding
from spinemet.dicom.headers import read_series
from spinemet.dicom.volume import assemble, read_nifti, read_volume, write_nifti
from spinemet.errors import Reason, StudyExcluded, StudyFailed, StudyProblem
from spinemet.types import AIR_HU, Volume
from tests.dicom.reader import read
from tests.dicom.writer import formula_error, set_pixels, write_enhanced, write_series

TILT = np.deg2rad(20)


def assert_matches_formula(volume: Volume, margin: int = 2) -> None:
    """Within 2 HU of the formula, away from borders and from voxels without a value."""
    assert formula_error(volume.hu_DHW, volume.affine, margin) < 2


def test_an_axial_series_is_read_in_the_order_of_its_positions(tmp_path: Path) -> None:
    write_series(tmp_path)
    volume = read(tmp_path)
    assert volume.hu_DHW.shape == (20, 24, 32)
    assert volume.hu_DHW.dtype == np.int16
    assert volume.flags == ()
    np.testing.assert_allclose(volume.spacing_mm, (3.0, 1.5, 1.25), atol=1e-6)
    np.testing.assert_allclose(volume.to_lps((0, 0, 0)), (-20, -30, -40), atol=0.01)
    np.testing.assert_allclose(volume.to_lps((19, 23, 31)), (-20 + 31 * 1.25, -30 + 23 * 1.5, 17), atol=0.01)
    assert_matches_formula(volume)


@settings(max_examples=8, deadline=None)
@given(angles=st.tuples(*[st.floats(-0.6, 0.6)] * 3), spacing=st.floats(0.7, 4.0))
def test_oblique_series_stays_oblique(tmp_path_factory: pytest.TempPathFactory, angles, spacing: float) -> None:
    from scipy.spatial.transform import Rotation

    axes = Rotation.from_euler("xyz", angles).as_matrix()
    folder = tmp_path_factory.mktemp("oblique")
    write_series(folder, count=6, row=axes[:, 0], column=axes[:, 1], step=axes[:, 2] * spacing)
    volume = read(folder)
    expected = np.stack([axes[:, 2] * spacing, axes[:, 1] * 1.5, axes[:, 0] * 1.25], 1)
    np.testing.assert_allclose(volume.affine[:3, :3], expected, atol=1e-5)
    np.testing.assert_allclose(volume.affine[:3, 3], (-20, -30, -40), atol=1e-4)
    assert_matches_formula(volume)


@pytest.mark.parametrize("sign", [1, -1])
def test_gantry_tilt_is_shifted_onto_an_orthogonal_grid(tmp_path: Path, sign: int) -> None:
    write_series(tmp_path, column=(0.0, np.cos(TILT), sign * np.sin(TILT)), shape=(40, 32))
    volume = read(tmp_path)
    assert volume.flags == ("deskewed",)
    cosines = volume.affine[:3, :3].T @ volume.affine[:3, :3]
    assert np.abs(cosines - np.diag(np.diag(cosines))).max() < 1e-9
    assert_matches_formula(volume)


def test_shear_along_the_rows_is_corrected(tmp_path: Path) -> None:
    write_series(tmp_path, step=(0.7, -0.4, 3.0), shape=(40, 48))
    volume = read(tmp_path)
    assert volume.flags == ("deskewed",)
    assert_matches_formula(volume)


def test_one_missing_slice_is_interpolated_and_flagged(tmp_path: Path) -> None:
    write_series(tmp_path, places=[n for n in range(20) if n != 7])
    volume = read(tmp_path)
    assert volume.flags == ("interpolated_slice",)
    assert volume.hu_DHW.shape[0] == 20
    assert_matches_formula(volume)


@pytest.mark.parametrize("places", [[0, 1, 2, 3, 6, 7, 8], [0, 1, 3, 4, 6, 7, 8], [0, 1, 2, 2.4, 3, 4, 5]])
def test_larger_gaps_are_excluded(tmp_path: Path, places: list[float]) -> None:
    write_series(tmp_path, places=places)
    with pytest.raises(StudyExcluded) as caught:
        read(tmp_path)
    assert caught.value.reason is Reason.GAPS


def test_identical_duplicates_count_once_and_different_ones_are_excluded(tmp_path: Path) -> None:
    write_series(tmp_path / "same", places=[*range(8), 3])
    same = read(tmp_path / "same")
    assert (same.hu_DHW.shape[0], same.left_out, same.flags) == (8, 1, ("left_out",))

    def spoil(dataset: Dataset, place: int) -> None:
        spoil.calls += 1  # type: ignore[attr-defined]
        if spoil.calls == 9:  # type: ignore[attr-defined]
            set_pixels(dataset, np.zeros((24, 32), np.int16))

    spoil.calls = 0  # type: ignore[attr-defined]
    write_series(tmp_path / "other", places=[*range(8), 3], edit=spoil)
    with pytest.raises(StudyExcluded) as caught:
        read(tmp_path / "other")
    assert caught.value.reason is Reason.DUPLICATE_POSITIONS


def truncated(content: bytes) -> bytes:
    return content[:-700]


def without_pixels(content: bytes) -> bytes:
    return content[: content.index(b"\xe0\x7f\x10\x00")]


def garbled(content: bytes) -> bytes:
    start = content.index(b"\xe0\x7f\x10\x00") + 60
    return content[:start] + bytes(len(content) - start)


@pytest.mark.parametrize("spoil", [truncated, without_pixels, garbled, lambda content: content[:140]])
@pytest.mark.parametrize("another_uid", [False, True])
@pytest.mark.parametrize("name", ["000.dcm", "zzz.dcm"])
def test_a_whole_copy_is_read_in_place_of_a_broken_one(tmp_path: Path, spoil, another_uid: bool, name: str) -> None:
    def compress(dataset: Dataset, _: int) -> None:
        dataset.compress(JPEGLSLossless, generate_instance_uid=False)

    files = write_series(tmp_path, count=8, shape=(32, 40), edit=compress if spoil is garbled else None)
    content = files[3].read_bytes()
    if another_uid:
        uid = pydicom.dcmread(files[3]).SOPInstanceUID.encode()
        content = content.replace(uid, uid[:-1] + (b"1" if uid[-1:] != b"1" else b"2"))
    (tmp_path / name).write_bytes(spoil(content))
    volume = read(tmp_path)
    assert volume.hu_DHW.shape[0] == 8
    assert_matches_formula(volume)


def test_a_whole_copy_of_an_enhanced_object_is_read(tmp_path: Path) -> None:
    whole = write_enhanced(tmp_path, write_series(tmp_path / "classic", count=8))
    for path in (tmp_path / "classic").iterdir():
        path.unlink()
    (tmp_path / "a.dcm").write_bytes(whole.read_bytes()[:-9000])
    assert_matches_formula(read(tmp_path))
    whole.write_bytes(whole.read_bytes()[:-9000])
    with pytest.raises(StudyFailed) as caught:
        read(tmp_path)
    assert caught.value.reason is Reason.TRUNCATED


def test_rescale_differs_from_slice_to_slice(tmp_path: Path) -> None:
    def rescale(dataset: Dataset, place: int) -> None:
        stored = np.frombuffer(dataset.PixelData, "<i2").reshape(24, 32)
        dataset.RescaleIntercept = -1024 + 100 * (place % 3)
        set_pixels(dataset, (stored - 100 * (place % 3)).astype(np.int16))

    write_series(tmp_path, edit=rescale)
    assert_matches_formula(read(tmp_path))


def test_fractional_slope_gives_float(tmp_path: Path) -> None:
    write_series(tmp_path, slope=0.01, intercept=0)
    volume = read(tmp_path)
    assert volume.hu_DHW.dtype == np.float32
    assert_matches_formula(volume)


def test_padding_is_masked_before_the_rescale(tmp_path: Path) -> None:
    def pad(dataset: Dataset, place: int) -> None:
        stored = np.frombuffer(dataset.PixelData, "<i2").reshape(24, 32).copy()
        stored[:5] = -2000
        set_pixels(dataset, stored)
        dataset.PixelPaddingValue = -2000

    write_series(tmp_path, edit=pad)
    volume = read(tmp_path)
    assert np.all(volume.hu_DHW[:, :5] == AIR_HU)
    assert volume.hu_DHW[:, 5:].min() > -100


def test_a_padding_value_within_tissue_is_ignored(tmp_path: Path) -> None:
    def pad(dataset: Dataset, place: int) -> None:
        dataset.PixelPaddingValue = 100 + 1024  # the phantom's mean

    write_series(tmp_path, edit=pad)
    assert_matches_formula(read(tmp_path))


def test_unused_high_bits_and_inverted_display_do_not_matter(tmp_path: Path) -> None:
    def overlay(dataset: Dataset, place: int) -> None:
        stored = np.frombuffer(dataset.PixelData, "<i2").astype(np.uint16) | 0xF000
        dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 12, 11, 0
        dataset.PixelData = stored.astype("<u2").tobytes()
        dataset.PhotometricInterpretation = "MONOCHROME1"

    write_series(tmp_path, edit=overlay)
    assert_matches_formula(read(tmp_path))


@pytest.mark.parametrize("syntax", [None, ImplicitVRLittleEndian, JPEGLSLossless, JPEG2000Lossless, RLELossless])
def test_a_slice_is_parsed_once_with_the_result_of_parsing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, syntax: str | None
) -> None:
    def as_scanners_vary(dataset: Dataset, place: int) -> None:
        stored = np.frombuffer(dataset.PixelData, "<i2").reshape(40, 48) - 50 * (place % 3)
        stored[:2] = -2000
        set_pixels(dataset, stored.astype(np.int16))
        dataset.RescaleIntercept = -1024 + 50 * (place % 3)
        dataset.PixelPaddingValue = -2000
        if syntax == ImplicitVRLittleEndian:
            dataset.file_meta.TransferSyntaxUID = syntax
        elif syntax:
            dataset.compress(syntax, generate_instance_uid=False)

    def parsed_again(_: bytes) -> Dataset:
        raise AssertionError("a slice was parsed again")

    write_series(tmp_path, count=5, shape=(40, 48), edit=as_scanners_vary)
    with monkeypatch.context() as patch:
        patch.setattr(decoding, "quick_hu", lambda _content, _instance: None)
        expected = read(tmp_path)
    monkeypatch.setattr(decoding, "_dataset", parsed_again)
    found = read(tmp_path)
    np.testing.assert_array_equal(found.hu_DHW, expected.hu_DHW)
    assert found.hu_DHW.dtype == expected.hu_DHW.dtype


def test_an_object_replaced_after_its_header_was_read_is_parsed_again(tmp_path: Path) -> None:
    def longer(dataset: Dataset, place: int) -> None:
        dataset.ImageComments = "sent again " * 20

    write_series(tmp_path)
    with open_study(study_at(tmp_path)) as objects:
        series = read_series(objects).series[0]
        write_series(tmp_path, edit=longer)
        assert_matches_formula(read_volume(objects, series))


def test_enhanced_ct_equals_the_classic_series(tmp_path: Path) -> None:
    files = write_series(tmp_path / "classic", count=8)
    write_enhanced(tmp_path / "enhanced", files)
    classic, enhanced = read(tmp_path / "classic"), read(tmp_path / "enhanced")
    np.testing.assert_array_equal(classic.hu_DHW, enhanced.hu_DHW)
    np.testing.assert_allclose(classic.affine, enhanced.affine, atol=1e-6)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda d, _: delattr(d, "RescaleSlope"), Reason.UNSUPPORTED_PIXELS),
        (lambda d, _: delattr(d, "ImagePositionPatient"), Reason.NO_GEOMETRY),
        (lambda d, _: setattr(d, "ImageOrientationPatient", [1, 0, 0, 1, 0, 0]), Reason.NO_GEOMETRY),
        (lambda d, _: setattr(d, "PixelData", d.PixelData[:100]), Reason.TRUNCATED),
        (lambda d, _: setattr(d, "PixelSpacing", [0, 0]), Reason.NO_GEOMETRY),
    ],
)
def test_unreadable_series_have_their_reason(tmp_path: Path, edit, reason: Reason) -> None:
    write_series(tmp_path, count=5, edit=edit)
    with pytest.raises(StudyProblem) as caught:
        read(tmp_path)
    assert caught.value.reason is reason


def test_real_gantry_tilts(realct: Path) -> None:
    place = realct / "conformance" / "gantry-tilt" / "In" / "Philips" / "S21610" / "S2010"
    volume = read(place)
    assert volume.flags == ("deskewed",)
    assert volume.hu_DHW.shape[0] == 12
    np.testing.assert_allclose(volume.spacing_mm[0], 2.5 * np.cos(np.deg2rad(18.5)), atol=1e-3)


def test_real_oblique_volume_with_a_fractional_slope(realct: Path) -> None:
    with open_study(study_at(realct / "conformance" / "oblique")) as objects:
        volume = assemble(objects, read_series(objects).series[0])  # its values, from -10 to 10, are no HU
    assert volume.hu_DHW.dtype == np.float32
    np.testing.assert_allclose(volume.spacing_mm, (4.5, 3.5, 2.5), atol=1e-4)
    np.testing.assert_allclose(volume.affine[:3, 3], (123, -432, 30), atol=0.01)


def test_real_mixed_spacing_is_a_gap(realct: Path) -> None:
    with pytest.raises(StudyExcluded) as caught:
        read(realct / "conformance" / "gantry-tilt" / "In" / "GE")
    assert caught.value.reason is Reason.GAPS


def test_values_that_cannot_be_hu_are_refused(tmp_path: Path) -> None:
    normal = np.random.default_rng(1).normal(0, 1, (20, 80, 80)).astype(np.float32)
    write_nifti(Volume(normal, np.diag([1.0, 1.0, 3.0, 1.0])[:, [2, 1, 0, 3]]), tmp_path / "ct.nii.gz")
    with open_study(study_at(tmp_path / "ct.nii.gz")) as objects, pytest.raises(StudyExcluded) as caught:
        read_nifti(objects)
    assert caught.value.reason is Reason.NOT_HU

    def one_value(dataset: Dataset, _: int) -> None:
        set_pixels(dataset, np.full((24, 32), 24, np.int16))

    write_series(tmp_path / "series", edit=one_value)
    with pytest.raises(StudyExcluded) as caught:
        read(tmp_path / "series")
    assert caught.value.reason is Reason.NOT_HU
