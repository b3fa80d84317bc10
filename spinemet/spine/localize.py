"""The vertebrae of a volume by the configured method. A segmentation that is shifted or mirrored is rejected."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from spinemet.anatomy import LEVEL_INDEX, is_named, spacing_ratios
from spinemet.config import Localizer
from spinemet.errors import Reason, StudyExcluded, StudyFailed, StudyProblem
from spinemet.spine.geometric import geometric_spine
from spinemet.spine.masks import spine_from_labels
from spinemet.spine.totalsegmentator import segment
from spinemet.types import Completeness, Flag, LabelMap, Method, Spine, Vec3, Vertebra, Volume

_NEAR_MM = 8.0
"""Largest median distance between the labelled bodies' centres and the geometric localizer's. If both are right it is 1
to 4 mm (real cases of README.md, 48 phantoms); half the distance between two bodies is 9 (neck) to 19 mm."""
_LEAST_COMPARED = 2
_NAMES_AGREE, _PLACES_AGREE, _NAMES_DIFFER = 0.99, 0.9, 0.5
"""The level confidence of labels, a grade of what was checked and no measured frequency. In every case, order and
distances fit the levels (masks.py). The geometric localizer gives most bodies the same names; or it finds the bodies,
but names none of them; or it names most of them otherwise. If it finds too few bodies: masks.LEVEL_CONFIDENCE, 0.7."""
_FAR_LEVELS, _CLEARLY, _SURE = 3, 0.2, 0.95
"""Labels so many levels from the geometric names are refused if the distances fit the labels worse: by the second value
(a natural logarithm), or at all if the geometric names are so sure. No anomaly explains three levels."""
_ONE_MORE = 1.7
"""Beyond the outer body, the canal is in view for about half the distance to the next one, and for one and a half if
that next body is cut. With so many distances another body should have been listed."""
_HEAD, _SACRUM = ("C1", "C2"), ("L5", "L6", "S1")
"""Levels beyond which the canal goes on without further bodies: into the skull, and along the sacrum."""


def localize(volume: Volume, labels: LabelMap | None = None, method: Localizer = "auto") -> Spine:
    """The spine of `volume`: its vertebrae, cranial to caudal, and the curve they sit on.

    `auto` uses the labels if they are usable, else the geometric localizer; it flags every vertebra LABELS_UNUSABLE if
    the labels were not usable. Raises StudyExcluded(NO_SPINE) if nothing is found, or for `masks` without labels;
    StudyFailed(BAD_SEGMENTATION) for `masks` if the labels contradict themselves or the CT; BadInput for
    `totalsegmentator` if it is not installed.
    """
    return with_ends(_localized(volume, labels, method))


def _localized(volume: Volume, labels: LabelMap | None, method: Localizer) -> Spine:
    if method == "totalsegmentator":
        return replace(spine_from_labels(volume, segment(volume)), method=Method.TOTALSEGMENTATOR)
    if labels is None and method == "masks":
        raise StudyExcluded(Reason.NO_SPINE, "the study has no vertebra segmentation.")
    if labels is None or method == "geometric":
        return geometric_spine(volume)
    try:
        return checked(volume, spine_from_labels(volume, labels))
    except StudyProblem:
        if method == "masks":
            raise
        return _flagged(geometric_spine(volume), Flag.LABELS_UNUSABLE)


def with_ends(spine: Spine) -> Spine:
    """`spine`, flagged where the canal goes on beyond the outer bodies far enough for another one (see _ONE_MORE)."""
    bodies = spine.vertebrae
    first, last = bodies[0], bodies[-1]
    places = np.array([one.canal_mm for one in bodies])
    apart = np.diff(places) if len(bodies) > 1 else np.array([1.3 * first.height_mm])
    above, below = places[0], len(spine.curve.points_mm) - 1 - places[-1]
    flags = list(spine.flags)
    if first.level not in _HEAD and above > _ONE_MORE * float(np.median(apart[:3])):
        flags.append(Flag.UNLISTED_ABOVE)
    if last.level not in _SACRUM and below > _ONE_MORE * float(np.median(apart[-3:])):
        flags.append(Flag.UNLISTED_BELOW)
    return replace(spine, flags=tuple(flags))


def checked(volume: Volume, labelled: Spine) -> Spine:
    """`labelled`, with flags on its vertebrae if the geometric localizer contradicts their names or cannot check them.

    LEVEL_DISPUTED: both name the same bodies, and most of the names differ; the labels' names stay. LABELS_UNCHECKED:
    fewer than two whole bodies lie where the geometric localizer found the spine. For confidences see _NAMES_AGREE.
    Raises StudyFailed(BAD_SEGMENTATION) if the bodies of the CT are elsewhere, or if names three or more levels away
    fit the distances between the bodies better than the labels' names (see _FAR_LEVELS).
    """
    try:
        geometric = geometric_spine(volume)
    except StudyExcluded:
        return _flagged(labelled, Flag.LABELS_UNCHECKED)
    pairs = _nearest(labelled, geometric)
    if len(pairs) < _LEAST_COMPARED:
        return _flagged(labelled, Flag.LABELS_UNCHECKED)
    apart = float(np.median([distance for _, _, distance in pairs]))
    if apart > _NEAR_MM:
        raise StudyFailed(Reason.BAD_SEGMENTATION, f"the labels lie {apart:.0f} mm away from the bodies in the CT.")
    near = [(a, b) for a, b, distance in pairs if distance <= _NEAR_MM and is_named(b.level)]
    named = {b.level: a for a, b in near}
    if not named:
        return _confident(labelled, _PLACES_AGREE)
    if sum(a.level != level for level, a in named.items()) * 2 <= len(named):
        return _confident(labelled, _NAMES_AGREE)
    away = float(np.median([abs(LEVEL_INDEX[a.level] - LEVEL_INDEX[level]) for level, a in named.items()]))
    centers = [a.center_mm for a in named.values()]
    worse = _misfit([a.level for a in named.values()], centers) - _misfit(list(named), centers)
    sure = float(np.median([b.level_confidence for _, b in near]))
    if away >= _FAR_LEVELS and worse > (0.0 if sure >= _SURE else _CLEARLY):
        detail = f"the labels' names are {away:.0f} levels away from those that the CT shows."
        raise StudyFailed(Reason.BAD_SEGMENTATION, detail)
    return _confident(_flagged(labelled, Flag.LEVEL_DISPUTED), _NAMES_DIFFER)


def _misfit(levels: list[str], centers_mm: list[Vec3]) -> float:
    """How far the bodies' distances are from those of the levels, as a logarithm; 0 if there are none to compare."""
    ratios = spacing_ratios(levels, centers_mm)
    return abs(float(np.log(np.median(ratios)))) if ratios else 0.0


