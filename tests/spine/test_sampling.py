"""Sampling reproduces a linear field exactly on every grid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spinemet.spine.sampling import in_view, resample_lps, sample_grid, sample_points
from spinemet.types import AIR_HU, Volume
from tests.spine.volumes import affine_of, linear_field, reorder_volume

ORDERS = ((0, 1, 2), (2, 0, 1), (1, 2, 0), (0, 2, 1))
SLOPE = np.array((2.0, -3.0, 5.0))


@settings(max_examples=25, deadline=None)
@given(
    turn=st.tuples(*[st.floats(-25, 25)] * 3),
    order=st.sampled_from(ORDERS),
    flips=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    place=st.tuples(*[st.floats(0.1, 0.9)] * 3),
)
def test_points_and_grids_follow_a_linear_field(turn, order, flips, place) -> None:
    volume = reorder_volume(linear_field((12, 14, 16), affine_of((3.0, 1.0, 1.5), turn)), order, flips)
    point = volume.to_lps(np.array(place) * (np.array(volume.hu_DHW.shape) - 1))
    expected = point @ SLOPE + 100
    assert np.isclose(sample_points(volume, point[None])[0], expected, atol=0.05)
    grid = sample_grid(volume, point, np.eye(3) * 1e-3, (2, 2, 2))
    assert np.allclose(grid, expected, atol=0.1)


def test_outside_is_air_and_out_of_view() -> None:
    volume = linear_field((5, 5, 5), affine_of((2.0, 2.0, 2.0)))
    outside = volume.to_lps([(-0.6, 2, 2), (2, 2, 4.7)])
    assert (sample_points(volume, outside) == AIR_HU).all()
    assert not in_view(volume, outside).any()
    assert in_view(volume, volume.to_lps((-0.4, 2, 2)))
    assert not in_view(volume, volume.to_lps((0.4, 2, 2)), margin_mm=2.0)


@settings(max_examples=12, deadline=None)
@given(order=st.sampled_from(ORDERS), flips=st.tuples(st.booleans(), st.booleans(), st.booleans()))
def test_resampled_grid_is_lps_aligned_and_keeps_the_field(order, flips) -> None:
    volume = reorder_volume(linear_field((20, 30, 40), affine_of((2.5, 0.7, 0.7))), order, flips)
    grid = resample_lps(volume, 2.0)
    assert np.allclose(grid.affine[:3, :3], np.array([[0, 0, 2], [0, 2, 0], [2, 0, 0]]))
    index = np.moveaxis(np.indices(grid.hu_DHW.shape), 0, -1)[2:-2, 2:-2, 2:-2]
    expected = grid.to_lps(index) @ SLOPE + 100
    assert np.allclose(grid.hu_DHW[2:-2, 2:-2, 2:-2], expected, atol=0.1)


@pytest.mark.parametrize("spacing", [0.8, 1.7, 2.0, 6.0])
def test_a_parallel_grid_has_the_values_of_its_points(spacing) -> None:
    noise = np.random.default_rng(3).integers(-1000, 1500, (7, 9, 1 if spacing == 6 else 11)).astype(np.int16)
    volume = reorder_volume(Volume(noise, affine_of((2.5, 1.1, 1.3))), (0, 1, 2), (True, False, True))
    origin = volume.to_lps((-1.3, -0.7, -1.1) if volume.affine[0, 2] > 0 else (7.2, 9.4, 11.2))
    steps = np.sign(volume.affine[:3, :3].T) * spacing
    shape = (6, 8, 10)
    points = origin + np.moveaxis(np.indices(shape), 0, -1) @ steps
    assert np.allclose(sample_grid(volume, origin, steps, shape), sample_points(volume, points), atol=1e-3)


def test_resampling_averages_noise() -> None:
    noise = np.random.default_rng(0).normal(0, 100, (40, 80, 80)).astype(np.float32)
    grid = resample_lps(Volume(noise, affine_of((1.0, 0.5, 0.5))), 2.0)
    assert grid.hu_DHW[2:-2, 2:-2, 2:-2].std() < 25  # 32 voxels to one: 100 / sqrt(32) = 18
