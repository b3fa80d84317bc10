"""Which vertebrae carry ribs: where unbroken bone leads from beside the body outward, farther than any transverse
process reaches.

Positions as in walls.py: s along the curve, p behind the canal, in mm; x is the distance from the midline, to either
side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from spinemet.spine.bodies import Body
from spinemet.spine.canal import straightened
from spinemet.spine.ring import Tissue
from spinemet.spine.walls import Walls
from spinemet.types import SpineCurve, Volume

Array = npt.NDArray[np.float64]
Array32 = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]

_STEP_MM = 2
_P_MM = np.arange(-34.0, 50.0, _STEP_MM)
_X_MM = np.arange(12.0, 59.0, _STEP_MM)
_LEAST_BONE = 0.35
"""Boneness of the weakest place on the way: 0.6 and more along ribs of the LIDC and TotalSegmentator cases and 0.31 and
more (median 0.75) of 48 phantoms; at most 0.1 beyond the transverse processes of L1 to L4."""
_ABOVE_MM, _BELOW_MM = 8, 90
"""The stretch along the curve in which a rib is followed, from its body's upper end: a rib's head stands at the disc
above it, and the twelfth descends steeply."""
_ROOT_P_MM = (-10, 26)
"""Where a rib or transverse process begins, behind the body's posterior wall."""
_NECK_MM = 10
"""Behind the posterior wall: the first rib's neck, a quarter of the height below the body's upper end; an upper border
of the view that slants with the vertebra may hide it. Set on one phantom of an unusual count and on the LIDC case."""
_DOWN, _ASIDE, _CLIMB_EVERY = 2, 2, 4
"""Cells that the path may go caudal, and forward or backward, for each cell outward; cranial only one in so many: the
flattest ribs of the LIDC case climb 6 mm on their way."""
_BESIDE_MM, _THICK_CELLS = 36.0, (6, 6, 6)
"""From the first distance on, what holds a cube of 12 mm is no rib (7 by 12 mm) but an organ full of contrast."""
_WINDOW = (_ABOVE_MM + _BELOW_MM) // _STEP_MM
_OUTSIDE_HU = -5000.0


FARTHEST_MM = float(_X_MM[-1])
"""From the midline; no path is followed farther."""


@dataclass(frozen=True, eq=False)
class Reach:
    """How far bone leads outward from each body, right and left: (n, 2) mm from the midline, 0 where none begins.

    At most FARTHEST_MM. ends, ends_low: (n, 2) whether that is all, or the field of view ends there and bone may go on
    behind it; `ends_low` for a rib that descends from its vertebra, as the first does, which the upper border of the
    field of view does not hide.
    """

    mm: Array
    ends: Flags
    ends_low: Flags

    def __getitem__(self, part: slice) -> Reach:
        return Reach(self.mm[part], self.ends[part], self.ends_low[part])


def outward_reach(grid: Volume, tissue: Tissue, curve: SpineCurve, walls: Walls, bodies: list[Body]) -> Reach:
    """How far unbroken bone leads from each body; what two bodies lead to belongs to the one with the better way."""
    sparse = SpineCurve(curve.points_mm[::_STEP_MM], curve.frames[::_STEP_MM])
    hu = straightened(grid, sparse, _P_MM, np.concatenate([-_X_MM[::-1], _X_MM]), outside=_OUTSIDE_HU)
    beyond = hu == np.float32(_OUTSIDE_HU)
    bone = tissue.boneness(np.where(beyond, np.float32(tissue.soft), hu), -0.5)
    bone = ndimage.gaussian_filter(bone, (0.5, 0.6, 0.6))
    count = len(_X_MM)
    sides = []
    for columns, wall in ((slice(count - 1, None, -1), -walls.right), (slice(count, None), walls.left)):
        here, out = bone[:, :, columns].copy(), beyond[:, :, columns]
        far = here[:, :, _X_MM >= _BESIDE_MM]
        here[:, :, _X_MM >= _BESIDE_MM] = far - np.maximum(ndimage.grey_opening(far, _THICK_CELLS), 0)
        roots = [_root(body, walls.posterior, wall, out) for body in bodies]
        views = (np.zeros_like(out), out, out)
        sides.append([_reach(here, view, roots, low=n == 2) for n, view in enumerate(views)])
    seen, may, low = (np.stack(two, axis=1) for two in zip(*sides, strict=True))
    # The upper border of the view cuts both sides alike: where one side is uncertain, so is the other.
    ends_low = (low <= seen + 2 * _STEP_MM).all(axis=1, keepdims=True).repeat(2, axis=1)
    return Reach(seen, may <= seen + 2 * _STEP_MM, ends_low)


def _reach(bone_SPX: Array32, out_SPX: Flags, roots: list[_Root], *, low: bool) -> Array:
    """(n,) x of the last column that each body's paths reach with _LEAST_BONE, 0 where none begins.

    out_SPX: places to take for bone; with `low`, only those caudal of the body's middle where its upper end is in view.
    """
    ways = []
    for root in roots:
        out = out_SPX[root.window].copy()
        if low and root.in_view:
            out[: root.rows.stop - root.rows.start] = False
        ways.append(np.where(out, np.float32(1), bone_SPX[root.window]))
    best = np.full((len(roots), *bone_SPX.shape[:2]), -1.0, np.float32)
    reach = np.zeros(len(roots))
    for x in range(len(_X_MM)):
        for n, (root, way) in enumerate(zip(roots, ways, strict=True)):
            if x == root.column:
                best[n, root.rows, root.depth] = way[: root.rows.stop - root.rows.start, root.depth, x]
            elif x > root.column:
                # The window reaches farther to lower s, for a rib comes from above.
                up = int((x - root.column) % _CLIMB_EVERY == 0)
                size, shift = (_DOWN + up + 1, 2 * _ASIDE + 1), ((_DOWN - up) // 2, 0)
                reached = ndimage.maximum_filter(best[n, root.window], size, mode="constant", cval=-1.0, origin=shift)
                best[n, root.window] = np.minimum(reached, way[:, :, x])
        # The lower body wins a tie: a way from above to its rib has crossed a gap.
        owner = len(roots) - 1 - best[::-1].argmax(axis=0)
        best[np.arange(len(roots))[:, None, None] != owner] = -1.0
        reach[best.max(axis=(1, 2)) >= _LEAST_BONE] = _X_MM[x]
    return reach


@dataclass(frozen=True)
class _Root:
    """The places beside a body's upper half where a rib or process may begin: column, rows and depth; the window of
    rows in which it is followed; whether the body's upper end is in view there."""

    column: int
    rows: slice
    depth: slice
    window: slice
    in_view: bool


def _root(body: Body, posterior: Array, wall: Array, out_SPX: Flags) -> _Root:
    column = min(int(np.searchsorted(_X_MM, float(wall[body.rows].mean()) + _STEP_MM)), len(_X_MM) - 1)
    first = max(round(body.top) - _ABOVE_MM, 0) // _STEP_MM
    rows = slice(first, max(round(body.middle) // _STEP_MM, first) + 1)
    behind = float(posterior[body.rows].mean())
    low, high = (round((behind + p - _P_MM[0]) / _STEP_MM) for p in _ROOT_P_MM)
    upper = min(round((body.top + body.middle) / 2) // _STEP_MM, len(out_SPX) - 1)
    neck = min(max(round((behind + _NECK_MM - _P_MM[0]) / _STEP_MM), 0), len(_P_MM) - 1)
    in_view = not out_SPX[upper, : neck + 1, column].any()
    return _Root(column, rows, slice(max(low, 0), high + 1), slice(first, first + _WINDOW), in_view)