def _nearest(labelled: Spine, geometric: Spine) -> list[tuple[Vertebra, Vertebra, float]]:
    """Each whole labelled vertebra with the nearest geometric one and their distance in mm.

    Labelled vertebrae more than half a body beyond the ends of the geometric spine are left out, because the geometric
    localizer may have stopped early.
    """
    found = np.array([v.center_mm for v in geometric.vertebrae])
    first, last = geometric.vertebrae[0], geometric.vertebrae[-1]
    high, low = first.center_mm[2] + first.height_mm, last.center_mm[2] - last.height_mm
    pairs = []
    for vertebra in labelled.vertebrae:
        if vertebra.completeness is Completeness.WHOLE and low <= vertebra.center_mm[2] <= high:
            distance = np.linalg.norm(found - vertebra.center_mm, axis=1)
            nearest = int(distance.argmin())
            pairs.append((vertebra, geometric.vertebrae[nearest], float(distance[nearest])))
    return pairs


def _flagged(spine: Spine, flag: Flag) -> Spine:
    """`spine` with `flag` on every vertebra."""
    return replace(spine, vertebrae=tuple(replace(v, flags=(*v.flags, flag)) for v in spine.vertebrae))


def _confident(spine: Spine, confidence: float) -> Spine:
    """`spine` with this level confidence on every vertebra."""
    return replace(spine, vertebrae=tuple(replace(v, level_confidence=confidence) for v in spine.vertebrae))
