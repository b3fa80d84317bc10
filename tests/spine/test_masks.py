"""Vertebrae from label maps, against two other models' bodies on the same CT."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from spinemet.anatomy import LEVEL_INDEX, LEVELS
from spinemet.errors import Reason, StudyExcluded, StudyFailed
from spinemet.spine.masks import spine_from_labels
from spinemet.types import Completeness, LabelMap, Volume
from tests.spine.conftest import body_centers
from tests.spine.volumes import reorder_labels, reorder_volume

LUMBAR = ["L1", "L2", "L3", "L4", "L5"]


def _errors(spine, centers) -> dict[str, float]:
    return {
        v.level: float(np.linalg.norm(np.subtract(v.center_mm, centers[1 + LEVEL_INDEX[v.level]])))
        for v in spine.vertebrae
        if 1 + LEVEL_INDEX[v.level] in centers
    }


def test_body_centers_from_whole_vertebrae(abdomen: Volume, abdomen_whole: LabelMap, abdomen_bodies: LabelMap) -> None:
    spine = spine_from_labels(abdomen, abdomen_whole)
    assert [v.level for v in spine.vertebrae] == ["T12", *LUMBAR, "S1"]
    errors = _errors(spine, body_centers(abdomen_bodies))
    assert max(errors.values()) < 3.0, errors
    assert spine.method == "masks"


def test_body_centers_from_bodies_alone(abdomen: Volume, abdomen_bodies: LabelMap) -> None:
    spine = spine_from_labels(abdomen, abdomen_bodies)
    assert [v.level for v in spine.vertebrae] == ["T12", *LUMBAR]
    assert max(_errors(spine, body_centers(abdomen_bodies)).values()) < 2.0


def test_low_density_bodies(patch: Volume, patch_labels: LabelMap, patch_body: np.ndarray) -> None:
    spine = spine_from_labels(patch, patch_labels)
    assert [(v.level, v.completeness) for v in spine.vertebrae] == [
        ("L2", Completeness.CUT),
        ("L3", Completeness.WHOLE),
        ("L4", Completeness.CUT),
    ]
    assert max(_errors(spine, body_centers(patch_labels, patch_body)).values()) < 3.0


def test_measures_are_those_of_an_adult(abdomen: Volume, abdomen_whole: LabelMap) -> None:
    spine = spine_from_labels(abdomen, abdomen_whole)
    for vertebra in spine.vertebrae:
        if vertebra.level not in LUMBAR:
            continue
        assert 21 < vertebra.height_mm < 30
        assert 90 < (vertebra.measures["trabecular_hu"] or 0) < 160  # TotalSegmentator's own report: medians 110 to 129
        assert np.allclose(vertebra.axes @ vertebra.axes.T, np.eye(3), atol=1e-9)
        assert vertebra.axes[0, 0] > 0.95
        assert vertebra.axes[1, 1] > 0.8
    assert np.all(np.diff([v.canal_mm for v in spine.vertebrae]) > 15)
    assert spine.vertebrae[0].completeness is Completeness.CUT


def test_curve_runs_in_the_canal(abdomen: Volume, abdomen_whole: LabelMap) -> None:
    spine = spine_from_labels(abdomen, abdomen_whole)
    inside = [v for v in spine.vertebrae if v.level in LUMBAR]
    rows = np.round([v.canal_mm for v in inside]).astype(int)
    index = np.round(abdomen.to_index(spine.curve.points_mm[rows])).astype(int)
    assert (abdomen_whole.labels_DHW[tuple(index.T)] == 0).all()
    distance = [np.linalg.norm(spine.curve.points_mm[r] - v.center_mm) for r, v in zip(rows, inside, strict=True)]
    assert min(distance) > 18
    assert max(distance) < 38


@pytest.mark.parametrize(("order", "flips"), [((2, 0, 1), (True, False, True)), ((1, 2, 0), (False, True, False))])
def test_orientation_of_the_grid_does_not_matter(
    abdomen: Volume, abdomen_whole: LabelMap, order: tuple[int, int, int], flips: tuple[bool, bool, bool]
) -> None:
    straight = spine_from_labels(abdomen, abdomen_whole)
    other = spine_from_labels(reorder_volume(abdomen, order, flips), reorder_labels(abdomen_whole, order, flips))
    for a, b in zip(straight.vertebrae, other.vertebrae, strict=True):
        assert np.allclose(a.center_mm, b.center_mm, atol=0.5)
        assert np.allclose(a.axes, b.axes, atol=0.03)
        assert a.completeness is b.completeness


def test_fine_labels_are_measured_like_coarse_ones(patch: Volume, patch_labels: LabelMap) -> None:
    coarse = spine_from_labels(patch, patch_labels)
    fine_affine = patch.affine.copy()
    fine_affine[:3, :3] /= 3
    fine_affine[:3, 3] -= fine_affine[:3, :3].sum(axis=1)
    fine = np.kron(patch_labels.labels_DHW, np.ones((3, 3, 3), np.uint8))
    again = spine_from_labels(patch, LabelMap(fine, fine_affine))
    for a, b in zip(coarse.vertebrae, again.vertebrae, strict=True):
        assert np.linalg.norm(np.subtract(a.center_mm, b.center_mm)) < 1.5


def test_fragments_and_empty_labels_have_no_spine(abdomen: Volume, abdomen_whole: LabelMap) -> None:
    labels = np.zeros_like(abdomen_whole.labels_DHW)
    labels[50:52, 50:52, 50:52] = 20
    with pytest.raises(StudyExcluded) as raised:
        spine_from_labels(abdomen, replace(abdomen_whole, labels_DHW=labels))
    assert raised.value.reason is Reason.NO_SPINE


def test_labels_in_the_wrong_order_are_rejected(abdomen: Volume, abdomen_whole: LabelMap) -> None:
    upside_down = np.zeros(256, np.uint8)
    numbers = [n for n in np.unique(abdomen_whole.labels_DHW) if n]
    upside_down[numbers] = numbers[::-1]
    with pytest.raises(StudyFailed) as raised:
        spine_from_labels(abdomen, replace(abdomen_whole, labels_DHW=upside_down[abdomen_whole.labels_DHW]))
    assert raised.value.reason is Reason.BAD_SEGMENTATION


@pytest.mark.parametrize(
    ("levels", "fits"),
    [
        (("T12", "L1", "L2", "L3", "L4", "L5"), True),
        (("T11", "T12", "L1", "L2", "L3", "L4"), True),  # one off, which distances cannot show
        (("T11", "L1", "L2", "L3", "L4", "L5"), True),  # some people have no T12
        (("T11", "T12", "L2", "L3", "L4", "L5"), False),  # L1 skipped
        (("T12", "L1", None, "L2", "L3", "L4"), False),  # a vertebra without a label between L1 and L2
        (("T12", "L1", None, "L3", "L4", "L5"), True),
        (("C2", "C3", "C4", "C5", "C6", "C7"), False),
    ],
)
def test_distances_must_fit_the_levels(
    abdomen: Volume, abdomen_bodies: LabelMap, levels: tuple[str | None, ...], fits: bool
) -> None:
    table = np.zeros(256, np.uint8)
    for old, new in zip(("T12", *LUMBAR), levels, strict=True):
        table[1 + LEVEL_INDEX[old]] = 0 if new is None else 1 + LEVEL_INDEX[new]
    renamed = replace(abdomen_bodies, labels_DHW=table[abdomen_bodies.labels_DHW])
    if fits:
        assert spine_from_labels(abdomen, renamed).vertebrae
        return
    with pytest.raises(StudyFailed, match="distances") as raised:
        spine_from_labels(abdomen, renamed)
    assert raised.value.reason is Reason.BAD_SEGMENTATION


def test_a_single_vertebra_makes_a_spine(patch: Volume, patch_labels: LabelMap) -> None:
    only = np.where(patch_labels.labels_DHW == 1 + LEVELS.index("L3"), patch_labels.labels_DHW, 0).astype(np.uint8)
    (vertebra,) = spine_from_labels(patch, replace(patch_labels, labels_DHW=only)).vertebrae
    assert vertebra.level == "L3"
    assert vertebra.axes[2, 2] > 0.95


def test_labels_of_a_transitional_vertebra_flag_the_spine(abdomen: Volume, abdomen_bodies: LabelMap) -> None:
    assert spine_from_labels(abdomen, abdomen_bodies).flags == ()
    labels = abdomen_bodies.labels_DHW.copy()
    labels[labels == 1 + LEVEL_INDEX["L5"]] = 1 + LEVEL_INDEX["L6"]
    spine = spine_from_labels(abdomen, replace(abdomen_bodies, labels_DHW=labels))
    assert spine.vertebrae[-1].level == "L6"
    assert spine.flags == ("transitional",)
