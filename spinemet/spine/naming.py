"""Names the vertebrae of a row from anchors in view; without an anchor they are `?1`, `?2`, …

Anchors are the skull (skull.py), the sacrum (sacrum.py) and the ribs (ribs.py): the bodies that carry them show where
T1 and T12 are. A hidden Markov model weighs them together. Its states are the levels of a spine with the usual number
of vertebrae and ribs, or with an unusual one. From body to body the state moves one level down, rarely none or two
(a disc found twice or missed). If two anchors contradict each other, no vertebra is named.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, ndtr

from spinemet.anatomy import LEVEL_INDEX, LEVELS, USUAL_LEVELS
from spinemet.spine.bodies import Body
from spinemet.spine.ribs import FARTHEST_MM, Reach
from spinemet.types import Array, BoolArray

_LEAST = 0.8
"""Least probability of a level to be named."""
_BLUNDER = 0.02
"""Probability that an anchor is false: a lesion, metal, a wrong path. It limits the certainty that one anchor can give.
Set above the share of such cases among 54 phantoms (1 % of ribs, no sacrum)."""
_CONFLICT = 0.1
"""Two anchors contradict each other if both together are less likely than this share of the product of their single
probabilities: 0.02 if they disagree by some levels, 0.7 if a spine of four lumbar vertebrae reconciles them."""
_MISCOUNT, _UNCLEAR, _GAP = 0.001, 0.3, 0.5
"""Probability that a disc was missed or found twice: with good evidence for the disc, with none, and with a gap
that has room for another body."""
_BOTH_SIDES = 0.7
"""Weight of each side's rib: both sides fail together (noise, thick slices), so they count as 1.4 ribs instead of 2."""
_SHORT_RIB = 0.12
"""Share of twelfth and other free ribs that end within FARTHEST_MM of the midline, with the phantoms' lengths."""
_LONG_RIBS = frozenset(f"T{n}" for n in range(1, 12))
_PROCESS_MM = {"C": 28.0, "T": 30.0, "L": 41.0}
_TIPS_MM = {"C7": 33.0, "L1": 35.5}
"""Half the distance between the tips of the transverse processes (Panjabi et al. 1991, 1992). One figure per region, so
that their lengths do not name a level; the two next to the ribs are separate, or they would pass for short ribs."""
_LONGER_MM, _SHORTER_MM = 5.0, 10.0
"""Standard deviation of the measured length, for longer and shorter ones: people differ by 4 mm, and the tips fade in
thick slices."""
_SKULL = 0.05
"""_BLUNDER of the foramen magnum: higher, because it was tested only on phantoms, on no patient's whole neck."""
_TO_THIRD_MM, _SKULL_SPREAD_MM = 49.5, 5.0
"""From the foramen magnum down to the upper end of C3's body, and its standard deviation: 50.4 and 4.5 mm in 49
phantoms, whose axis, basion and foramen have human dimensions (Rojas et al., AJNR 2007). Body depth would reduce the
4.5 mm by 0.6, body spacing by nothing, so neither is used."""
_SPACING_MM, _SPACING_SPREAD = 16.8, 0.1
"""Spacing of the upper bodies, and its standard deviation as a share, which adds up from level to level."""
_LEAST_SPACING_MM = 14.0
"""Least spacing of an adult's upper bodies; phantoms have 15 to 19 mm. A child's shorter neck is not named."""
_IN_AXIS, _IN_AXIS_MM, _IN_AXIS_SPREAD_MM = 0.2, 33.0, 6.0
"""An edge within C2's tall body may pass for a disc above C2: the probability (1 of 29 in phantoms), its distance from
the foramen magnum, and the standard deviation."""
_ANYWHERE_MM = 300.0
"""A false anchor may lie anywhere along this length of the spine."""
_ILIAC = 0.3
"""Share of the lowest lumbar vertebra's transverse processes that touch the pelvis or the sacrum, so that bone leads
outward from them as from a rib."""

_NEXT = 0.5
"""Share of views ending with a cervical body in which bone leads outward from that body to the first rib, whose own
vertebra is cut off or not found: 10 of 14 phantoms of necks that end at C7."""


@dataclass(frozen=True)
class _Build:
    """A build of the spine: the share of people with it, its levels cranial to caudal, and the levels with ribs."""

    share: float
    levels: tuple[str, ...]
    ribs: frozenset[str]


