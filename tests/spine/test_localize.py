"""Which method finds the spine; labels that do not lie on the bones are rejected."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from spinemet.anatomy import LEVEL_INDEX
from spinemet.errors import Reason, StudyExcluded, StudyFailed
from spinemet.spine.localize import checked, localize, with_ends
from spinemet.spine.masks import spine_from_labels
from spinemet.types import Completeness, Flag, LabelMap, Method, Spine, SpineCurve, Vertebra, Volume


def test_labels_win_over_geometry(patch: Volume, patch_labels: LabelMap) -> None:
    spine = localize(patch, patch_labels, "auto")
    assert spine.method == "masks"
    assert [v.level for v in spine.vertebrae] == ["L2", "L3", "L4"]


def test_geometry_is_used_without_labels_or_on_request(patch: Volume, patch_labels: LabelMap) -> None:
    assert localize(patch, None, "auto").method == "geometric"
    assert localize(patch, patch_labels, "geometric").method == "geometric"


def test_masks_without_labels_is_excluded(patch: Volume) -> None:
    with pytest.raises(StudyExcluded, match="segmentation") as raised:
        localize(patch, None, "masks")
    assert raised.value.reason is Reason.NO_SPINE


def test_unusable_labels_are_flagged_or_rejected(patch: Volume, patch_labels: LabelMap) -> None:
    numbers = np.unique(patch_labels.labels_DHW)[1:]
    table = np.zeros(256, np.uint8)
    table[numbers] = numbers[::-1]
    upside_down = replace(patch_labels, labels_DHW=table[patch_labels.labels_DHW])
    spine = localize(patch, upside_down, "auto")
    assert spine.method == "geometric"
    assert all("labels_unusable" in v.flags for v in spine.vertebrae)
    with pytest.raises(StudyFailed) as raised:
        localize(patch, upside_down, "masks")
    assert raised.value.reason is Reason.BAD_SEGMENTATION


def test_right_labels_pass_unchanged(abdomen: Volume, abdomen_whole: LabelMap) -> None:
    spine = localize(abdomen, abdomen_whole, "masks")
    assert [v.level for v in spine.vertebrae] == ["T12", "L1", "L2", "L3", "L4", "L5", "S1"]
    assert not any({Flag.LEVEL_DISPUTED, Flag.LABELS_UNCHECKED} & set(v.flags) for v in spine.vertebrae)
    assert {v.level_confidence for v in spine.vertebrae} == {0.99}  # the geometric localizer gives the same names


def test_names_that_the_ct_can_neither_confirm_nor_deny_are_less_sure(
    abdomen: Volume, abdomen_bodies: LabelMap
) -> None:
    """Without ribs and sacrum in view, the geometric localizer finds the bodies and names none."""
    lumbar = (abdomen_bodies.labels_DHW >= 1 + LEVEL_INDEX["L1"]) & (abdomen_bodies.labels_DHW <= 1 + LEVEL_INDEX["L4"])
    rows = np.flatnonzero(lumbar.any((1, 2)))
    columns = np.flatnonzero((abdomen_bodies.labels_DHW > 0).any((0, 1)))
    part = np.s_[rows[0] - 2 : rows[-1] + 3, :, columns[0] - 12 : columns[-1] + 13]
    affine = abdomen.affine.copy()
    affine[:3, 3] += affine[:3, [0, 2]] @ (rows[0] - 2, columns[0] - 12)
    labels = replace(abdomen_bodies, labels_DHW=abdomen_bodies.labels_DHW[part], affine=affine)
    spine = localize(Volume(abdomen.hu_DHW[part], affine), labels)
    assert spine.method == "masks"
    assert {v.level_confidence for v in spine.vertebrae} == {0.9}


def _renamed(labels: LabelMap, levels: dict[str, str]) -> LabelMap:
    table = np.arange(256, dtype=np.uint8)
    for old, new in levels.items():
        table[1 + LEVEL_INDEX[old]] = 1 + LEVEL_INDEX[new]
    return replace(labels, labels_DHW=table[labels.labels_DHW])


def test_names_far_from_those_of_the_ct_are_refused(abdomen: Volume, abdomen_bodies: LabelMap) -> None:
    levels = ("T12", "L1", "L2", "L3", "L4", "L5", "S1")
    higher = _renamed(abdomen_bodies, dict(zip(levels, [f"T{n}" for n in range(5, 12)], strict=True)))
    with pytest.raises(StudyFailed, match="levels") as raised:
        localize(abdomen, higher, "masks")
    assert raised.value.reason is Reason.BAD_SEGMENTATION
    assert {v.level for v in localize(abdomen, higher).vertebrae} <= set(levels)


def _shifted(labels: LabelMap, step_mm: tuple[float, float, float]) -> LabelMap:
    affine = labels.affine.copy()
    affine[:3, 3] += step_mm
    return replace(labels, affine=affine)


@pytest.mark.parametrize("step_mm", [(15.0, 0.0, 0.0), (0.0, -15.0, 0.0), (0.0, 0.0, 15.0)])
def test_shifted_labels_are_rejected(
    abdomen: Volume, abdomen_bodies: LabelMap, step_mm: tuple[float, float, float]
) -> None:
    with pytest.raises(StudyFailed, match="mm away") as raised:
        localize(abdomen, _shifted(abdomen_bodies, step_mm), "masks")
    assert raised.value.reason is Reason.BAD_SEGMENTATION


def test_mirrored_labels_are_replaced_by_geometry(abdomen: Volume, abdomen_bodies: LabelMap) -> None:
    """In most volumes the spine is off the middle, so a mask with left and right reversed misses it."""
    wide = np.pad(abdomen.hu_DHW, [(0, 0), (0, 0), (12, 0)], constant_values=-1024)
    affine = abdomen.affine.copy()
    affine[:3, 3] -= 12 * affine[:3, 2]
    labels = np.pad(abdomen_bodies.labels_DHW, [(0, 0), (0, 0), (12, 0)])
    spine = localize(Volume(wide, affine), LabelMap(np.flip(labels, 2), affine, bodies_only=True), "auto")
    assert spine.method == "geometric"
    assert all(Flag.LABELS_UNUSABLE in v.flags for v in spine.vertebrae)


def test_labels_that_contradict_the_sacrum_are_flagged(abdomen: Volume, abdomen_bodies: LabelMap) -> None:
    one_up = np.where(abdomen_bodies.labels_DHW > 0, abdomen_bodies.labels_DHW - 1, 0).astype(np.uint8)
    one_up[one_up == 1 + LEVEL_INDEX["T13"]] = 1 + LEVEL_INDEX["T12"]
    top = int(abdomen_bodies.labels_DHW[abdomen_bodies.labels_DHW > 0].min())
    one_up[abdomen_bodies.labels_DHW == top] = top - 1
    spine = localize(abdomen, replace(abdomen_bodies, labels_DHW=one_up), "auto")
    assert spine.method == "masks"
    assert spine.vertebrae[-1].level == "L4"
    assert all(Flag.LEVEL_DISPUTED in v.flags and v.level_confidence == 0.5 for v in spine.vertebrae)


def test_labels_are_unchecked_if_geometry_finds_nothing(abdomen: Volume, abdomen_bodies: LabelMap) -> None:
    faint = Volume(np.full_like(abdomen.hu_DHW, 40), abdomen.affine)
    spine = checked(faint, spine_from_labels(faint, abdomen_bodies))
    assert all(Flag.LABELS_UNCHECKED in v.flags and v.level_confidence == 0.7 for v in spine.vertebrae)


def _spine(first: str, last: str, above_mm: float, below_mm: float, bodies: int = 4, apart_mm: float = 30.0) -> Spine:
    """Bodies along a straight canal that is in view so far above and below them."""
    levels = [first, *["?"] * (bodies - 2), last][:bodies]
    places = above_mm + apart_mm * np.arange(bodies)
    vertebrae = tuple(
        Vertebra(level, 0.0, Completeness.WHOLE, (0.0, 0.0, -place), np.eye(3), 0.8 * apart_mm, place, 1.0)
        for level, place in zip(levels, places.tolist(), strict=True)
    )
    points = np.arange(0, places[-1] + below_mm + 1)[:, None] * [0.0, 0.0, -1.0]
    return Spine(vertebrae, SpineCurve(points, np.tile(np.eye(3), (len(points), 1, 1))), Method.GEOMETRIC)


@pytest.mark.parametrize(
    ("spine", "flags"),
    [
        (_spine("T10", "L3", 30, 30), set()),
        (_spine("C7", "T2", 75, 30), {Flag.UNLISTED_ABOVE}),
        (_spine("?1", "?4", 75, 60), {Flag.UNLISTED_ABOVE, Flag.UNLISTED_BELOW}),
        (_spine("C2", "C5", 90, 30), set()),  # the skull
        (_spine("L2", "L5", 30, 90), set()),  # the sacrum
        (_spine("L1", "L4", 30, 60), {Flag.UNLISTED_BELOW}),
        (_spine("T12", "T12", 50, 10, bodies=1), set()),
        (_spine("T12", "T12", 60, 10, bodies=1), {Flag.UNLISTED_ABOVE}),
    ],
)
def test_a_canal_that_goes_on_beyond_the_outer_bodies_is_flagged(spine: Spine, flags: set[Flag]) -> None:
    assert set(with_ends(spine).flags) == flags
