"""Finds the foramen magnum, where the spinal canal opens into the skull: the upper anchor of names.

Above it, rays from the middle meet bone all around, but far away, and pass only through brain. Nothing else along a
spine looks like this: the canal is narrow, and wide cavities (throat, chest, belly, pelvis) hold air or fat or are
open.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from spinemet.spine.ring import GRID_MM, Tissue
from spinemet.types import Array, BoolArray, Volume

_RAYS, _STEP_MM, _FARTHEST_MM = 32, 2.0, 84.0
"""Rays in axial planes. Forward it may be farther to bone: 130 mm from the foramen magnum to the forehead."""
_BONE = 0.45
"""A ray ends at this boneness; brain with 70 HU of noise stays below it."""
_BELOW_MM, _ABOVE_MM = 140.0, 70.0
"""The canal is followed again, from the first distance below its upper end, which may lie in the head between petrous
bones and clivus, to the second above it, because the atlas is not a closed ring and the canal may end at C2."""
_CENTER_MM, _CENTERING, _COURSE = 16.0, 0.35, 0.1
"""From slice to slice the middle moves to the side with longer rays: rays are cut to the first length, and the second
value is the share of the difference. The third is the weight of each move in the course. Set on phantoms."""
_NARROW_MM, _WIDE_MM = 20.0, 26.0
"""Median length of the rays. Canal: 8 to 14; foramen magnum (30 by 36 mm): 17; 10 mm above it: 30 and more."""
_CLOSED = 0.85
"""Least share of rays that end at bone or, forward, still run in brain at the farthest distance. Below the skull every
second one leaves through muscle to the skin."""
_HIGH_MM, _RISE_MM = 14.0, 16.0
"""The wide part must be in view over the first length, and begin within the second above the narrow part."""
_NOT_BRAIN_HU, _NOT_BRAIN = 90.0, 0.12
"""Voxels farther below soft tissue are fat or air. They may be this share of the inside, for noise and the dark bands
between the petrous bones."""


def foramen_magnum(grid: Volume, tissue: Tissue, canal: Array) -> Array | None:
    """The LPS point (3,) at which `canal` opens into a cavity of brain; None if no such place is in view.

    grid: on the LPS-aligned grid of resample_lps. canal: (n, 3) LPS, cranial to caudal, one per slice.
    """
    path, radius, brain = _upward(grid, tissue, canal)
    high, rise = (round(mm / GRID_MM) for mm in (_HIGH_MM, _RISE_MM))
    if len(path) < high:
        return None
    stretches = np.lib.stride_tricks.sliding_window_view(brain & (radius >= _WIDE_MM), high)
    wide: BoolArray = np.asarray(stretches.all(axis=1))
    first = int(wide.argmax())
    begin = max(first - rise, 0)
    narrow = begin + np.flatnonzero(radius[begin:first] <= _NARROW_MM)
    if not wide[first] or len(narrow) == 0:
        return None
    last = int(narrow[-1])
    share = (_NARROW_MM - radius[last]) / (radius[last + 1] - radius[last])
    return np.asarray(path[last] + share * (path[last + 1] - path[last]))


def _upward(grid: Volume, tissue: Tissue, canal: Array) -> tuple[Array, Array, BoolArray]:
    """The canal's middle followed upward slice by slice (n, 3) LPS, the median length of the rays around it in mm, and
    whether they end at bone and pass only through brain."""
    angle = np.arange(_RAYS) * 2 * np.pi / _RAYS
    aims = np.stack([np.sin(angle), np.cos(angle)])
    points = grid.to_index(canal[: round(_BELOW_MM / GRID_MM)][::-1])
    course = np.diff(points[: round(_CENTER_MM / GRID_MM) + 1, 1:], axis=0).mean(axis=0)
    middle = points[0, 1:].copy()
    first = round(float(points[0, 0]))
    last = min(first + len(points) + round(_ABOVE_MM / GRID_MM), len(grid.hu_DHW))
    path, radius, brain = [], [], []
    for d in range(first, last):
        length, closed = _rays(grid.hu_DHW[d], tissue, middle, aims)
        path.append((d, *middle))
        radius.append(float(np.median(length)))
        brain.append(closed)
        cut = np.minimum(length, _CENTER_MM) / GRID_MM
        move = course + _CENTERING * 2 * (aims * cut).mean(axis=1)
        course += _COURSE * (move - course)
        middle = middle + move
    return grid.to_lps(np.array(path)), np.array(radius), np.array(brain)


def _rays(slice_HW: npt.NDArray[np.generic], tissue: Tissue, middle: Array, aims: Array) -> tuple[Array, bool]:
    """Length of each ray from `middle` (row, column) to bone, at most _FARTHEST_MM; whether it is inside the skull."""
    reach = np.arange(_STEP_MM, _FARTHEST_MM, _STEP_MM) / GRID_MM
    row, column = np.rint(middle[:, None, None] + aims[:, :, None] * reach).astype(np.intp)
    height, width = slice_HW.shape
    seen = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    hu = slice_HW[row.clip(0, height - 1), column.clip(0, width - 1)]
    bone = (tissue.boneness(hu) >= _BONE) & seen
    stop = bone | ~seen
    end = np.where(stop.any(axis=1), stop.argmax(axis=1), len(reach))
    met = bone[np.arange(len(end)), np.minimum(end, len(reach) - 1)]
    passed = np.arange(len(reach)) < end[:, None]
    other = passed & (hu < tissue.soft - _NOT_BRAIN_HU)
    onward = (aims[0] < -0.5) & seen.all(axis=1) & ~bone.any(axis=1) & ~other.any(axis=1)
    inside = met | onward
    weight = passed * reach  # by area
    share = (weight * other).sum() / max(weight.sum(), 1.0)
    return (end + 1) * _STEP_MM, bool(inside.mean() >= _CLOSED and share <= _NOT_BRAIN)
