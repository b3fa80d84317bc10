"""Vertebral bodies between the discs of a straightened spine, and at its two ends.

Positions as in walls.py: s along the curve, p behind the canal, l to the left of it, all in mm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from spinemet.spine.canal import unit
from spinemet.spine.discs import DiscEvidence
from spinemet.spine.walls import Walls
from spinemet.types import Array, BoolArray, IndexArray, SpineCurve

_LEAST_SHARE = 0.3
"""A body at the end of the volume is listed if at least this share of its expected height is in view; less of it shows
an endplate, not a body."""
_DISC_SHARE = 0.18
"""The disc's share of a spacing, if only one disc is seen: 0.12 (thoracic) to 0.25 (lumbar)."""
_WIDEST_GAP = 0.36
"""Largest distance between the bright lines of a disc's two endplates, as a share of the spacing. Discs take 0.12
(thoracic) to 0.25 (lumbar) of it, and the line of a worn lumbar endplate lies a little deeper. Lines farther apart
belong to a pedicle or an arch (C7-T1 of the LIDC case)."""
_ENDPLATE_MM = 0.75
"""From the middle of an endplate's bright line to its surface; the endplate belongs to the body."""
_TURN_MM = 20.0
"""Length of the average of the vertebrae's turn about the canal."""
_LEAST_HEIGHT_MM = 5.0
"""A vertebra plana is still this high; lower ones are two endplates of one disc."""
_FADED, _SOFT = 0.35, 0.05
"""An end body's boneness may be lower than the other bodies' by the first value, and may always be as low as the second
(a lytic body among sclerotic ones). Less is air, fat or lung."""


@dataclass(frozen=True)
class Body:
    """One body along the curve: s of its endplates, evidence of its discs (nan if not seen), tilt of its endplates.

    cut: the view ends before the body has the height of its neighbour.
    """

    top: float
    bottom: float
    disc_above: float
    disc_below: float
    tilt: float
    cut: bool = False

    @property
    def middle(self) -> float:
        """s of the centre."""
        return (self.top + self.bottom) / 2

    @property
    def height(self) -> float:
        """Endplate to endplate, mm."""
        return self.bottom - self.top

    @property
    def rows(self) -> slice:
        """The inner two thirds along s, for measuring."""
        inset = self.height / 6
        return slice(round(self.top + inset), max(round(self.bottom - inset), round(self.top + inset) + 1))


def bodies_between(discs: IndexArray, evidence: DiscEvidence, walls: Walls, seen: BoolArray) -> list[Body]:
    """The bodies above, between and below `discs`, cranial to caudal.

    seen: (S,) whether part of the body's depth lies in the volume. A body beyond the outermost disc is listed if bone
    is there and at least three tenths of its expected height are in view; it ends after the height of its neighbours,
    or with the volume.
    """
    gap = evidence.gap_mm[discs]
    if len(discs) > 1:
        spacing = np.diff(discs)
        around = (np.append(spacing, spacing[-1]) + np.insert(spacing, 0, spacing[0])) / 2
        gap = np.minimum(gap, _WIDEST_GAP * around)
    half_gap = np.maximum(gap / 2 - _ENDPLATE_MM, 0.5)
    upper, lower = (discs - half_gap).tolist(), (discs + half_gap).tolist()
    score, tilt = evidence.score[discs].tolist(), evidence.tilt[discs].tolist()
    bodies = [
        Body(lower[n], upper[n + 1], score[n], score[n + 1], (tilt[n] + tilt[n + 1]) / 2)
        for n in range(len(discs) - 1)
        if upper[n + 1] - lower[n] >= _LEAST_HEIGHT_MM
    ]
    usual = float(np.median([evidence.body[body.rows].mean() for body in bodies])) if bodies else 0.3
    first = bodies[0].height if bodies else float(walls.depth[discs[0]]) * (1 - _DISC_SHARE)
    last = bodies[-1].height if bodies else first
    if above := _end_body(upper[0], -first, evidence.body, seen, usual):
        bodies.insert(0, Body(*above[:2], np.nan, score[0], tilt[0], cut=above[2]))
    if below := _end_body(lower[-1], last, evidence.body, seen, usual):
        bodies.append(Body(*below[:2], score[-1], np.nan, tilt[-1], cut=below[2]))
    return bodies


def _end_body(
    endplate: float, height: float, bone: Array, seen: BoolArray, usual: float
) -> tuple[float, float, bool] | None:
    """(top, bottom, whether the view cuts it) of the body from `endplate` over the signed `height`; None if too little
    of it is seen or bone."""
    start, step = round(endplate), 1 if height > 0 else -1
    rows = start + step * np.arange(1, round(abs(height)) + 1)
    rows = rows[(rows >= 0) & (rows < len(seen))]
    visible = int(np.argmin(seen[rows])) if not seen[rows].all() else len(rows)
    cut = visible < round(abs(height))
    least = max(_LEAST_SHARE * abs(height), _LEAST_HEIGHT_MM)
    if visible < least or bone[rows[:visible]].mean() < min(usual - _FADED, _SOFT):
        return None
    far = endplate + step * visible
    return min(endplate, far), max(endplate, far), cut


def body_frames(curve: SpineCurve, walls: Walls, bodies: list[Body]) -> tuple[Array, Array]:
    """LPS centres (n, 3) and axes (n, 3, 3: left, posterior, superior) of the bodies.

    Superior comes to two thirds from the neighbours' centres and to one third from the endplates' tilt, for the
    outermost bodies from the tilt alone. On 18 phantoms this halves the error of the tilt, which comes in steps of 7°.
    Posterior points from the bodies to the canal, so that the slices turn with the vertebra.
    """
    aside = ndimage.gaussian_filter1d(walls.middle_l, _TURN_MM, mode="nearest")
    centers, tilted, backward = [], [], []
    for body in bodies:
        s = float(np.clip(body.middle, 0, len(curve.points_mm) - 1.001))
        n = int(s)
        point = curve.points_mm[n] + (s - n) * (curve.points_mm[n + 1] - curve.points_mm[n])
        left, posterior, superior = curve.frames[n]
        p = float(walls.middle_p[body.rows].mean())
        centers.append(point + p * posterior + float(walls.middle_l[body.rows].mean()) * left)
        tilted.append(unit(superior + body.tilt * posterior))
        backward.append(-(p * posterior + float(aside[n]) * left))
    up = np.array(tilted)
    if len(bodies) > 2:
        along = np.array(centers)[:-2] - np.array(centers)[2:]
        up[1:-1] = unit(2 * unit(along) + up[1:-1])
    posterior = np.array(backward)
    posterior = unit(posterior - (posterior * up).sum(axis=1, keepdims=True) * up)
    return np.array(centers), np.stack([np.cross(posterior, up), posterior, up], axis=1)
