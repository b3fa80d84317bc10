"""The scheme of a label map's numbers, and the voxels of a mask."""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import numpy.typing as npt
import pytest

from spinemet.anatomy import (
    TOTALSEGMENTATOR_1_LEVELS,
    TOTALSEGMENTATOR_LEVELS,
    USUAL_LEVELS,
    VERSE_LEVELS,
)
from spinemet.dicom.label_numbers import mask_of, numbering, whole_numbers
from spinemet.errors import Reason, StudyFailed

AFFINE = np.diag([5.0, 5.0, 1.0, 1.0])[:, [2, 1, 0, 3]]
STEPS_MM = dict(
    zip(
        USUAL_LEVELS,
        [17] * 6 + [18, 19, 20, 20, 21, 22, 22, 23, 24, 25, 27, 29, 32, 34, 36, 37, 36, 34, 30],
        strict=True,
    )
)
"""From each level to the next one."""
SCHEMES = (VERSE_LEVELS, TOTALSEGMENTATOR_LEVELS, TOTALSEGMENTATOR_1_LEVELS)


def spine(numbers: dict[str, int], scale: float = 1.0) -> npt.NDArray[np.int32]:
    """A label map of boxes, 1 mm along D, at an adult's distances times `scale`; numbers: level to number."""
    levels = [level for level in USUAL_LEVELS if level in numbers]
    depths = [0.0, *accumulate(STEPS_MM[level] * scale for level in levels[:-1])]
    labels = np.zeros((round(depths[-1]) + 60, 30, 30), np.int32)
    for level, depth in zip(levels, depths, strict=True):
        bottom = len(labels) - 30 - round(depth)
        labels[bottom : bottom + round(0.7 * STEPS_MM[level] * scale), 10:20, 11:19] = numbers[level]
    return labels


def in_scheme(levels: dict[int, str], first: str, last: str) -> dict[str, int]:
    view = USUAL_LEVELS[USUAL_LEVELS.index(first) : USUAL_LEVELS.index(last) + 1]
    return {level: number for number, level in levels.items() if level in view}


@pytest.mark.parametrize("scheme", SCHEMES[:2])
@pytest.mark.parametrize(
    ("first", "last"), [("T11", "L1"), ("L4", "S1"), ("C6", "T1"), ("T9", "S1"), ("C3", "L5"), ("T5", "T6")]
)
def test_numbers_show_their_scheme(scheme: dict[int, str], first: str, last: str) -> None:
    labels = spine(in_scheme(scheme, first, last))
    assert numbering(labels, AFFINE) is scheme
    with pytest.raises(StudyFailed):
        numbering(labels[::-1], AFFINE)  # upside down: the file's orientation or its labels are wrong


@pytest.mark.parametrize("last", ["L1", "L3", "L5"])
def test_version_1_of_totalsegmentator_is_no_version_2(last: str) -> None:
    assert numbering(spine(in_scheme(TOTALSEGMENTATOR_1_LEVELS, "T3", last)), AFFINE) is TOTALSEGMENTATOR_1_LEVELS


def test_a_child_of_six_may_be_refused_but_is_never_version_1() -> None:
    labels = spine(in_scheme(TOTALSEGMENTATOR_LEVELS, "T1", "S1"), scale=0.75)
    assert numbering(labels, AFFINE) is TOTALSEGMENTATOR_LEVELS
    with pytest.raises(StudyFailed):
        numbering(spine(in_scheme(TOTALSEGMENTATOR_LEVELS, "T1", "S1"), scale=0.6), AFFINE)


def counted(first: str, last: str, start: int, step: int = 1) -> dict[str, int]:
    view = USUAL_LEVELS[USUAL_LEVELS.index(first) : USUAL_LEVELS.index(last) + 1]
    return {level: start + step * n for n, level in enumerate(view)}


