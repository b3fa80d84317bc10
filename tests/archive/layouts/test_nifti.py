"""Which NIfTI files are images, which masks are theirs, and whose they are."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spinemet.archive.layouts.nifti import NiftiObjects, Role, identity, role
from spinemet.archive.listing import list_studies, open_study, study_at
from spinemet.archive.store import Unlisted
from tests.archive.conftest import Put


@pytest.mark.parametrize(
    ("key", "patient", "study"),
    [
        ("sub-1/sub-1_ct.nii.gz", "sub-1", "sub-1_ct"),
        (
            "rawdata/sub-verse004/sub-verse004_split-verse123_ct.nii.gz",
            "sub-verse004",
            "sub-verse004_split-verse123_ct",
        ),
        ("verse19/rawdata/sub-verse004/sub-verse004_ct.nii.gz", "sub-verse004", "sub-verse004_ct"),
        ("sub-1/ses-2/anat/sub-1_ses-2_ct.nii", "sub-1", "sub-1_ses-2_ct"),
        ("data-a/rawdata/sub-1/sub-1_ct.nii.gz", "data-a/sub-1", "data-a/sub-1_ct"),
        ("data-b/sub-1/sub-1_ct.nii.gz", "data-b/sub-1", "data-b/sub-1_ct"),
        ("s0001/ct.nii.gz", "s0001", "s0001/ct"),
        ("s0002/ct.nii.gz", "s0002", "s0002/ct"),
        ("train/s0001/CT.NII.GZ", "train/s0001", "train/s0001/CT"),
        ("s0001/image.nii", "s0001", "s0001/image"),
        ("ct.nii.gz", "archive", "archive/ct"),
        ("liver_0.nii.gz", "liver_0", "liver_0"),
        ("liver_1.nii.gz", "liver_1", "liver_1"),
        ("volume-12.nii", "volume-12", "volume-12"),
        ("a/liver_0.nii.gz", "a/liver_0", "a/liver_0"),
        ("p7_ct.nii.gz", "p7", "p7_ct"),
        ("p7_1_ct.nii.gz", "p7_1", "p7_1_ct"),
        ("1.3.6.1.4.1.14519.5.2.0001.nii.gz", "1.3.6.1.4.1.14519.5.2.0001", "1.3.6.1.4.1.14519.5.2.0001"),
        ("1.3.6.1.4.1.14519.5.2.0002.nii.gz", "1.3.6.1.4.1.14519.5.2.0002", "1.3.6.1.4.1.14519.5.2.0002"),
    ],
)
def test_identity_comes_from_bids_names_folders_or_the_whole_path(key: str, patient: str, study: str) -> None:
    assert identity("/data/archive", key) == (patient, study)


NAMES = st.sampled_from(["ct", "image", "liver_0", "liver_1", "p_ct", "sub-1_ct", "sub-2_ses-1_ct", "1.3.6"])
FOLDERS = st.lists(st.sampled_from(["a", "b", "s1", "imagesTr"]), max_size=2)


@given(st.lists(st.tuples(FOLDERS, NAMES).map(lambda pair: "/".join([*pair[0], pair[1]])), unique=True, min_size=2))
def test_no_two_files_share_a_study(paths: list[str]) -> None:
    studies = [identity("/x/y", f"{path}.nii.gz")[1] for path in paths]
    assert len(set(studies)) == len(studies)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("s/ct.nii.gz", Role.IMAGE),
        ("s/x_ct.nii", Role.IMAGE),
        ("s/volume-1.nii.gz", Role.IMAGE),
        ("s/sub-1_seg-vert_msk.nii.gz", Role.LABEL_MAP),
        ("s/sub-1_seg-subreg_msk.nii.gz", Role.OTHER),
        ("s/segmentations/vertebrae_L1.nii.gz", Role.VERTEBRA_MASK),
        ("s/segmentations/liver.nii.gz", Role.OTHER),
        ("s/segmentations/ct.nii.gz", Role.OTHER),
        ("s/segmentation-1.nii", Role.OTHER),
        ("s/totalseg.nii.gz", Role.OTHER),
    ],
)
def test_roles(key: str, expected: Role) -> None:
    assert role(key) is expected
    assert role(key, beside_ct=True) in {expected, Role.OTHER}


def test_a_study_knows_its_image_and_its_masks(put: Put) -> None:
    files = [
        "s1/ct.nii.gz",
        *(f"s1/segmentations/{name}.nii.gz" for name in ("vertebrae_L1", "vertebrae_T12", "liver")),
    ]
    files += ["sub-2/sub-2_ct.nii.gz", "sub-2/sub-2_seg-vert_msk.nii.gz", "sub-2/sub-2_seg-subreg_msk.nii.gz"]
    refs = {ref.key: ref for ref in list_studies(put(dict.fromkeys(files, b"x")))}
    assert set(refs) == {files[0], files[4]}
    with open_study(refs[files[0]]) as one, open_study(refs[files[4]]) as two:
        assert isinstance(one, NiftiObjects)
        assert isinstance(two, NiftiObjects)
        assert (one.image, one.label_map, one.vertebra_masks) == (files[0], None, files[1:3])
        assert (two.image, two.label_map, two.vertebra_masks) == (files[4], files[5], [])
        assert (one.patient, one.study) == ("s1", "s1/ct")


def test_of_one_volume_packed_and_plain_one_is_read_and_the_other_counted(put: Put) -> None:
    unlisted: Counter[Unlisted] = Counter()
    uri = put(dict.fromkeys(["a_ct.nii", "a_ct.nii.gz", "b_ct.nii.gz", "c/a_ct.nii"], b"x"))
    assert len(list(list_studies(uri, unlisted))) == 3
    assert unlisted == {Unlisted.TWIN: 1}


@pytest.mark.parametrize(
    ("names", "read"),
    [
        (["7_chest", "7_chest_Tilt_1"], ["7_chest_Tilt_1"]),
        (["7_chest", "7_chest_Eq_1"], ["7_chest_Eq_1"]),
        (["7_chest", "7_chest_Tilt_1", "7_chest_Tilt_Eq_1"], ["7_chest_Tilt_Eq_1"]),
        (["7_chest_Eq_1"], ["7_chest_Eq_1"]),
        (["7_chest", "7_chest2", "7_chesta", "8_chest_Eq_1"], ["7_chest", "7_chest2", "7_chesta", "8_chest_Eq_1"]),
    ],
)
def test_of_the_files_that_dcm2niix_makes_of_one_series_the_repaired_one_is_read(
    put: Put, names: list[str], read: list[str]
) -> None:
    archive = put({f"{name}.nii.gz": b"x" for name in names})
    assert [study.key for study in list_studies(archive)] == [f"{name}.nii.gz" for name in read]


def test_a_label_map_can_be_opened_by_its_path(put: Put) -> None:
    uri = put({"s/totalseg.nii.gz": b"x"})
    with open_study(study_at(f"{uri}/s/totalseg.nii.gz")) as objects:
        assert isinstance(objects, NiftiObjects)
        assert objects.image == "totalseg.nii.gz"