_USUAL = USUAL_LEVELS[:-1]  # without S1
_THORACIC = frozenset(level for level in _USUAL if level[0] == "T")
BUILDS = (
    _Build(0.9, _USUAL, _THORACIC),
    _Build(0.02, _USUAL[:-1], _THORACIC),
    _Build(0.025, (*_USUAL, "L6"), _THORACIC),
    _Build(0.01, tuple(level for level in LEVELS if level not in {"L6", "S1"}), _THORACIC | {"T13"}),
    _Build(0.02, _USUAL, _THORACIC - {"T12"}),
    _Build(0.015, _USUAL, _THORACIC | {"L1"}),
    _Build(0.01, _USUAL, _THORACIC | {"C7"}),
)
"""The usual build first. Shares: transitional counts 4 to 8 % (Thawait et al. 2013), other ribs about 1 % each."""


@dataclass(frozen=True)
class Names:
    """Level and probability of each body, cranial to caudal; whether the build is probably unusual."""

    levels: tuple[tuple[str, float], ...]
    transitional: bool = False


def level_names(bodies: list[Body], sacrum: float, reach: Reach | None = None, foramen: float | None = None) -> Names:
    """The names of `bodies`, cranial to caudal.

    sacrum: probability that the last body stands on the sacrum; 0 if none was found. reach: how far bone reaches to
    their sides; None if ribs were not searched. foramen: s of the foramen magnum if it is in view. A body stays
    unnamed if its likeliest level has a probability below _LEAST or is also the likeliest of another body.
    """
    if len(bodies) > len(BUILDS[0].levels):  # more bodies than names: some of them are false
        return Names(_unnamed(len(bodies)))
    miscounts = [_miscount(above, below) for above, below in itertools.pairwise(bodies)]
    anchors = [[_sacral_evidence(build, len(bodies), sacrum) for build in BUILDS]] if sacrum else []
    if reach:
        anchors.append([_rib_evidence(build, reach) for build in BUILDS])
    if foramen is not None:
        anchors.append([_skull_evidence(build, bodies, foramen) for build in BUILDS])
    chance = _level_shares(miscounts)[0]
    for one, other in itertools.combinations(anchors, 2):
        alone = _level_shares(miscounts, one)[0] * _level_shares(miscounts, other)[0]
        if _level_shares(miscounts, one, other)[0] * chance < _CONFLICT * alone:
            return Names(_unnamed(len(bodies)))
    _, shares, unusual = _level_shares(miscounts, *anchors)
    best = shares.argmax(axis=1)
    names = list(_unnamed(len(best)))
    for n, (index, sure) in enumerate(zip(best, shares.max(axis=1).tolist(), strict=True)):
        if sure >= _LEAST and (best == index).sum() == 1:
            names[n] = LEVELS[index], round(sure, 3)
    return Names(tuple(names), unusual > 0.5)


def _level_shares(miscounts: list[float], *anchors: list[Array]) -> tuple[float, Array, float]:
    """From the log evidence of `anchors` per build: its total probability, that of each level for each body
    (n, LEVELS), and that of an unusual build."""
    shares = np.zeros((len(miscounts) + 1, len(LEVELS)))
    weights = []
    for n, build in enumerate(BUILDS):
        emission = sum((evidence[n] for evidence in anchors), np.zeros((len(shares), len(build.levels))))
        joint = _forward_backward(emission, miscounts) * build.share / len(build.levels)
        shares[:, [LEVEL_INDEX[level] for level in build.levels]] += joint
        weights.append(joint[0].sum())
    total = float(sum(weights))
    return total, shares / total, 1 - float(weights[0]) / total


def _unnamed(count: int) -> tuple[tuple[str, float], ...]:
    return tuple((f"?{n + 1}", 0.0) for n in range(count))


def _sacral_evidence(build: _Build, count: int, sacrum: float) -> Array:
    """(count, K) log probability of a sacrum below the last body, for each level of `build`."""
    evidence = np.zeros((count, len(build.levels)))
    sure = min(sacrum, 1 - _BLUNDER)
    evidence[-1] = np.log((1 - sure) / (len(build.levels) - 1))
    evidence[-1, -1] = np.log(sure)
    return evidence