@pytest.mark.parametrize(
    "numbers",
    [
        counted("T11", "L5", 1),  # as VerSe: C1 to C7
        counted("L1", "L5", 5, -1),  # SPIDER counts up from L5
        counted("L1", "L5", 101),
        counted("T1", "L5", 1),  # as VerSe: C1 to T10
        in_scheme(TOTALSEGMENTATOR_1_LEVELS, "T1", "T9"),  # as version 2: T10 to S1, 0.64 of their distances
        {"T1": 21, "T2": 22, "T3": 23, "T4": 24, "T5": 25},  # TotalSpineSeg; as VerSe: L2 to L6
        {"L1": 41, "L2": 42, "L3": 43},
        {"T12": 19, "L1": 20, "L2": 22, "L3": 21, "L4": 23},  # VerSe with two swapped
        {"T12": 19, "L1": 20, "L2": 200, "L3": 22, "L4": 23},  # VerSe with one of another scheme between
        {"L2": 1},  # a mask
        {"L2": 28},  # T13 in VerSe, L4 in TotalSegmentator
    ],
)
def test_numbers_of_another_scheme_are_refused(numbers: dict[str, int]) -> None:
    with pytest.raises(StudyFailed) as caught:
        numbering(spine(numbers), AFFINE)
    assert caught.value.reason is Reason.BAD_SEGMENTATION


def test_a_mask_of_the_whole_spine_is_no_vertebra() -> None:
    labels = np.zeros((300, 30, 30), np.int32)
    labels[20:280, 10:20, 10:20] = 22
    with pytest.raises(StudyFailed, match="taller"):
        numbering(labels, AFFINE)


def test_organs_beside_the_spine_are_no_vertebrae() -> None:
    labels = spine(in_scheme(TOTALSEGMENTATOR_LEVELS, "T9", "S1"))
    labels[100:160, 0:9, 0:8] = 5  # the liver
    labels[:, 21:23, 15:16] = 79  # the spinal cord
    labels[5:20, 8:22, 8:22] = 25  # the sacrum
    assert numbering(labels, AFFINE) is TOTALSEGMENTATOR_LEVELS


BOX = np.zeros((4, 6, 6))
BOX[1:3, 2:5, 2:5] = 1
SOFT = (BOX + np.roll(BOX, 1, 1) + np.roll(BOX, -1, 1)) / 3  # 0.33 outside the edge, 0.67 inside


@pytest.mark.parametrize(
    "values",
    [
        BOX.astype(np.uint8),
        BOX.astype(bool).astype(np.float64) * 0.999998,
        SOFT,
        SOFT * 0.9 + 1e-7,
        np.where(BOX > 0, 1.0000001, -1e-6),
        np.where(BOX > 0, 1.0, np.nan),
        (BOX * 255).astype(np.uint8),
        (SOFT * 255).astype(np.uint8),
        (SOFT * 100).astype(np.int16),
        BOX * 20,
    ],
)
def test_a_mask_counts_from_one_half(values: npt.NDArray[np.generic]) -> None:
    np.testing.assert_array_equal(mask_of(values), BOX > 0)


@pytest.mark.parametrize("values", [BOX * 0, BOX * 0.3, BOX + np.nan])
def test_an_empty_mask_is_empty(values: npt.NDArray[np.generic]) -> None:
    assert not mask_of(values).any()


@pytest.mark.parametrize("values", [SOFT * 16 - 8, BOX * np.arange(1, 7), SOFT * 20, np.where(BOX > 0, 1, -3)])
def test_values_of_another_kind_are_no_mask(values: npt.NDArray[np.generic]) -> None:
    with pytest.raises(StudyFailed, match="expected a mask"):
        mask_of(values)


@pytest.mark.parametrize(
    "values", [BOX * 19.0, BOX * 19.000002, np.where(BOX > 0, 18.999998, np.nan), np.where(BOX > 0, 19, -1)]
)
def test_label_maps_stored_as_float_hold_whole_numbers(values: npt.NDArray[np.generic]) -> None:
    np.testing.assert_array_equal(whole_numbers(values), 19 * (BOX > 0))


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.uint16, np.int32, np.uint64])
def test_every_integer_type_holds_labels(kind: type[np.generic]) -> None:
    np.testing.assert_array_equal(whole_numbers((19 * BOX).astype(kind)), 19 * (BOX > 0))


@pytest.mark.parametrize("values", [SOFT, SOFT * 19, BOX * 0.98, np.where(BOX > 0, 19.5, 0)])
def test_fractions_are_no_labels(values: npt.NDArray[np.generic]) -> None:
    with pytest.raises(StudyFailed, match="fractions"):
        whole_numbers(values)
