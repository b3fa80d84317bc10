"""Finds the sacrum: the first body with bone on both sides (the alae) on a backward slope of the spine.

The sacrum is an anchor for names. It is not listed itself, because its segments are fused.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.special import expit

from spinemet.spine.bodies import Body
from spinemet.spine.discs import DiscEvidence
from spinemet.spine.walls import L_MM, Walls, at_depths
from spinemet.types import Array, Array32

_BESIDE_MM = np.arange(4, 19, 2)
"""Distances lateral of the body's side wall: psoas at L5, ala at S1, lung or kidney farther up."""
_ALA, _ALA_SPREAD = 0.30, 0.05
"""Boneness on the side with less bone, as a share of the body's own."""
_ALA_MM, _ALA_LENGTH_MM = 22, 9
"""The ala is the best stretch of the second length within the first length below the body's upper endplate. The share
is 0.45 to 0.6 at S1 of TotalSegmentator's example (unchanged, with noise, half contrast, 6 mm slices), above 1 in
phantoms, and at most 0.21 beside every other body of the real cases in README.md."""
_LEAST_BODY = 0.15
"""The body's boneness counts as at least this, so that a dark body does not inflate the share."""
_SLOPE_DEG, _SLOPE_SPREAD_DEG = 14.0, 3.0
"""Backward slope of the bodies: 29 to 67 degrees at S1 in the same cases, -18 to 27 at lumbar bodies. It keeps
contrast-filled kidneys (L1, L2) from passing for alae."""
_SEGMENTS = 4
"""The sacrum is searched among so many of the lowest bodies."""
_LEAST_DEPTH_MM = 23.0
"""Least depth of S1 at its upper endplate; lower cervical bodies between the shoulders have 14 to 20 mm."""
_LEAST = 0.5


def find_sacrum(
    bone_SPL: Array32, walls: Walls, evidence: DiscEvidence, middle_mm: Array, bodies: list[Body]
) -> tuple[int, float]:
    """The index in `bodies` of the first sacral body and its probability; (len(bodies), 0.0) without a sacrum.

    bone_SPL: boneness on s x P_MM x L_MM. middle_mm: (S, 3) LPS of the bodies' middle.
    """
    beside = ndimage.uniform_filter1d(_beside(bone_SPL, walls), _ALA_LENGTH_MM)
    course = np.gradient(middle_mm, axis=0)
    backward = np.rad2deg(np.arctan2(course[:, 1], -course[:, 2]))
    first, sure = len(bodies), 0.0
    for n in range(len(bodies) - 1, max(len(bodies) - 1 - _SEGMENTS, -1), -1):
        rows, top = bodies[n].rows, round(bodies[n].top)
        share = beside[rows.start : top + _ALA_MM].max(initial=-1.0) / max(evidence.body[rows].mean(), _LEAST_BODY)
        slope = (backward[rows].mean() - _SLOPE_DEG) / _SLOPE_SPREAD_DEG
        probability = float(expit((share - _ALA) / _ALA_SPREAD) * expit(slope))
        if probability >= _LEAST and walls.depth[max(top, 0)] >= _LEAST_DEPTH_MM:
            first, sure = n, probability
    return first, sure


def _beside(bone_SPL: Array32, walls: Walls) -> Array:
    """(S,) mean boneness beside the bodies at their mid depth, on the side with less bone."""
    slab = at_depths(bone_SPL, walls.middle_p[:, None] + np.arange(-8, 9, 2)).mean(axis=1)
    sides = []
    for wall, outward in ((walls.left, 1), (walls.right, -1)):
        place = np.round((wall[:, None] + outward * _BESIDE_MM) / 2).astype(int) + len(L_MM) // 2
        sides.append(np.take_along_axis(slab, np.clip(place, 0, len(L_MM) - 1), axis=1).mean(axis=1))
    return np.minimum(*sides).astype(float)
