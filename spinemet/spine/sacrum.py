"""Where the sacrum begins: the first body with bone on both sides of it (the alae) where the spine turns backward.

It is an anchor for names and is not listed itself: its segments are fused, and nothing else in SpineMet speaks of them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from spinemet.spine.bodies import Body
from spinemet.spine.discs import DiscEvidence
from spinemet.spine.walls import L_MM, P_MM, Walls

Array = npt.NDArray[np.float64]

_BESIDE_MM = np.arange(4, 19, 2)
"""Lateral of the body's side wall: psoas beside L5, ala beside S1, lung or kidney further up."""
_ALA, _ALA_SPREAD = 0.30, 0.05
"""Boneness on the poorer side as a share of the body's own."""
_ALA_MM, _ALA_LENGTH_MM = 22, 9
"""The ala is looked for in the first millimetres below the body's upper endplate, as the best stretch of the
second length. 0.45 to 0.6 at the TotalSegmentator example's S1 (as it is, with noise, half contrast, 6 mm slices),
above 1 at phantoms', at most 0.21 beside every other body of the real cases."""
_LEAST_BODY = 0.15
_SLOPE_DEG, _SLOPE_SPREAD_DEG = 14.0, 3.0
"""Backward slope of the bodies: S1 29 to 67 degrees in the same cases, lumbar bodies -18 to 27. It keeps
contrast-filled kidneys (L1, L2) from being taken for alae."""
_SEGMENTS = 4
"""The sacrum is looked for among the lowest bodies only."""
_LEAST_DEPTH_MM = 23.0
"""Of S1 at its upper endplate; lower cervical bodies between the shoulders have 14 to 20."""
_LEAST = 0.5


def find_sacrum(
    bone_SPL: npt.NDArray[np.float32], walls: Walls, evidence: DiscEvidence, middle_mm: Array, bodies: list[Body]
) -> tuple[int, float]:
    """The place in `bodies` of the first sacral one and the probability that it is; (len(bodies), 0.0) without one.

    bone_SPL: boneness on s x P_MM x L_MM. middle_mm: (S, 3) LPS of the bodies' middle.
    """
    beside = ndimage.uniform_filter1d(_beside(bone_SPL, walls), _ALA_LENGTH_MM)
    course = np.gradient(middle_mm, axis=0)
    backward = np.rad2deg(np.arctan2(course[:, 1], -course[:, 2]))
    first, sure = len(bodies), 0.0
    for n in range(len(bodies) - 1, max(len(bodies) - 1 - _SEGMENTS, -1), -1):
        rows, top = bodies[n].rows, round(bodies[n].top)
        share = beside[rows.start : top + _ALA_MM].max(initial=-1.0) / max(evidence.body[rows].mean(), _LEAST_BODY)
        ala = _logistic((share - _ALA) / _ALA_SPREAD)
        slope = _logistic((backward[rows].mean() - _SLOPE_DEG) / _SLOPE_SPREAD_DEG)
        if ala * slope >= _LEAST and walls.depth[max(top, 0)] >= _LEAST_DEPTH_MM:
            first, sure = n, ala * slope
    return first, sure


def _beside(bone_SPL: npt.NDArray[np.float32], walls: Walls) -> Array:
    """(S,) mean boneness next to the bodies at their mid depth, on the side that has less."""
    every = np.arange(len(bone_SPL))
    p = np.round(walls.middle_p[:, None] + np.arange(-8, 9, 2)).astype(int) - P_MM[0]
    slab = bone_SPL[every[:, None], np.clip(p, 0, len(P_MM) - 1)].mean(axis=1)
    sides = []
    for wall, outward in ((walls.left, 1), (walls.right, -1)):
        place = np.round((wall[:, None] + outward * _BESIDE_MM) / 2).astype(int) + len(L_MM) // 2
        sides.append(slab[every[:, None], np.clip(place, 0, len(L_MM) - 1)].mean(axis=1))
    return np.minimum(*sides).astype(float)


def _logistic(x: float) -> float:
    return float(1 / (1 + np.exp(-np.clip(x, -40, 40))))
