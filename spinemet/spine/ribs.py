"""Which vertebrae carry ribs: unbroken bone leads outward from beside the body, farther than a transverse process.

Positions as in walls.py: s along the curve, p behind the canal, in mm; x is the distance from the midline to either
side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from spinemet.spine.bodies import Body
from spinemet.spine.canal import straightened
from spinemet.spine.ring import Tissue
from spinemet.spine.walls import Walls
from spinemet.types import Array, Array32, BoolArray, SpineCurve, Volume

_STEP_MM = 2
_P_MM = np.arange(-34.0, 50.0, _STEP_MM)
_X_MM = np.arange(12.0, 59.0, _STEP_MM)
_LEAST_BONE = 0.2
"""Least boneness along a path. Ribs have at least 0.6 in the LIDC and TotalSegmentator cases and 0.31 (median 0.75) in
48 phantoms; beyond the transverse processes of L1 to L4 there is at most 0.1."""
_ABOVE_MM, _BELOW_MM = 8, 90
"""A rib is followed within this stretch of the curve about its body's upper end: its head lies at the disc above, and
the twelfth rib descends steeply."""
_ROOT_P_MM = (-10, 26)
"""A rib or transverse process begins within this range behind the body's posterior wall."""
_HEAD_P_MM = (-4, -2)
"""A rib's head lies this far behind the posterior wall, right beside the body, a transverse process farther back."""
_NECK_MM = 10
"""The first rib's neck lies this far behind the posterior wall, a quarter of the height below the body's upper end; a
slanted upper border of the view may hide it. Set on one phantom with an unusual count and on the LIDC case."""
_DOWN, _ASIDE, _CLIMB_EVERY = 2, 2, 4
"""For each cell outward a path may go so many cells caudal, and forward or backward; cranial only one cell in every
_CLIMB_EVERY. The flattest ribs of the LIDC case climb by 6 mm."""
_BESIDE_MM, _THICK_CELLS = 36.0, (6, 6, 6)
"""Beyond the first distance, bright tissue that holds a cube of 12 mm is an organ, not a rib (7 by 12 mm)."""
ACROSS_MM = 50.0
"""Distance from the midline at which the course of a rib is measured. The first goes forward about the lung's apex, the
others first go backward."""
_WINDOW = (_ABOVE_MM + _BELOW_MM) // _STEP_MM
_OUTSIDE_HU = -5000.0

FARTHEST_MM = float(_X_MM[-1])
"""Paths are followed up to this distance from the midline."""


@dataclass(frozen=True, eq=False)
class Reach:
    """How far bone leads outward from each body, right and left.

    mm: (n, 2) from the midline, at most FARTHEST_MM; 0 if no bone begins at the body. ends: (n, 2) True if the bone
    ends there, False if the field of view ends and bone may continue. ends_low: the same for a rib that descends from
    its vertebra, as the first does; the upper border of the field of view does not hide it. behind_mm: (n,) how far
    behind the bodies' posterior wall bone lies at ACROSS_MM, mean of both sides; NaN if it gets there on one or none.
    head: (n, 2) boneness beside the body, where a rib's head lies and a transverse process does not; NaN out of view.
    """

    mm: Array
    ends: BoolArray
    ends_low: BoolArray
    behind_mm: Array
    head: Array


def outward_reach(grid: Volume, tissue: Tissue, curve: SpineCurve, walls: Walls, bodies: list[Body]) -> Reach:
    """How far unbroken bone leads from each body; bone that two bodies lead to belongs to the better path."""
    sparse = SpineCurve(curve.points_mm[::_STEP_MM], curve.frames[::_STEP_MM])
    hu = straightened(grid, sparse, _P_MM, np.concatenate([-_X_MM[::-1], _X_MM]), outside=_OUTSIDE_HU)
    beyond = hu == np.float32(_OUTSIDE_HU)
    bone = tissue.boneness(np.where(beyond, np.float32(tissue.soft), hu), -0.5)
    bone = ndimage.gaussian_filter(bone, (0.5, 0.6, 0.6))
    count = len(_X_MM)
    sides, behind, heads = [], [], []
    for columns, wall in ((slice(count - 1, None, -1), -walls.right), (slice(count, None), walls.left)):
        here, out = bone[:, :, columns].copy(), beyond[:, :, columns]
        far = here[:, :, _X_MM >= _BESIDE_MM]
        here[:, :, _X_MM >= _BESIDE_MM] = far - np.maximum(ndimage.grey_opening(far, _THICK_CELLS), 0)
        roots = [_root(body, walls.posterior, wall, out) for body in bodies]
        views = (np.zeros_like(out), out, out)
        reached = [_reach(here, view, roots, low=n == 2) for n, view in enumerate(views)]
        sides.append([reach for reach, _ in reached])
        behind.append(reached[0][1])
        heads.append([_head(here, out, root) for root in roots])
    seen, may, low = (np.stack(two, axis=1) for two in zip(*sides, strict=True))
    # The upper border of the view cuts both sides: if one side is uncertain, so is the other.
    ends_low = (low <= seen + 2 * _STEP_MM).all(axis=1, keepdims=True).repeat(2, axis=1)
    return Reach(seen, may <= seen + 2 * _STEP_MM, ends_low, np.mean(behind, axis=0), np.array(heads).T)


