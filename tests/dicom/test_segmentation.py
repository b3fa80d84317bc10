"""Vertebra labels from DICOM SEG objects, on the grid of the chosen volume."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import highdicom as hd
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from spinemet.anatomy import LEVEL_INDEX, LEVELS
from spinemet.archive.listing import open_study, study_at
from spinemet.dicom.headers import read_series
from spinemet.dicom.segmentation import find_labels, labels_from_nifti, segment_levels
from spinemet.dicom.volume import read_volume, write_nifti
from spinemet.errors import Reason, StudyFailed
from spinemet.types import LabelMap, Volume
from tests.dicom.writer import write_series

BLOCKS = {"T11": slice(13, 17), "T12": slice(8, 12), "L1": slice(2, 6)}


def blocks(shape: tuple[int, ...] = (20, 24, 32)) -> npt.NDArray[np.uint8]:
    """Three boxes, caudal to cranial along D as in a series with ascending z: 3, 2, 1 for L1, T12, T11."""
    numbers = np.zeros(shape, np.uint8)
    for number, box in enumerate(BLOCKS.values(), start=1):
        numbers[box, 5:15, 8:20] = number
    return numbers


def write_seg(
    path: Path,
    files: Sequence[Path],
    numbers_DHW: npt.NDArray[np.uint8],
    names: Sequence[str] = ("T11 vertebra", "vertebrae_T12", "L1"),
    kind: str = "BINARY",
) -> None:
    """A SEG of the slices in `files`, in their order."""
    algorithm = hd.AlgorithmIdentificationSequence("test", codes.DCM.ArtificialIntelligence, "1")
    description = [
        hd.seg.SegmentDescription(number, name, codes.SCT.AnatomicalStructure, codes.SCT.Bone, "AUTOMATIC", algorithm)
        for number, name in enumerate(names, start=1)
    ]
    pixels = numbers_DHW  # (D, H, W), or (D, H, W, segment) if segments overlap
    if kind == "FRACTIONAL":
        pixels = (numbers_DHW == 1).astype(np.float32) * 0.8
    segmentation = hd.seg.Segmentation(
        [pydicom.dcmread(file) for file in files], pixels, kind, description[: 1 if kind == "FRACTIONAL" else None],
        hd.UID(), 300, hd.UID(), 1, "TEST", "test", "1", "1", omit_empty_frames=True,
    )  # fmt: skip
    segmentation.save_as(path)


def read(place: Path) -> tuple[Volume, LabelMap | None]:
    with open_study(study_at(place)) as objects:
        series = read_series(objects).series
        chosen = max((item for item in series if item.Modality == "CT"), key=lambda item: len(item.instances))
        volume = read_volume(objects, chosen)
        return volume, find_labels(objects, series, chosen, volume)


def levels_of(labels_DHW: npt.NDArray[np.uint8]) -> dict[str, int]:
    """Voxels of each level."""
    numbers, counts = np.unique(labels_DHW[labels_DHW > 0], return_counts=True)
    return {LEVELS[number - 1]: int(count) for number, count in zip(numbers, counts, strict=True)}


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
@pytest.mark.parametrize("first", [0, 7])
def test_dicom_seg_is_put_on_the_volumes_grid(tmp_path: Path, kind: str, first: int) -> None:
    files = write_series(tmp_path)[::-1]  # by place
    numbers = blocks()
    # A SEG of part of the slices, from the top down, leaves out L1.
    write_seg(tmp_path / "seg.dcm", files[first:][::-1], numbers[first:][::-1], kind=kind)
    volume, labels = read(tmp_path)
    assert labels is not None
    np.testing.assert_array_equal(labels.affine, volume.affine)
    expected = np.zeros_like(numbers)
    for number, level in enumerate(BLOCKS, start=1):
        expected[numbers == number] = 1 + LEVEL_INDEX[level]
    expected[:first] = 0
    np.testing.assert_array_equal(labels.labels_DHW, expected)


def test_fractional_segments_count_from_one_half(tmp_path: Path) -> None:
    files = write_series(tmp_path)[::-1]
    write_seg(tmp_path / "seg.dcm", files, blocks(), kind="FRACTIONAL")
    _, labels = read(tmp_path)
    assert labels is not None
    assert levels_of(labels.labels_DHW) == {"T11": 4 * 10 * 12}


def test_the_segmentation_of_the_chosen_series_wins(tmp_path: Path) -> None:
    thick = write_series(tmp_path / "thick", count=10, step=(0, 0, 6.0))[::-1]
    thin = write_series(tmp_path / "thin")[::-1]
    write_seg(tmp_path / "a.dcm", thick, blocks()[::2], names=("C1", "C2", "C3"))
    volume, other = read(tmp_path)
    assert other is not None
    # Only the other series has labels; each of their slices fills two of this grid.
    assert set(levels_of(other.labels_DHW)) == {"C1", "C2", "C3"}
    assert other.labels_DHW.shape == volume.hu_DHW.shape
    write_seg(tmp_path / "b.dcm", thin, blocks())
    _, labels = read(tmp_path)
    assert labels is not None
    assert set(levels_of(labels.labels_DHW)) == set(BLOCKS)


def test_segments_of_other_structures_give_no_labels(tmp_path: Path) -> None:
    files = write_series(tmp_path)[::-1]
    write_seg(tmp_path / "seg.dcm", files, blocks(), names=("Liver", "T12 rib", "T12-L1 disc"))
    assert read(tmp_path)[1] is None


def one_seg_each(place: Path, levels: Sequence[str] = tuple(BLOCKS)) -> list[Path]:
    """A series, and one SEG object for each block, named by `levels`; the paths of the slices."""
    files = write_series(place)[::-1]
    for number, level in enumerate(levels, start=1):
        write_seg(place / f"seg{number}.dcm", files, (blocks() == number).astype(np.uint8), names=(level,))
    return files


def test_one_object_per_vertebra_is_one_segmentation(tmp_path: Path) -> None:
    one_seg_each(tmp_path / "each")
    files = write_series(tmp_path / "all")[::-1]
    write_seg(tmp_path / "all" / "seg.dcm", files, blocks())
    (_, joined), (_, whole) = read(tmp_path / "each"), read(tmp_path / "all")
    assert joined is not None
    assert whole is not None
    np.testing.assert_array_equal(joined.labels_DHW, whole.labels_DHW)
    assert joined.bodies_only == whole.bodies_only


def test_a_vertebra_in_two_objects_counts_once(tmp_path: Path) -> None:
    files = one_seg_each(tmp_path)
    larger = np.zeros_like(blocks())
    larger[BLOCKS["T12"], 4:16, 7:21] = 1
    write_seg(tmp_path / "z.dcm", files, larger, names=("Th12",))
    _, labels = read(tmp_path)
    assert labels is not None
    assert levels_of(labels.labels_DHW) == dict.fromkeys(BLOCKS, 4 * 10 * 12)


@pytest.mark.parametrize("levels", [("T11", "T12", "T12"), ("T11", "Vertebra 12", "L1"), ("T11", "T14", "L1")])
def test_objects_that_contradict_each_other_or_have_no_known_level_are_refused(
    tmp_path: Path, levels: tuple[str, ...]
) -> None:
    one_seg_each(tmp_path, levels)
    with pytest.raises(StudyFailed) as caught:
        read(tmp_path)
    assert caught.value.reason is Reason.BAD_SEGMENTATION


def test_two_segmentations_that_name_one_spine_differently_are_refused(tmp_path: Path) -> None:
    files = write_series(tmp_path)[::-1]
    write_seg(tmp_path / "a.dcm", files, blocks())
    write_seg(tmp_path / "b.dcm", files, blocks(), names=("T12", "L1", "L2"))
    with pytest.raises(StudyFailed, match="contradict"):
        read(tmp_path)


def _check_broken(seg: Path) -> None:
    """The study of `seg` has a bad segmentation once `seg` has lost the groups of its frames."""
    dataset = pydicom.dcmread(seg)
    del dataset.PerFrameFunctionalGroupsSequence
    dataset.save_as(seg)
    with pytest.raises(StudyFailed) as caught:
        read(seg.parent)
    assert caught.value.reason is Reason.BAD_SEGMENTATION


def test_one_broken_object_of_several_is_no_missing_vertebra(tmp_path: Path) -> None:
    one_seg_each(tmp_path)
    _check_broken(tmp_path / "seg2.dcm")


@pytest.mark.parametrize("shift", [0, 3])
def test_overlapping_segments_of_one_object(tmp_path: Path, shift: int) -> None:
    files = write_series(tmp_path)[::-1]
    apart = np.stack([blocks() == number for number in (1, 2, 3)], axis=-1).astype(np.uint8)
    apart[..., 1] = np.roll(apart[..., 0], -shift, 0)  # T12 over T11, or over its lowest slice
    write_seg(tmp_path / "seg.dcm", files, apart)
    if not shift:
        with pytest.raises(StudyFailed, match="contradict"):
            read(tmp_path)
        return
    _, labels = read(tmp_path)
    assert labels is not None
    assert levels_of(labels.labels_DHW) == {"T11": 4 * 120, "T12": 3 * 120, "L1": 4 * 120}


def segment(label: str, code: Code = codes.SCT.Vertebra, region: Code | None = None) -> pydicom.Dataset:
    one = pydicom.Dataset()
    one.SegmentLabel = label
    one.SegmentedPropertyTypeCodeSequence = [hd.sr.CodedConcept.from_code(code)]
    if region is not None:
        one.AnatomicRegionSequence = [hd.sr.CodedConcept.from_code(region)]
    return one


def segment_levels_of(*segments: pydicom.Dataset) -> list[str]:
    for number, one in enumerate(segments, start=1):
        one.SegmentNumber = number
    return list(segment_levels(segments).values())


def test_levels_come_from_labels_and_codes() -> None:
    lesion = codes.SCT.Neoplasm
    assert segment_levels_of(
        segment("a", codes.SCT.T11Vertebra),
        segment("b", Code("T-117C0", "SRT", "?")),  # SNOMED RT, in objects of before 2019
        segment("c", Code("99", "99LOCAL", "LWK 1")),
        segment("d", region=codes.SCT.L2Vertebra),
        segment("Th3", codes.SCT.Bone),
        segment("metastasis", lesion, region=codes.SCT.L4Vertebra),
        segment("Liver", codes.SCT.Liver),
        segment("sacrum", codes.SCT.Sacrum),
    ) == ["T11", "T12", "L1", "L2", "T3"]


def test_parts_of_one_vertebra_belong_together() -> None:
    parts = [segment("L1 vertebral body"), segment("L1 posterior elements"), segment("L2")]
    assert segment_levels_of(*parts) == ["L1", "L1", "L2"]


@pytest.mark.parametrize(
    "segments",
    [
        [segment("L1"), segment("L1")],
        [segment("L1", codes.SCT.T11Vertebra)],
        [segment("L1"), segment("spine bone 3")],  # its code is Vertebra
        [segment("L1", codes.SCT.Bone), segment("Wirbel 12", codes.SCT.Bone)],
    ],
)
def test_segments_that_may_be_vertebrae_of_another_name_are_refused(segments: list[pydicom.Dataset]) -> None:
    with pytest.raises(StudyFailed) as caught:
        segment_levels_of(*segments)
    assert caught.value.reason is Reason.BAD_SEGMENTATION


def test_a_broken_segmentation_has_its_reason(tmp_path: Path) -> None:
    files = write_series(tmp_path)[::-1]
    write_seg(tmp_path / "seg.dcm", files, blocks())
    _check_broken(tmp_path / "seg.dcm")


def test_a_label_map_on_another_grid_is_resampled(tmp_path: Path) -> None:
    volume = Volume(np.zeros((20, 24, 32), np.int16), np.diag([1.25, 1.5, 6.0, 1])[:, [2, 1, 0, 3]])
    fine = np.repeat(np.repeat(blocks(), 3, 0), 2, 2)
    verse = np.array([0, 18, 19, 20], np.uint8)[fine]
    affine = np.diag([0.625, 1.5, 2.0, 1])[:, [2, 1, 0, 3]]
    affine[:3, 3] = (-0.3125, 0, -2.0)
    write_nifti(Volume(verse.astype(np.int16), affine), tmp_path / "labels.nii.gz")
    labels = labels_from_nifti((tmp_path / "labels.nii.gz").read_bytes(), volume)
    assert levels_of(labels.labels_DHW) == dict.fromkeys(BLOCKS, 4 * 10 * 12)
    np.testing.assert_array_equal(labels.labels_DHW > 0, blocks() > 0)
    # And on an oblique grid, with no two axes parallel.
    turn = np.eye(4)
    turn[1:3, 1:3] = [[0.98, -0.199], [0.199, 0.98]]
    oblique = labels_from_nifti((tmp_path / "labels.nii.gz").read_bytes(), Volume(volume.hu_DHW, turn @ volume.affine))
    assert 0.7 < levels_of(oblique.labels_DHW)["T12"] / 480 < 1.2
