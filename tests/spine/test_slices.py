"""Slices have the right place and sides for every orientation of the volume."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spinemet.config import SliceConfig
from spinemet.spine.canal import build_curve, frame_from
from spinemet.spine.slices import CENTER_ROW, cut_slices, slice_offsets
from spinemet.types import AIR_HU, Completeness, Method, Spine, Vertebra, Volume
from tests.spine.test_sampling import ORDERS, SLOPE
from tests.spine.volumes import affine_of, linear_field, reorder_volume

CONFIG = SliceConfig(size_px=64, pixel_mm=1.0, step_mm=3.0)


def _spine(center: tuple[float, float, float], axes: np.ndarray, height: float = 21.0) -> Spine:
    vertebra = Vertebra("L1", 1.0, Completeness.WHOLE, center, axes, height, 0.0, 1.0)
    curve = build_curve(np.array([center, np.subtract(center, (0, 0, 20.0))]))
    return Spine((vertebra,), curve, Method.MASKS)


@settings(max_examples=20, deadline=None)
@given(
    order=st.sampled_from(ORDERS),
    flips=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    tilt=st.tuples(st.floats(-0.4, 0.4), st.floats(-0.4, 0.4)),
)
def test_every_pixel_shows_its_place(order, flips, tilt) -> None:
    whole = linear_field((60, 70, 70), affine_of((2.5, 2.0, 2.0), origin=(-70.0, -70.0, -75.0)))
    volume = reorder_volume(whole, order, flips)
    axes = frame_from(np.array((*tilt, 1.0)))
    (stack,) = cut_slices(volume, _spine((3.0, -4.0, 2.0), axes), CONFIG)
    row, column = np.arange(64) - CENTER_ROW * 64, np.arange(64) - 31.5
    local = np.stack(
        np.broadcast_arrays(column[None, None, :], row[None, :, None], stack.offsets_mm[:, None, None]), axis=-1
    )
    expected = (np.array((3.0, -4.0, 2.0)) + local @ axes) @ SLOPE + 100
    assert np.abs(stack.hu_NHW - expected).max() < 1.0


def test_left_is_on_the_right_and_cranial_comes_first() -> None:
    volume = linear_field((60, 60, 60), affine_of((2.0, 2.0, 2.0), origin=(-60.0,) * 3))
    right_to_left, front_to_back, up = (
        cut_slices(linear_field((60, 60, 60), volume.affine, slope), _spine((0.0, 0.0, 0.0), np.eye(3)), CONFIG)[0]
        for slope in ((9, 0, 0), (0, 9, 0), (0, 0, 9))
    )
    assert (np.diff(right_to_left.hu_NHW.astype(int), axis=2) > 0).all()
    assert (np.diff(front_to_back.hu_NHW.astype(int), axis=1) > 0).all()
    assert (np.diff(up.hu_NHW.astype(int), axis=0) < 0).all()
    assert up.hu_NHW.dtype == np.int16


@given(height=st.floats(1, 60), step=st.floats(0.5, 10))
def test_offsets_stay_inside_the_body_and_are_symmetric(height: float, step: float) -> None:
    offsets = slice_offsets(height, step)
    assert len(offsets) >= 3
    assert np.allclose(offsets, -offsets[::-1], atol=1e-4)
    assert (np.diff(offsets) < 0).all()
    assert -np.diff(offsets).min() <= step + 1e-3
    if height > 4:
        assert offsets[0] <= height / 2 - 0.99


def test_taller_bodies_get_more_slices() -> None:
    assert [len(slice_offsets(h, 3.0)) for h in (6, 12, 21, 30)] == [3, 4, 7, 10]


def test_outside_the_volume_is_air() -> None:
    volume = linear_field((20, 20, 20), affine_of((1.0, 1.0, 1.0), origin=(-10.0,) * 3), slope=(0, 0, 0))
    (stack,) = cut_slices(volume, _spine((0.0, 0.0, 0.0), np.eye(3)), CONFIG)
    assert (stack.hu_NHW[:, 0] == AIR_HU).all()
    assert (stack.hu_NHW[len(stack.hu_NHW) // 2, 23, 31] == 100).all()


def test_thin_slices_are_averaged_over_the_step() -> None:
    noise = np.random.default_rng(1).normal(0, 100, (90, 60, 60)).astype(np.int16)
    thin = Volume(noise, affine_of((0.75, 1.0, 1.0), origin=(-30.0, -30.0, -33.0)))
    (stack,) = cut_slices(thin, _spine((0.0, 0.0, 0.0), np.eye(3)), SliceConfig(size_px=32, pixel_mm=1.0))
    assert stack.hu_NHW.std() < 75  # three slices to one, before interpolation: 58


def test_a_vertebra_outside_the_volume_gives_air(abdomen: Volume) -> None:
    (stack,) = cut_slices(abdomen, _spine((0.0, 0.0, 5000.0), np.eye(3)), CONFIG)
    assert (stack.hu_NHW == AIR_HU).all()


def test_no_vertebrae_give_no_stacks(abdomen: Volume) -> None:
    spine = _spine((0.0, 0.0, 0.0), np.eye(3))
    assert cut_slices(abdomen, replace(spine, vertebrae=()), CONFIG) == ()


@pytest.mark.parametrize("config", [SliceConfig(), SliceConfig(size_px=96, pixel_mm=1.0, step_mm=5.0)])
def test_shape_follows_the_configuration(abdomen: Volume, config: SliceConfig) -> None:
    (stack,) = cut_slices(abdomen, _spine((5.0, -120.0, 330.0), np.eye(3), height=27.0), config)
    assert stack.hu_NHW.shape == (len(slice_offsets(27.0, config.step_mm)), config.size_px, config.size_px)
    assert stack.pixel_mm == config.pixel_mm
