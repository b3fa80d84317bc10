"""Finds the discs along the spine from endplate pairs, the alternation of pedicles and foramina, and regular spacing.

The whole chain of discs is decided at once, so a disc destroyed by a lesion or bridged by bone gets the place that fits
its neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from spinemet.spine.walls import L_MM, P_MM, Walls, at_depths
from spinemet.types import Array, Array32, BoolArray, IndexArray

_TILTS_DEG = (-14.0, -7.0, 0.0, 7.0, 14.0)
"""Tilts of an endplate against the plane across the canal; L5-S1 tilts most."""
_GAPS_MM = (2, 4, 6, 8, 10, 12, 14, 16)
"""Distances between the two endplates' bright lines. At 2 the lines merge: thin thoracic discs, 5 mm slices."""
_DENSE = 0.9
"""Boneness is cut off here, because sclerotic bodies would hide the lines of their neighbours."""
_SINGLE_LINE = 0.45
"""Weight of a single bright line, which may also be a bone island or a fracture."""
_FORAMEN_MM = 5.0
"""The foramen's middle lies this far cranial of the disc's: 3 to 7 mm in the LIDC and TotalSegmentator cases."""
_FORAMEN_WEIGHT = 0.6
_SHELL_WEIGHT = 0.2
"""Weight of the body's cortex in front, which discs lack and both dark and dense bodies have. With 0.3 or more the LIDC
chain in 5 mm slices ends too early."""
_OFFSET = 0.55
"""Subtracted from the evidence, so that only a disc with more adds to the chain. Discs of the real cases keep 0.5 to
2.4, the middles of bodies -1.5 to -0.5."""
_SPACING_MM = (12, 47)
"""From a small woman's third cervical disc to a large man's fourth lumbar disc."""
_STEADINESS, _WEAR_MM = 0.11, 3.5
"""Standard deviation of the logarithm of the ratio of a spacing to the one above: a share, and the millimetres by which
wear or fusion of a disc changes a spacing of any size, so that a fused block in a small neck is not counted as one body
fewer. Set on discs of 126 subjects of the benchmark's population and of 120 phantoms with fused discs."""
_MOST_UNSTEADY = 6.0
"""Limit of the squared deviations, so that one odd spacing (a collapsed body next to a tall one) does not break the
chain."""
_GROWTH = 0.03
"""Spacings grow by 3 % a level caudally (17 mm at C4 to 36 mm at L4)."""
_BASE_MM, _PER_DEPTH, _SPREAD = 9.0, 0.66, 0.35
"""Expected spacing at a body of depth 0, per mm of depth, and the standard deviation of its logarithm. Measured: 19 mm
at a depth of 19, 25 at 30, 34 at 40 in the LIDC and TotalSegmentator examples; 20 at 16 and 37 at 33 in phantoms."""
_WINDOW = (0.78, 1.3)
"""Shares of the last spacing between which the next disc beyond the chain's end is searched."""
_WEAKEST, _WEAKEST_BELOW = -0.25, 0.2
"""Least evidence of a disc added above and below the chain: this keeps cervical discs in 5 mm slices. Below, weak
evidence may come from a fused sacrum, so more is needed."""
_LEAST_CHAIN = 3
_BORDER_MM = 3
"""No disc is found this close to the end of the field of view, which is an edge itself."""


@dataclass(frozen=True, eq=False)
class DiscEvidence:
    """Per millimetre of the curve, all (S,): the evidence for a disc's middle, and the gap between the endplates and
    their tilt (tangent; positive if the posterior rim is more caudal) that give the most evidence."""

    score: Array
    gap_mm: Array
    tilt: Array
    body: Array
    """Mean boneness across the body's inside."""