def _skull_evidence(build: _Build, bodies: list[Body], foramen: float) -> Array:
    """(n, K) log density, for each level of `build`, of the distance from the foramen magnum to the first body with a
    disc above it; zeros if there is no such body, or if the spacing is a child's."""
    evidence = np.zeros((len(bodies), len(build.levels)))
    first = next((n for n, body in enumerate(bodies) if np.isfinite(body.disc_above)), len(bodies))
    spacings = np.diff([body.middle for body in bodies[first : first + 4]])
    if len(spacings) == 0 or np.median(spacings) < _LEAST_SPACING_MM:
        return evidence
    steps = np.array([LEVEL_INDEX[level] - LEVEL_INDEX["C3"] for level in build.levels], float)
    usual = np.where(steps < 0, _IN_AXIS_MM + (steps + 1) * _SPACING_MM, _TO_THIRD_MM + steps * _SPACING_MM)
    spread = np.hypot(np.where(steps < 0, _IN_AXIS_SPREAD_MM, _SKULL_SPREAD_MM), _SPACING_SPREAD * _SPACING_MM * steps)
    off = (bodies[first].top - foramen - usual) / spread
    density = np.where(steps < 0, _IN_AXIS, 1.0) * np.exp(-0.5 * off**2) / (spread * np.sqrt(2 * np.pi))
    evidence[first] = np.log((1 - _SKULL) * density + _SKULL / _ANYWHERE_MM)
    return evidence


def _miscount(above: Body, below: Body) -> float:
    """Probability that `below` is not the next level after `above`."""
    if below.middle - above.middle > 1.6 * (below.height + above.height) / 2 + 12:
        return _GAP
    return float(_MISCOUNT + _UNCLEAR * expit(-3 * below.disc_above))


def _forward_backward(emission: Array, miscounts: list[float]) -> Array:
    """(n, K) joint probability of the evidence and of body n having the k-th level, from log `emission` (n, K)."""
    count, size = emission.shape
    likely = np.exp(emission)
    forward, backward = np.empty_like(likely), np.ones_like(likely)
    forward[0] = likely[0]
    for n, slip in enumerate(miscounts):
        forward[n + 1] = likely[n + 1] * (forward[n] @ _moves(size, slip))
    for n in range(count - 2, -1, -1):
        backward[n] = _moves(size, miscounts[n]) @ (likely[n + 1] * backward[n + 1])
    return np.asarray(forward * backward)


def _moves(size: int, slip: float) -> Array:
    """(K, K) probability of the step from a level (row) to a level (column)."""
    return (1 - slip) * np.eye(size, k=1) + slip / 2 * (np.eye(size) + np.eye(size, k=2))


def _rib_evidence(build: _Build, reach: Reach) -> Array:
    """(n, K) log probability of the measured reach of bone, for each level of `build`."""
    columns = []
    for level in build.levels:
        ends = reach.ends_low if level == "T1" else reach.ends
        if level in build.ribs:
            short = _BLUNDER * 2 if level in _LONG_RIBS else _SHORT_RIB
            share = _reach_share(reach.mm, ends, FARTHEST_MM, 1.0, 1.0, short)
        else:
            tip = _TIPS_MM.get(level) or _PROCESS_MM[level[0]]
            share = _reach_share(reach.mm, ends, tip, _SHORTER_MM, _LONGER_MM, _BLUNDER)
            far = _reach_share(reach.mm, ends, FARTHEST_MM, 1.0, 1.0, _BLUNDER)
            if level == build.levels[-1]:
                share = (1 - _ILIAC) * share + _ILIAC * far
            elif level[0] == "C":
                share[-1] = (1 - _NEXT) * share[-1] + _NEXT * far[-1]
        columns.append(_BOTH_SIDES * np.log(share).sum(axis=1))
    return np.stack(columns, axis=1)


def _reach_share(reach_mm: Array, ends: BoolArray, tip: float, shorter: float, longer: float, stray: float) -> Array:
    """(n, 2) probability of a reach, within 1 mm, of bone that ends about `tip`, or with probability `stray` anywhere.

    shorter, longer: standard deviations to either side of `tip`. If the field of view ends before the bone does, the
    probability is that of this reach or more.
    """
    off = [np.minimum(reach_mm, FARTHEST_MM) + side - tip for side in (-1.0, 1.0)]
    # Two halves of normal distributions, each with half of the probability.
    low, high = (ndtr(mm / np.where(mm < 0, shorter, longer)) for mm in off)
    high = np.where((reach_mm >= FARTHEST_MM) | ~ends, 1.0, high)
    low = np.where(reach_mm <= 0, 0.0, low)
    anywhere = np.where(ends, 2 / FARTHEST_MM, 1 - np.minimum(reach_mm, FARTHEST_MM - 2) / FARTHEST_MM)
    return np.asarray((1 - stray) * (high - low) + stray * anywhere)
