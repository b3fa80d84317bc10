"""The head: where the skull stands on the neck, what is in it, and that nothing below C3 depends on it."""

from __future__ import annotations

import numpy as np
import pytest

from spinemet.anatomy import LEVEL_INDEX
from spinemet.phantom.body.anatomy import DENS, Pose, draw_anatomy, place_spine
from spinemet.phantom.body.head import Head, place_head, reaches
from spinemet.phantom.body.vertebra import canal_middle
from spinemet.phantom.scan import PhantomScan, ScanSettings, field_of_view, render
from spinemet.phantom.shapes import Canvas, Grid

SEEDS = range(30)


def _head(seed: int) -> tuple[Head, tuple[Pose, ...]]:
    patient = draw_anatomy(np.random.default_rng(seed))
    poses = place_spine(patient)
    return place_head(patient, poses), poses


@pytest.fixture(scope="module")
def neck() -> tuple[PhantomScan, Head]:
    """From C5 to 6 cm above the foramen magnum."""
    patient = draw_anatomy(np.random.default_rng(7))
    poses = place_spine(patient)
    head = place_head(patient, poses)
    low, high = poses[2].center[2], head.foramen_mm[2] + 60
    x, y, _ = head.foramen_mm
    scan = ScanSettings(
        (float(x), float(y), float(low + high) / 2), (round((high - low) / 2), 150, 120), (2.0, 1.5, 1.5), 2.0
    )
    return render(patient, scan), head


def _hu(drawn: PhantomScan, point: np.ndarray) -> float:
    d, h, w = np.rint(drawn.volume.to_index(point)).astype(int)
    return float(drawn.volume.hu_DHW[d, h - 1 : h + 2, w - 1 : w + 2].mean())


def test_the_skull_stands_where_it_does_in_people() -> None:
    from_disc = []
    for seed in SEEDS:
        head, poses = _head(seed)
        disc = (
            head.axis.to_lps(0, 0, -head.axis.size.height / 2) + poses[0].to_lps(0, 0, poses[0].size.height / 2)
        ) / 2
        from_disc.append(float(np.linalg.norm(head.foramen_mm - disc)))
    assert 38 < min(from_disc) < max(from_disc) < 60
    assert 44 < np.mean(from_disc) < 54


def test_nothing_is_drawn_of_it_where_the_view_ends_below_the_third_vertebra() -> None:
    for seed in SEEDS:
        head, poses = _head(seed)
        _, top = field_of_view(poses, "whole", (-0.6, 0.0))
        assert not reaches(Canvas(Grid((top - 10, 0.0, 0.0), (1.0, 1.0, 1.0), (11, 2, 2)), np.zeros((11, 2, 2))), head)
        assert head.axis.to_lps(0, 0, -head.axis.size.height)[2] > top


def test_brain_in_bone_and_an_open_way_from_the_canal(neck: tuple[PhantomScan, Head]) -> None:
    drawn, head = neck
    for place in ((0, 15, 30), (30, 20, 30), (-30, 20, 35), (0, 5, 20)):
        assert 10 < _hu(drawn, head.to_lps(*place)) < 60
    canal = head.axis.to_lps(0, canal_middle(head.axis), 0)
    way = canal + np.linspace(0, 1, 30)[:, None] * (head.to_lps(0, 2, 15) - canal)
    assert max(_hu(drawn, point) for point in way) < 120
    outward = np.linspace(0, 75, 76)
    for side in (-1, 1):
        ray = [_hu(drawn, head.to_lps(side * x, 10, 25)) for x in outward]
        assert max(ray) > 400


def test_the_axis_has_a_dens_and_the_atlas_no_body(neck: tuple[PhantomScan, Head]) -> None:
    drawn, head = neck
    axis = head.axis
    assert drawn.vertebrae[0].level == "C2"
    for height in (0.0, 0.9):
        d, h, w = np.rint(drawn.volume.to_index(axis.to_lps(0, -1, height * axis.size.height))).astype(int)
        assert drawn.labels.labels_DHW[d, h, w] == 1 + LEVEL_INDEX["C2"]
    middle = (0.5 + DENS) * axis.size.height - 11 * head.scale
    for arch in (-11.3, 27.0):
        assert _hu(drawn, axis.to_lps(0, arch * head.scale, middle)) > 250
    assert _hu(drawn, axis.to_lps(0, 14 * head.scale, middle)) < 120  # the canal behind the dens
