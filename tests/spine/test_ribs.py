"""Ribs on a spine of bars: how far bone leads outward, to which body it belongs, and what the field of view hides."""

from __future__ import annotations

import numpy as np
import pytest

from spinemet.spine.bodies import Body
from spinemet.spine.ribs import FARTHEST_MM, Reach, outward_reach
from spinemet.spine.ring import Tissue
from spinemet.spine.walls import Walls
from spinemet.types import SpineCurve, Volume

TISSUE = Tissue(50.0, 400.0)
HEIGHT_MM = 120


def _bars(
    *bars: tuple[float, float, float, float], half_mm: int = 70, forward: float = 0.0, behind: float = 5.0
) -> Volume:
    """Bone 8 mm thick to both sides, `behind` mm behind the canal: from x to x, and s at its start and end; 2 mm grid.

    forward: how far the first bar comes forward per mm outward.
    """
    hu = np.full((HEIGHT_MM // 2, 60, half_mm + 1), 50.0, np.float32)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, 0, 2], [0, 2, 0], [2, 0, 0]], float)
    affine[:3, 3] = (-half_mm, -60, -HEIGHT_MM)
    z = affine[2, 3] + 2 * np.arange(hu.shape[0])
    x = np.abs(affine[0, 3] + 2 * np.arange(hu.shape[2]))
    y = affine[1, 3] + 2 * np.arange(hu.shape[1])
    for n, (begin, end, s_begin, s_end) in enumerate(bars):
        s = np.interp(x, (begin, end), (s_begin, s_end))
        course = behind - (forward if n == 0 else 0.0) * (x - begin)
        near = (np.abs(z[:, None, None] + s[None, None]) < 4) & (np.abs(y[:, None] - course) < 4)[None]
        hu[near & ((x >= begin) & (x <= end))[None, None]] = 400.0
    return Volume(hu, affine)


def _searched(volume: Volume, *tops: float) -> Reach:
    points = np.zeros((HEIGHT_MM, 3))
    points[:, 2] = -np.arange(HEIGHT_MM)
    curve = SpineCurve(points, np.tile(np.eye(3), (HEIGHT_MM, 1, 1)))
    every = np.ones(HEIGHT_MM)
    walls = Walls(-30 * every, -8 * every, -16 * every, 16 * every)
    bodies = [Body(top, top + 22, 2.0, 2.0, 0.0) for top in tops]
    return outward_reach(volume, TISSUE, curve, walls, bodies)


def _reach(volume: Volume, *tops: float) -> tuple[list[float], list[bool]]:
    reach = _searched(volume, *tops)
    assert np.allclose(reach.mm[:, 0], reach.mm[:, 1], atol=2)
    return [float(r) for r in reach.mm.mean(axis=1)], [bool(e) for e in reach.ends.all(axis=1)]


def test_a_rib_leads_far_and_a_transverse_process_does_not() -> None:
    reach, ends = _reach(_bars((16, 70, 15, 45), (16, 36, 60, 60)), 10, 50)
    assert reach[0] == FARTHEST_MM
    assert reach[1] == pytest.approx(36, abs=4)
    assert ends == [True, True]


def test_a_rib_that_touches_the_process_above_belongs_to_the_lower_body() -> None:
    reach, _ = _reach(_bars((16, 34, 22, 34), (16, 70, 40, 50)), 10, 38)
    assert reach[0] < 45
    assert reach[1] == FARTHEST_MM


def test_no_bone_beside_the_body_is_no_reach() -> None:
    assert _reach(_bars(), 10)[0] == [0.0]


def test_a_narrow_field_of_view_may_hide_more_bone() -> None:
    reach, ends = _reach(_bars((16, 70, 15, 30), (16, 30, 60, 60), half_mm=44), 10, 50)
    assert reach[0] == pytest.approx(44, abs=4)
    assert ends == [False, True]


def test_an_organ_with_contrast_is_not_a_rib() -> None:
    volume = _bars((16, 40, 15, 15))
    x = np.abs(-70 + 2 * np.arange(volume.hu_DHW.shape[2]))
    volume.hu_DHW[:30, 25:45, (x > 38)] = 300.0
    assert _reach(volume, 10)[0][0] < 50


def test_where_a_rib_lies_behind_the_bodies() -> None:
    first, second, process = (16, 70, 15, 25), (16, 70, 50, 60), (16, 36, 60, 60)
    forward = _searched(_bars(first, second, forward=0.5), 10, 45).behind_mm
    assert forward[1] - forward[0] == pytest.approx(0.5 * (50 - 16), abs=2)
    backward = _searched(_bars(first, second, forward=-0.5), 10, 45).behind_mm
    assert backward[0] - backward[1] == pytest.approx(0.5 * (50 - 16), abs=2)
    assert np.isnan(_searched(_bars(first, process), 10, 50).behind_mm).tolist() == [False, True]


def test_a_ribs_head_lies_beside_the_body_and_a_process_farther_back() -> None:
    stump = (16, 34, 15, 20)
    assert _searched(_bars(stump, behind=-11.0), 10).head.min() > 0.6
    assert _searched(_bars(stump, behind=3.0), 10).head.max() < 0.1
    assert _searched(_bars(stump, behind=3.0), 10).mm.min() > 30
    assert np.isnan(_searched(_bars(stump, behind=-11.0, half_mm=16), 10).head).all()
