"""Label maps and masks of vertebrae in NIfTI files."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from spinemet.anatomy import LEVEL_INDEX, TOTALSEGMENTATOR_LEVELS
from spinemet.archive.listing import list_studies, open_study, study_at
from spinemet.dicom.headers import read_series
from spinemet.dicom.segmentation import find_labels, labels_from_nifti
from spinemet.dicom.volume import read_nifti, read_volume, write_nifti
from spinemet.errors import Reason, StudyFailed
from spinemet.types import LabelMap, SeriesHeader, Volume
from tests.dicom.test_segmentation import BLOCKS, blocks, levels_of


def masks_study(place: Path, masks: dict[str, npt.NDArray[np.generic]]) -> tuple[Volume, LabelMap | None]:
    """A study in TotalSegmentator's layout with these masks, read."""
    (place / "segmentations").mkdir(parents=True)
    affine = np.diag([1.25, 1.5, 6.0, 1])[:, [2, 1, 0, 3]]
    hu = np.random.default_rng(0).integers(-1000, 900, (20, 24, 32)).astype(np.int16)
    write_nifti(Volume(hu, affine), place / "ct.nii.gz")
    for name, mask in masks.items():
        image = nib.Nifti1Image(np.transpose(mask, (2, 1, 0)), np.diag([-1.25, -1.5, 6.0, 1]))
        nib.save(image, place / "segmentations" / name)
    with open_study(study_at(place / "ct.nii.gz")) as objects:
        volume = read_nifti(objects)
        return volume, find_labels(objects, (), SeriesHeader(), volume)


def test_masks_of_any_number_type_and_spelling_are_one_label_map(tmp_path: Path) -> None:
    t11, t12, l1 = (blocks() == number for number in (1, 2, 3))
    masks = {
        "vertebrae_T11.nii.gz": t11.astype(np.float32) * 0.9 + np.float32(1e-7),
        "vertebrae_Th12.nii.gz": t12.astype(np.uint8) * 255,
        "L1.nii": np.where(l1, 0.999998, np.nan),
        "liver.nii.gz": t11.astype(np.uint8),
    }
    _, labels = masks_study(tmp_path, masks)
    assert labels is not None
    assert levels_of(labels.labels_DHW) == dict.fromkeys(BLOCKS, 4 * 10 * 12)


@pytest.mark.parametrize("name", ["vertebrae_X12.nii.gz", "vertebrae_Th11.nii.gz", "T14.nii.gz"])
def test_a_mask_of_no_known_or_of_a_repeated_level_is_refused(tmp_path: Path, name: str) -> None:
    mask = (blocks() == 1).astype(np.uint8)
    with pytest.raises(StudyFailed) as caught:
        masks_study(tmp_path, {"vertebrae_T11.nii.gz": mask, name: mask})
    assert caught.value.reason is Reason.BAD_SEGMENTATION


def test_an_unreadable_or_empty_label_map_has_its_reason() -> None:
    volume = Volume(np.zeros((4, 4, 4), np.int16), np.eye(4))
    empty = gzip.compress(nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)).to_bytes())
    for content in (b"garbage", empty):
        with pytest.raises(StudyFailed) as caught:
            labels_from_nifti(content, volume)
        assert caught.value.reason is Reason.BAD_SEGMENTATION


def real(realct: Path, volume: str, labels: str) -> tuple[Volume, LabelMap]:
    with open_study(study_at(realct / volume)) as objects:
        read = read_nifti(objects)
    return read, labels_from_nifti((realct / labels).read_bytes(), read)


def test_both_numberings_of_one_real_spine_agree(realct: Path) -> None:
    place = "totalsegmentator/"
    volume, verse = real(realct, f"{place}example_ct.nii.gz", f"{place}totalseg_vertebrae_pp_refined.nii.gz")
    _, total = real(realct, f"{place}example_ct.nii.gz", f"{place}totalseg.nii.gz")
    assert verse.bodies_only
    assert not total.bodies_only
    assert {"T12", "L1", "L2", "L3", "L4", "L5"} <= set(levels_of(verse.labels_DHW))
    for level in ("L1", "L2", "L3", "L4"):
        number = 1 + LEVEL_INDEX[level]
        body = np.asarray(ndimage.center_of_mass(verse.labels_DHW == number))
        inside = (verse.labels_DHW == number) & (total.labels_DHW == number)
        assert inside.sum() > 0.8 * (verse.labels_DHW == number).sum()
        # The body lies in front of the whole vertebra's centre, and bone is brighter than muscle.
        whole = np.asarray(ndimage.center_of_mass(total.labels_DHW == number))
        assert volume.to_lps(body)[1] < volume.to_lps(whole)[1]
        assert volume.hu_DHW[inside].mean() > 100


def test_a_mask_beside_a_real_volume_is_found(realct: Path) -> None:
    with open_study(study_at(realct / "tptbox" / "sub-ct_label-22_ct.nii.gz")) as objects:
        volume = read_nifti(objects)
        labels = find_labels(objects, (), SeriesHeader(), volume)
    assert labels is not None
    assert set(levels_of(labels.labels_DHW)) == {"L2", "L3", "L4"}
    assert not labels.bodies_only


def test_a_real_nifti_label_map_fits_a_real_dicom_series(realct: Path) -> None:
    place = realct / "totalsegmentator"
    with open_study(study_at(place / "example_ct_dicom")) as objects:
        (series,) = read_series(objects).series
        volume = read_volume(objects, series)
    labels = labels_from_nifti((place / "example_seg_dicom.nii.gz").read_bytes(), volume)
    assert set(levels_of(labels.labels_DHW)) == {"T11", "T12"}
    assert volume.hu_DHW[labels.labels_DHW > 0].mean() > 100


def test_one_mask_per_vertebra_equals_the_label_map(tmp_path: Path, realct: Path) -> None:
    place = realct / "totalsegmentator"
    image = nib.load(place / "totalseg.nii.gz")
    numbers = np.asanyarray(image.dataobj)
    (tmp_path / "s1" / "segmentations").mkdir(parents=True)
    for number, level in TOTALSEGMENTATOR_LEVELS.items():
        mask = nib.Nifti1Image((numbers == number).astype(np.uint8), image.affine)
        nib.save(mask, tmp_path / "s1" / "segmentations" / f"vertebrae_{level}.nii.gz")
    nib.save(mask, tmp_path / "s1" / "segmentations" / "liver.nii.gz")
    # A name that sorts after the masks' folder.
    (tmp_path / "s1" / "volume.nii.gz").write_bytes((place / "example_ct.nii.gz").read_bytes())
    (ref,) = list_studies(str(tmp_path))
    assert len(ref.objects) == 1 + len(TOTALSEGMENTATOR_LEVELS)
    assert len(study_at(tmp_path / "s1" / "volume.nii.gz").objects) == len(ref.objects)
    with open_study(ref) as objects:
        volume = read_nifti(objects)
        labels = find_labels(objects, (), SeriesHeader(), volume)
    assert labels is not None
    expected = labels_from_nifti((place / "totalseg.nii.gz").read_bytes(), volume)
    assert np.array_equal(labels.labels_DHW, expected.labels_DHW)
