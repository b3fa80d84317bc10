"""The curve's geometry, and the pictures along it."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from spinemet.spine.canal import build_curve, frame_from, position_on, straighten
from spinemet.types import Volume
from tests.spine.volumes import affine_of


def _arc(radius: float, length: float) -> np.ndarray:
    """Points every 30 mm of a lordosis in the sagittal plane, cranial first."""
    angle = np.arange(0, length, 30) / radius
    return np.stack([np.zeros_like(angle), radius * (1 - np.cos(angle)), -radius * np.sin(angle)], axis=1)


@settings(max_examples=25, deadline=None)
@given(radius=st.floats(120, 2000), length=st.floats(61, 400))
def test_curve_has_millimetre_steps_and_right_handed_frames(radius: float, length: float) -> None:
    curve = build_curve(_arc(radius, min(length, radius)))
    steps = np.linalg.norm(np.diff(curve.points_mm, axis=0), axis=1)
    assert np.allclose(steps, 1.0, atol=0.01)
    assert np.allclose(curve.frames @ curve.frames.transpose(0, 2, 1), np.eye(3), atol=1e-9)
    assert np.allclose(np.cross(curve.frames[:, 0], curve.frames[:, 1]), curve.frames[:, 2])
    assert (curve.frames[:, 0, 0] > 0.99).all()  # left stays the patient's left
    assert (np.diff(curve.points_mm[:, 2]) < 0).all()  # cranial to caudal


def test_curve_passes_through_its_points_and_returns_their_positions() -> None:
    points = _arc(300, 200)
    curve = build_curve(points, extend_mm=25)
    nearest = np.linalg.norm(curve.points_mm[:, None] - points[None], axis=2).min(axis=0)
    assert nearest.max() < 1.2
    places = position_on(curve, points)
    assert np.allclose(np.diff(places), 30, atol=0.6)
    assert abs(places[0] - 25) < 1.5
    forward = points + 20 * np.array([0, -1.0, 0])  # in front of the canal, on the same plane at the top
    assert abs(position_on(curve, forward)[0] - places[0]) < 2


def test_two_points_make_a_straight_curve() -> None:
    curve = build_curve(np.array([(0, 0, 0), (0, 0, -10.0)]))
    assert np.allclose(curve.points_mm[:, :2], 0)
    assert 55 <= len(curve.points_mm) <= 61


def test_frame_from_keeps_left() -> None:
    frame = frame_from(np.array((0.1, -0.3, 0.9)))
    assert frame[0, 0] > 0.9
    assert np.allclose(np.linalg.det(frame), 1)


def test_pictures_show_the_canal_in_its_column_and_left_on_the_right() -> None:
    hu = np.full((120, 90, 90), -100, np.int16)
    volume = Volume(hu, affine_of((1.0, 2.0, 2.0), origin=(-90.0, -110.0, -120.0)))
    index = np.moveaxis(np.indices(hu.shape), 0, -1)
    points = volume.to_lps(index)
    hu[np.hypot(points[..., 0], points[..., 1]) < 5] = 1000  # a rod in the canal
    hu[np.hypot(points[..., 0] - 40, points[..., 1] + 21) < 5] = 1000  # and one to the left, in front
    views = straighten(volume, build_curve(np.array([(0, 0, -20.0), (0, 0, -60.0), (0, 0, -100.0)]), extend_mm=10))
    assert abs(int(views.sagittal[30].argmax()) - views.canal_column) <= 4
    assert abs(int(views.coronal[30].argmax()) - (views.coronal.shape[1] // 2 + 40)) <= 5
    assert views.sagittal.dtype == np.uint8
    assert len(views.sagittal) == len(views.coronal)