def _reach(bone_SPX: Array32, out_SPX: BoolArray, roots: list[_Root], *, low: bool) -> tuple[Array, Array]:
    """(n,) x of the last column that each body's paths reach with _LEAST_BONE; 0 if no path begins. (n,) How far behind
    the posterior wall the paths lie at ACROSS_MM; NaN if none gets there.

    out_SPX: places that count as bone; with `low`, only those caudal of the body's middle if its upper end is in view.
    """
    ways = []
    for root in roots:
        out = out_SPX[root.window].copy()
        if low and root.in_view:
            out[: root.rows.stop - root.rows.start] = False
        ways.append(np.where(out, np.float32(1), bone_SPX[root.window]))
    best = np.full((len(roots), *bone_SPX.shape[:2]), -1.0, np.float32)
    reach, behind = np.zeros(len(roots)), np.full(len(roots), np.nan)
    for x in range(len(_X_MM)):
        for n, (root, way) in enumerate(zip(roots, ways, strict=True)):
            if x == root.column:
                best[n, root.rows, root.depth] = way[: root.rows.stop - root.rows.start, root.depth, x]
            elif x > root.column:
                # The window reaches farther to lower s, because a rib comes from above.
                up = int((x - root.column) % _CLIMB_EVERY == 0)
                size, shift = (_DOWN + up + 1, 2 * _ASIDE + 1), ((_DOWN - up) // 2, 0)
                reached = ndimage.maximum_filter(best[n, root.window], size, mode="constant", cval=-1.0, origin=shift)
                best[n, root.window] = np.minimum(reached, way[:, :, x])
        # The lower body wins a tie: a path from above to its rib has crossed a gap.
        owner = len(roots) - 1 - best[::-1].argmax(axis=0)
        best[np.arange(len(roots))[:, None, None] != owner] = -1.0
        reach[best.max(axis=(1, 2)) >= _LEAST_BONE] = _X_MM[x]
        if _X_MM[x] == ACROSS_MM:
            bone = np.where(best >= _LEAST_BONE, best, 0).sum(axis=1)
            for n in np.flatnonzero(bone.any(axis=1)).tolist():
                behind[n] = np.average(_P_MM, weights=bone[n]) - roots[n].wall_p
    return reach, behind


def _head(bone_SPX: Array32, out_SPX: BoolArray, root: _Root) -> float:
    """The greatest boneness beside a body where a rib's head lies, in front of the roots of transverse processes."""
    depth = [min(max(round((root.wall_p + p - _P_MM[0]) / _STEP_MM), 0), len(_P_MM) - 1) for p in _HEAD_P_MM]
    place = root.rows, depth, slice(root.column, root.column + len(depth))
    if out_SPX[place].any():
        return np.nan
    return float(bone_SPX[place].clip(0).mean(axis=(1, 2)).max())


@dataclass(frozen=True)
class _Root:
    """The places beside a body's upper half at which a rib or process may begin: column, rows and depth; the window of
    rows in which it is followed; whether the body's upper end is in view there; p of the body's posterior wall."""

    column: int
    rows: slice
    depth: slice
    window: slice
    in_view: bool
    wall_p: float


def _root(body: Body, posterior: Array, wall: Array, out_SPX: BoolArray) -> _Root:
    column = min(int(np.searchsorted(_X_MM, float(wall[body.rows].mean()) + _STEP_MM)), len(_X_MM) - 1)
    first = max(round(body.top) - _ABOVE_MM, 0) // _STEP_MM
    rows = slice(first, max(round(body.middle) // _STEP_MM, first) + 1)
    behind = float(posterior[body.rows].mean())
    low, high = (round((behind + p - _P_MM[0]) / _STEP_MM) for p in _ROOT_P_MM)
    upper = min(round((body.top + body.middle) / 2) // _STEP_MM, len(out_SPX) - 1)
    neck = min(max(round((behind + _NECK_MM - _P_MM[0]) / _STEP_MM), 0), len(_P_MM) - 1)
    in_view = not out_SPX[upper, : neck + 1, column].any()
    return _Root(column, rows, slice(max(low, 0), high + 1), slice(first, first + _WINDOW), in_view, behind)