def disc_evidence(bone_SPL: Array32, beyond_SPL: BoolArray, walls: Walls, seen: BoolArray) -> DiscEvidence:
    """The evidence for discs along the straightened volume (boneness on s x P_MM x L_MM).

    beyond_SPL: the places beyond the volume. seen: (S,) whether the bodies lie in the volume; elsewhere there is no
    evidence for a disc.
    """
    # With the border as it is, the wobble is larger beside it, so that weak evidence there counts less.
    across = _tilted_profiles(np.minimum(bone_SPL, np.float32(_DENSE)), walls)[len(_TILTS_DEG) // 2]
    wobble = across - ndimage.gaussian_filter1d(across, 15.0)
    scale = np.sqrt(ndimage.gaussian_filter1d(wobble**2, 25.0)) + 0.03
    bone_SPL = _continued(bone_SPL, beyond_SPL)
    profiles = _tilted_profiles(np.minimum(bone_SPL, np.float32(_DENSE)), walls)
    flat = profiles[len(_TILTS_DEG) // 2]
    matches = np.stack([_endplate_pair(profiles, gap) for gap in _GAPS_MM]) / scale
    best = matches.max(axis=0)
    tilt = best.argmax(axis=0)
    every = np.arange(len(flat))
    gap_mm = np.array(_GAPS_MM, np.float64)[matches[:, tilt, every].argmax(axis=0)]
    foramen = np.roll(-_pedicles(bone_SPL, walls), round(_FORAMEN_MM))
    score = best[tilt, every] + _FORAMEN_WEIGHT * foramen - _SHELL_WEIGHT * _shell(bone_SPL, walls) - _OFFSET
    unseen = ndimage.binary_dilation(~seen, iterations=_BORDER_MM)
    score[unseen] = np.minimum(score[unseen], -1.0)
    return DiscEvidence(score, gap_mm, np.tan(np.deg2rad(_TILTS_DEG))[tilt], flat)


def _continued(bone_SPL: Array32, beyond_SPL: BoolArray) -> Array32:
    """`bone_SPL` continued along s from the nearest place inside the volume, so that its border is no endplate."""
    inside = np.where(beyond_SPL, -1, np.arange(len(bone_SPL))[:, None, None])
    nearest = np.maximum.accumulate(inside, axis=0)
    nearest = np.where(nearest < 0, (~beyond_SPL).argmax(axis=0), nearest)
    return np.take_along_axis(bone_SPL, nearest, axis=0)


def disc_chain(evidence: DiscEvidence, depth_mm: Array, arc_mm: Array) -> IndexArray:
    """Positions s (n,) of the discs, cranial to caudal: the chain with the greatest evidence and the steadiest spacing.

    depth_mm: (S,) depth of the bodies. arc_mm: (S,) length along the bodies' middle, on which spacings are measured: in
    a lordosis they are a third shorter along the canal. Dynamic programming over position and last spacing; the
    chain may begin and end anywhere. n is 0 without evidence for any disc.
    """
    arc = np.arange(0.0, arc_mm[-1])
    rows = np.interp(arc, arc_mm, np.arange(len(arc_mm)))
    score = np.interp(rows, np.arange(len(arc_mm)), evidence.score)
    chain = _best_chain(score, np.interp(rows, np.arange(len(arc_mm)), depth_mm))
    if len(chain) >= _LEAST_CHAIN:
        chain = _lengthened(chain, score, _WEAKEST)
        chain = len(score) - 1 - _lengthened((len(score) - 1 - chain)[::-1], score[::-1], _WEAKEST_BELOW)[::-1]
    return np.round(rows[chain]).astype(np.intp)


def _best_chain(score: Array, depth: Array) -> IndexArray:
    spacings = np.arange(*_SPACING_MM)
    change = np.log(spacings[:, None] / spacings[None, :])  # this spacing over the last one
    deviation = np.hypot(_STEADINESS, _WEAR_MM / np.minimum(spacings[:, None], spacings[None, :]))
    unsteady = 0.5 * np.minimum(((change - _GROWTH) / deviation) ** 2, _MOST_UNSTEADY)
    size, count = len(score), len(spacings)
    total = np.full((size, count), -np.inf)
    came = np.full((size, count), -1, np.intp)
    for s in range(size):
        reached = np.flatnonzero(spacings <= s)
        if len(reached) == 0:
            continue
        before = s - spacings[reached]
        chained = total[before] - unsteady[reached]
        last = chained.argmax(axis=1)
        gained = chained.max(axis=1)
        fresh = score[before] > gained
        came[s, reached] = np.where(fresh, -1, last)
        unlike = np.log(spacings[reached] / (_BASE_MM + _PER_DEPTH * depth[s - spacings[reached] // 2])) / _SPREAD
        total[s, reached] = np.maximum(gained, score[before]) + score[s] - 0.5 * unlike**2
    if size == 0 or max(score.max(), total.max()) <= 0:
        return np.empty(0, np.intp)
    if score.max() >= total.max():
        return np.array([score.argmax()])
    s, k = (int(n) for n in np.unravel_index(int(total.argmax()), total.shape))
    discs = [s]
    while k >= 0:
        s, k = s - int(spacings[k]), int(came[s, k])
        discs.append(s)
    return np.array(discs[::-1])


def _lengthened(chain: IndexArray, score: Array, weakest: float) -> IndexArray:
    """`chain` with more discs above its first one, each with more than `weakest` evidence."""
    longer = [int(disc) for disc in chain]
    while True:
        spacing = longer[1] - longer[0]
        there = np.arange(longer[0] - round(_WINDOW[1] * spacing), longer[0] - round(_WINDOW[0] * spacing) + 1)
        there = there[there >= 1]
        peaks = there[(score[there] >= score[there - 1]) & (score[there] >= score[there + 1])]
        # The distance from the expected place counts against a peak, in units of how much spacings vary.
        unlike = ((longer[0] - peaks) / spacing - 1) ** 2 / (2 * _STEADINESS) ** 2
        best = int(np.argmax(score[peaks] - unlike)) if len(peaks) else -1
        if best < 0 or score[peaks[best]] <= weakest:
            return np.array(longer, np.intp)
        longer.insert(0, int(peaks[best]))


def _tilted_profiles(bone_SPL: Array32, walls: Walls) -> Array:
    """(tilts, S) mean boneness of the body's inside on planes tilted about its middle."""
    every = np.arange(len(bone_SPL))
    p = walls.anterior[:, None] + np.linspace(0.12, 0.88, 9) * walls.depth[:, None]
    left = walls.middle_l[:, None] + np.linspace(-0.55, 0.55, 7) * walls.half_width[:, None]
    p_index = np.clip(np.round(p).astype(int) - P_MM[0], 0, len(P_MM) - 1)
    l_index = np.clip(np.round(left / 2).astype(int) + len(L_MM) // 2, 0, len(L_MM) - 1)
    profiles = []
    for tilt in np.tan(np.deg2rad(_TILTS_DEG)):
        s = every[:, None] + tilt * (p - walls.middle_p[:, None])
        s_index = np.clip(np.round(s).astype(int), 0, len(bone_SPL) - 1)
        inside = bone_SPL[s_index[:, :, None], p_index[:, :, None], l_index[:, None, :]]
        profiles.append(inside.mean(axis=(1, 2), dtype=np.float64))
    return np.asarray(ndimage.gaussian_filter1d(profiles, 0.7, axis=1))


def _endplate_pair(profiles: Array, gap: int) -> Array:
    """Matched filter (tilts, S): two bright lines `gap` apart, darker between them and beyond them."""
    size, reach = profiles.shape[1], gap // 2
    pad = reach + 8
    padded = np.pad(profiles, ((0, 0), (pad, pad)), mode="edge")

    def at(shift: int) -> Array:
        return padded[:, pad + shift : pad + shift + size]

    above, below = at(-reach), at(reach)
    # The weaker line counts most, because one line alone is not a pair.
    lines = 0.7 * np.minimum(above, below) + 0.15 * (above + below)
    beyond = np.mean([at(side * (reach + far)) for side in (-1, 1) for far in (5, 6, 7)], axis=0)
    if gap <= 2:
        return _SINGLE_LINE * (at(0) - beyond)
    between = np.mean([at(shift) for shift in range(-max(reach - 2, 0), max(reach - 2, 0) + 1)], axis=0)
    return lines - 0.55 * between - 0.45 * beyond


def _shell(bone_SPL: Array32, walls: Walls) -> Array:
    """(S,) the cortex at the front wall, relative to 16 mm around, in standard deviations."""
    front = np.minimum(bone_SPL, np.float32(_DENSE))[:, :, np.abs(L_MM) <= 10].mean(axis=2)
    return _contrasted(at_depths(front, walls.anterior[:, None] + np.arange(-2, 5)).max(axis=1))


def _pedicles(bone_SPL: Array32, walls: Walls) -> Array:
    """(S,) the bone beside the canal, relative to 16 mm around, in standard deviations: pedicle +, foramen -."""
    beside = bone_SPL[:, (P_MM >= -8) & (P_MM <= 1)].mean(axis=1)
    # Pedicles lie at 0.72 of the body's half width, from T1 (10 of 14 mm) to L3 (17 of 24).
    off = np.abs(np.abs(L_MM)[None] - 0.72 * walls.half_width[:, None]) / (0.3 * walls.half_width[:, None])
    weight = np.clip(1 - off, 0, 1)
    return _contrasted((beside * weight).sum(axis=1) / weight.sum(axis=1))


def _contrasted(raw: Array | Array32) -> Array:
    bone = ndimage.gaussian_filter1d(raw, 2.5)
    bone = bone - ndimage.gaussian_filter1d(bone, 16.0)
    return np.asarray(bone / (np.sqrt(ndimage.gaussian_filter1d(bone**2, 25.0)) + 0.02))
