"""NIfTI files: gzip, orientation, and HU there and back."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest

from spinemet.archive.layouts.nifti import NiftiObjects
from spinemet.archive.listing import open_study, study_at
from spinemet.dicom.nifti import gunzip, orientation
from spinemet.dicom.volume import nifti_grid, read_nifti, write_nifti
from spinemet.errors import BadInput, Reason, StudyExcluded, StudyProblem
from spinemet.types import AIR_HU, Array
from tests.dicom.reader import read
from tests.dicom.writer import formula, write_series

AFFINE = np.array([[0.8, 0, 0, -90], [0, 0.8, 0, -70], [0, 0, 2.5, 30], [0, 0, 0, 1.0]])


MOVED = AFFINE + np.outer([1, 0, 0, 0], [0, 0, 0, 5.0])


TEXT = np.random.default_rng(1).integers(0, 9, 200_000).astype(np.uint8).tobytes()


@pytest.mark.parametrize(
    "packed",
    [
        gzip.compress(TEXT),
        gzip.compress(TEXT, compresslevel=0),
        b"".join(gzip.compress(TEXT[at : at + 50_000]) for at in range(0, len(TEXT), 50_000)),  # as bgzip writes
        gzip.compress(TEXT[:100_000]) + gzip.compress(TEXT[100_000:]),  # the last member's size is the first's too
        gzip.compress(TEXT) + gzip.compress(b""),  # bgzip's end
        gzip.compress(TEXT) + bytes(512),  # padding, which gzip allows
    ],
    ids=["one member", "stored", "many members", "two of one size", "an empty last one", "padding"],
)
def test_every_form_of_gzip_is_read_whole(packed: bytes) -> None:
    assert bytes(gunzip(packed, len(TEXT))) == TEXT


@pytest.mark.parametrize(
    ("packed", "limit", "reason"),
    [
        (gzip.compress(TEXT)[:-100], 1 << 30, Reason.BROKEN_ARCHIVE),
        (gzip.compress(TEXT)[:5000] + b"?" + gzip.compress(TEXT)[5001:], 1 << 30, Reason.BROKEN_ARCHIVE),
        (gzip.compress(TEXT)[:-4] + struct.pack("<I", 0xFFFFFFF0), 1 << 40, Reason.BROKEN_ARCHIVE),  # a false size
        (gzip.compress(TEXT)[:8], 1 << 30, Reason.BROKEN_ARCHIVE),
        (gzip.compress(TEXT), len(TEXT) - 1, Reason.MEMORY_LIMIT),
        (gzip.compress(bytes(1 << 26))[:-4] + struct.pack("<I", 1000), 1 << 20, Reason.MEMORY_LIMIT),  # says less
    ],
    ids=["cut", "damaged", "false size", "almost nothing", "too large", "a bomb that says it is small"],
)
def test_broken_and_too_large_gzip_has_its_reason(packed: bytes, limit: int, reason: Reason) -> None:
    with pytest.raises(StudyProblem) as caught:
        gunzip(packed, limit)
    assert caught.value.reason is reason


def header(sform: Array | None, qform: Array | None, codes: tuple[int, int] = (1, 1)) -> nib.Nifti1Header:
    """A header of 4 x 5 x 6 voxels of 0.8 x 0.8 x 2.5 mm with these forms; a form of None is not set."""
    image = nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), AFFINE)
    image.header.set_sform(sform, codes[0] if sform is not None else 0)
    image.header.set_qform(qform, codes[1] if qform is not None else 0, strip_shears=False)
    image.header["pixdim"][1:4] = (0.8, 0.8, 2.5)
    return image.header


ZERO, NAN, FLAT = np.zeros((4, 4)), np.full((4, 4), np.nan), AFFINE * [[1], [1], [0], [1]]


TEMPLATE = np.diag([0.9, 0.9, 2.7, 1.0])


@pytest.mark.parametrize(
    ("sform", "qform", "codes", "expected", "disputed"),
    [
        (AFFINE, AFFINE, (1, 1), AFFINE, False),
        (AFFINE, None, (2, 0), AFFINE, False),
        (None, AFFINE, (0, 1), AFFINE, False),
        (ZERO, AFFINE, (1, 1), AFFINE, False),
        (NAN, AFFINE, (1, 1), AFFINE, False),
        (FLAT, AFFINE, (2, 1), AFFINE, False),
        (MOVED, AFFINE, (1, 1), MOVED, True),  # both credible: the sform wins
        (TEMPLATE, AFFINE, (4, 1), AFFINE, True),  # MNI's millimetres are not the patient's
        (np.eye(4), AFFINE, (1, 1), AFFINE, True),  # an sform nobody filled in
        (np.eye(4), None, (1, 0), np.eye(4), True),
    ],
)
def test_which_orientation_wins(
    sform: Array | None, qform: Array | None, codes: tuple[int, int], expected: Array, disputed: bool
) -> None:
    affine, found = orientation(header(sform, qform, codes))
    np.testing.assert_allclose(affine, expected, atol=1e-4)
    assert found == disputed


def _broken_quaternion() -> nib.Nifti1Header:
    broken = header(ZERO, AFFINE)
    broken["quatern_b"] = 1.5
    return broken


@pytest.mark.parametrize("spoiled", [header(None, None), header(ZERO, None), header(NAN, None), _broken_quaternion()])
def test_a_header_without_a_usable_orientation_is_refused(spoiled: nib.Nifti1Header) -> None:
    with pytest.raises(StudyExcluded) as caught:
        orientation(spoiled)
    assert caught.value.reason is Reason.NO_GEOMETRY


def test_a_file_with_a_zero_sform_lies_where_its_qform_says() -> None:
    hu: npt.NDArray[np.int16] = np.arange(120, dtype=np.int16).reshape(4, 5, 6)
    good = nib.Nifti1Image(hu, AFFINE)
    good.set_qform(AFFINE, 1)
    raw = bytearray(good.to_bytes())
    struct.pack_into("<h", raw, 254, 1)
    raw[280:328] = bytes(48)
    for expected, found in zip(nifti_grid(good.to_bytes()), nifti_grid(gzip.compress(raw)), strict=True):
        np.testing.assert_allclose(expected, found, atol=1e-4)


def test_a_volume_with_two_orientations_is_flagged(tmp_path: Path) -> None:
    hu: npt.NDArray[np.int16] = np.random.default_rng(0).integers(-1000, 900, (40, 40, 40)).astype(np.int16)
    flags = {}
    for name, qform in (("same", AFFINE), ("other", MOVED)):
        image = nib.Nifti1Image(hu, AFFINE)
        image.set_sform(AFFINE, 1)
        image.set_qform(qform, 1)
        nib.save(image, tmp_path / f"{name}_ct.nii.gz")
        with open_study(study_at(tmp_path / f"{name}_ct.nii.gz")) as objects:
            assert isinstance(objects, NiftiObjects)
            flags[name] = read_nifti(objects).flags
    assert flags == {"same": (), "other": ("orientation_disputed",)}


def test_nifti_round_trip_keeps_hu_and_affine(tmp_path: Path) -> None:
    write_series(tmp_path / "series", count=6)
    volume = read(tmp_path / "series")
    write_nifti(volume, tmp_path / "out.nii.gz")
    with open_study(study_at(tmp_path / "out.nii.gz")) as objects:
        again = read_nifti(objects)
    np.testing.assert_array_equal(volume.hu_DHW, again.hu_DHW)
    np.testing.assert_allclose(volume.affine, again.affine, atol=1e-4)
    with pytest.raises(BadInput):
        write_nifti(volume, tmp_path / "out.dcm")
    with pytest.raises(BadInput):
        write_nifti(volume, tmp_path / "absent" / "out.nii")


def test_nifti_axes_are_turned_to_the_patients_axes(tmp_path: Path) -> None:
    import nibabel as nib

    z, y, x = np.meshgrid(np.arange(5) * 4.0, np.arange(6) * 2.0, np.arange(7) * 3.0, indexing="ij")
    hu_zyx = np.rint(formula(np.stack([x, y, z], -1))).astype(np.int16)
    hu_zyx[0, 0, 0] = -1000
    # Stored along (z, x, y), superior to inferior and left to right: every axis must be turned.
    stored = np.transpose(hu_zyx, (0, 2, 1))[::-1, ::-1]
    affine = np.array([[0, 3.0, 0, -18], [0, 0, -2.0, 0], [-4.0, 0, 0, 16], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(stored, affine), tmp_path / "a.nii.gz")
    with open_study(study_at(tmp_path / "a.nii.gz")) as objects:
        volume = read_nifti(objects)
    np.testing.assert_array_equal(volume.hu_DHW, hu_zyx)
    np.testing.assert_allclose(volume.affine, [[0, 0, 3, 0], [0, 2, 0, 0], [4, 0, 0, 0], [0, 0, 0, 1]], atol=1e-6)


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32, ">i2"])
@pytest.mark.parametrize("scaled", [False, True])
def test_nifti_of_every_type_is_clipped_to_hu(tmp_path: Path, kind: np.dtype, scaled: bool) -> None:
    import nibabel as nib

    values = np.random.default_rng(0).integers(0, 30_000, (4, 5, 6, 1)).astype(kind)
    image = nib.Nifti1Image(values, np.diag([-1, -1, 1, 1]))
    if scaled:
        image.header.set_slope_inter(0.5, -1100)
    nib.save(image, tmp_path / "a.nii.gz")
    expected = np.clip(np.asanyarray(nib.load(tmp_path / "a.nii.gz").dataobj)[..., 0].T, AIR_HU, 32767)
    with open_study(study_at(tmp_path / "a.nii.gz")) as objects:
        volume = read_nifti(objects)
    np.testing.assert_array_equal(volume.hu_DHW, expected.astype(np.float32))
    assert volume.hu_DHW.dtype == (np.int16 if np.array_equal(np.rint(expected), expected) else np.float32)


def test_nifti_label_map_or_garbage_is_not_ct(tmp_path: Path) -> None:
    import nibabel as nib

    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4)), tmp_path / "labels.nii")
    (tmp_path / "garbage.nii.gz").write_bytes(b"\x1f\x8b garbage")
    for name, reason in (("labels.nii", Reason.NOT_CT), ("garbage.nii.gz", Reason.BROKEN_ARCHIVE)):
        with open_study(study_at(tmp_path / name)) as objects, pytest.raises(StudyProblem) as caught:
            read_nifti(objects)
        assert caught.value.reason is reason
