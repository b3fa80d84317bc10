"""The spine curve, and the volume straightened along it.

The curve runs in the spinal canal, cranial to caudal, with one point per millimetre. Its frames do not twist about the
curve: left stays the patient's left, as far as the curve's direction allows.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.interpolate import make_interp_spline

from spinemet.spine.sampling import sample_index
from spinemet.types import AIR_HU, Array, Array32, SpineCurve, StraightenedViews, Volume

_SIGMA_MM = 8.0
"""Standard deviation of the curve's smoothing."""
_AP_MM = (80, 60)
"""The picture's millimetres in front of and behind the curve; the largest lumbar body ends 50 mm in front of it."""
_LR_MM = 60
_SAGITTAL_SLAB_MM = (-3.0, -1.0, 1.0, 3.0)
_CORONAL_SLAB_MM = (-24.0, -21.0, -18.0)
"""Body centres lie 16 mm (neck) to 26 mm (lumbar) in front of the canal."""
_WINDOW_CENTER, _WINDOW_WIDTH = 350.0, 1500.0


def build_curve(points_mm: npt.ArrayLike, extend_mm: float = 25.0) -> SpineCurve:
    """The smooth curve through n >= 2 LPS points (n, 3), cranial to caudal, extended by `extend_mm` at both ends."""
    points = np.asarray(points_mm, np.float64)
    chord = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    spline = make_interp_spline(chord, points, k=min(3, len(points) - 1))
    margin = extend_mm + 4 * _SIGMA_MM
    dense = spline(np.linspace(0.0, chord[-1], int(np.ceil(chord[-1])) + 1))
    # The direction at an end comes from a third of the curve, at most 30 mm: a single step of a spline is too noisy.
    reach = int(np.clip(chord[-1] / 3, 1, 30))
    head, tail = unit(dense[0] - dense[reach]), unit(dense[-1] - dense[-1 - reach])
    ahead = np.arange(margin, 0.0, -1.0)[:, None]
    dense = np.concatenate([dense[0] + ahead * head, dense, dense[-1] + ahead[::-1] * tail])
    cut = round(4 * _SIGMA_MM)
    path = ndimage.gaussian_filter1d(dense, _SIGMA_MM, axis=0, mode="nearest")[cut:-cut]
    arc = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
    steps = np.arange(0.0, arc[-1])
    points = np.stack([np.interp(steps, arc, path[:, k]) for k in range(3)], axis=1)
    return SpineCurve(points, frame_from(-np.gradient(points, axis=0)))


def position_on(curve: SpineCurve, points_mm: npt.ArrayLike) -> Array:
    """Positions along the curve, in mm from its cranial end, of the LPS points (n, 3)."""
    points = np.atleast_2d(np.asarray(points_mm, np.float64))
    nearest = np.argmin(((points[:, None] - curve.points_mm[None]) ** 2).sum(-1), axis=1)
    down = -curve.frames[nearest, 2]
    return nearest + ((points - curve.points_mm[nearest]) * down).sum(-1)


def frame_from(superior: npt.ArrayLike, left_hint: npt.ArrayLike = (1.0, 0.0, 0.0)) -> Array:
    """Right-handed unit vectors left, posterior, superior (..., 3, 3) with left as close to `left_hint` as possible."""
    up = unit(np.asarray(superior, np.float64))
    hint = np.broadcast_to(np.asarray(left_hint, np.float64), up.shape)
    left = unit(hint - (hint * up).sum(-1, keepdims=True) * up)
    return np.stack([left, np.cross(up, left), up], axis=-2)


def straightened(
    volume: Volume, curve: SpineCurve, posterior_mm: npt.ArrayLike, left_mm: npt.ArrayLike, outside: float = AIR_HU
) -> Array32:
    """HU (S, P, L) float32 on the planes across the curve; row s is s mm along it.

    posterior_mm (P,), left_mm (L,): offsets from the curve in its frames. outside: HU beyond the volume.
    """
    center, backward, leftward = (
        volume.to_index(curve.points_mm + offset).T for offset in (0.0, curve.frames[:, 1], curve.frames[:, 0])
    )
    p, left = np.asarray(posterior_mm, np.float64), np.asarray(left_mm, np.float64)
    along_p = center[:, :, None] + (backward - center)[:, :, None] * p
    along_l = (leftward - center)[:, :, None] * left
    return sample_index(volume, along_p[:, :, :, None] + along_l[:, :, None, :], outside)


def straighten(volume: Volume, curve: SpineCurve) -> StraightenedViews:
    """The straightened sagittal and coronal pictures of `volume` along `curve`, windowed for bone."""
    front, behind = _AP_MM
    sagittal = straightened(volume, curve, np.arange(-front, behind), _SAGITTAL_SLAB_MM).mean(axis=2)
    coronal = straightened(volume, curve, _CORONAL_SLAB_MM, np.arange(-_LR_MM, _LR_MM + 1)).mean(axis=1)
    sagittal, coronal = (np.clip((hu - _WINDOW_CENTER) / _WINDOW_WIDTH + 0.5, 0.0, 1.0) for hu in (sagittal, coronal))
    return StraightenedViews((sagittal * 255).astype(np.uint8), (coronal * 255).astype(np.uint8), canal_column=front)


def unit(vectors: Array) -> Array:
    """Vectors (..., 3) scaled to length 1."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
