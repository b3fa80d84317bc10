"""Checks a segmentation against the CT: a shifted or mirrored one is rejected."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from spinemet.anatomy import is_named
from spinemet.errors import Reason, StudyExcluded, StudyFailed
from spinemet.spine.geometric import geometric_spine
from spinemet.types import Completeness, Flag, Spine, Vertebra, Volume

_NEAR_MM = 8.0
"""Largest median distance between the labelled bodies' centres and the geometric localizer's. If both are right it is 1
to 4 mm (real cases of README.md, 48 phantoms); half the distance between two bodies is 9 (neck) to 19 mm."""
_LEAST_COMPARED = 2


def checked(volume: Volume, labelled: Spine) -> Spine:
    """`labelled`, with flags on its vertebrae if the geometric localizer contradicts their names or cannot check them.

    LEVEL_DISPUTED: both name the same bodies, and most of the names differ; the labels' names stay, with half the
    confidence. LABELS_UNCHECKED: fewer than two whole bodies lie where the geometric localizer found the spine.
    Raises StudyFailed(BAD_SEGMENTATION) if the bodies of the CT are elsewhere.
    """
    try:
        geometric = geometric_spine(volume)
    except StudyExcluded:
        return flagged(labelled, Flag.LABELS_UNCHECKED)
    pairs = _nearest(labelled, geometric)
    if len(pairs) < _LEAST_COMPARED:
        return flagged(labelled, Flag.LABELS_UNCHECKED)
    apart = float(np.median([distance for _, _, distance in pairs]))
    if apart > _NEAR_MM:
        raise StudyFailed(
            Reason.BAD_SEGMENTATION,
            f"expected vertebra labels within {_NEAR_MM:g} mm of the bodies in the CT, found them {apart:.0f} mm away",
        )
    named = [(a, b) for a, b, distance in pairs if distance <= _NEAR_MM and is_named(b.level)]
    if sum(a.level != b.level for a, b in named) * 2 > len(named):
        return flagged(labelled, Flag.LEVEL_DISPUTED, confidence=0.5)
    return labelled


def _nearest(labelled: Spine, geometric: Spine) -> list[tuple[Vertebra, Vertebra, float]]:
    """Each whole labelled vertebra with the nearest geometric one and their distance in mm.

    Labelled vertebrae more than half a body beyond the ends of the geometric spine are left out, because the geometric
    localizer may have stopped early.
    """
    found = np.array([v.center_mm for v in geometric.vertebrae])
    ends = [
        v.center_mm[2] + side * v.height_mm for v, side in ((geometric.vertebrae[0], 1), (geometric.vertebrae[-1], -1))
    ]
    pairs = []
    for vertebra in labelled.vertebrae:
        if vertebra.completeness is Completeness.CUT or not ends[1] <= vertebra.center_mm[2] <= ends[0]:
            continue
        distance = np.linalg.norm(found - vertebra.center_mm, axis=1)
        nearest = int(distance.argmin())
        pairs.append((vertebra, geometric.vertebrae[nearest], float(distance[nearest])))
    return pairs


def flagged(spine: Spine, flag: Flag, confidence: float = 1.0) -> Spine:
    """`spine` with `flag` on every vertebra, and its level confidences times `confidence`."""
    vertebrae = (
        replace(v, flags=(*v.flags, flag), level_confidence=v.level_confidence * confidence) for v in spine.vertebrae
    )
    return replace(spine, vertebrae=tuple(vertebrae))
