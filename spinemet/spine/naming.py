"""Names for vertebrae found in a row, from anchors that are in view; without any they stay `?1`, `?2`, …

Anchors are the skull (skull.py), the sacrum (sacrum.py) and the borders of the ribs (ribs.py): which bodies carry some
says where T1 and T12 are. They are weighed together in a hidden Markov model: a state is a level of a spine with the
usual number of vertebrae and ribs, or with one of the unusual ones; from body to body it moves one level down, rarely
none or two (a disc found twice or not at all). Where two anchors contradict each other none is named.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit, ndtr

from spinemet.anatomy import LEVEL_INDEX, LEVELS, USUAL_LEVELS
from spinemet.spine.bodies import Body
from spinemet.spine.ribs import FARTHEST_MM, Reach

Array = npt.NDArray[np.float64]

_LEAST = 0.8
"""Probability from which a level is named."""
_BLUNDER = 0.02
"""Probability that what an anchor shows has nothing to do with the level: a lesion, metal, a wrong path. One anchor
alone is never surer than that; set above the share of such cases among 54 phantoms (1 % of ribs, no sacrum)."""
_CONFLICT = 0.1
"""Two anchors contradict each other when what both show is less likely than this share of what chance would give (the
product of each one's probability): 0.02 where they are apart by levels, 0.7 where a count of four is the way out."""
_MISCOUNT, _UNCLEAR, _GAP = 0.001, 0.3, 0.5
"""Probability that a disc was missed or found twice: where the evidence for it is good, where there is none, and where
the gap would hold another body."""
_BOTH_SIDES = 0.7
"""Weight of each side's rib: the two sides fail together (noise, thick slices), so they count for 1.4 instead of 2."""
_SHORT_RIB = 0.12
"""Share of twelfth and other free ribs that end within FARTHEST_MM of the midline: lengths as in phantom.anatomy."""
_LONG_RIBS = frozenset(f"T{n}" for n in range(1, 12))
_PROCESS_MM = {"C": 28.0, "T": 30.0, "L": 41.0}
_TIPS_MM = {"C7": 33.0, "L1": 35.5}
"""Half the distance between the tips of the transverse processes (Panjabi et al. 1991, 1992): one figure for a region,
so that their lengths name nothing; but those beside the ribs must not be taken for vertebrae with short ribs."""
_LONGER_MM, _SHORTER_MM = 5.0, 10.0
"""Standard deviation of what is measured to either side: people differ by 4 mm; in thick slices the tips fade."""
_SKULL = 0.05
"""As _BLUNDER, for the foramen magnum: more, as no whole neck of a patient was seen, only phantoms."""
_TO_THIRD_MM, _SKULL_SPREAD_MM = 49.5, 5.0
"""From the foramen magnum down to the upper end of C3's body, and its standard deviation: 50.4 and 4.5 mm in 49
phantoms, whose axis, basion and foramen measure what they do in people (Rojas et al., AJNR 2007). The depth of the
bodies tells the tall from the short by 0.6 mm of the 4.5, their spacing by none: neither is used."""
_SPACING_MM, _SPACING_SPREAD = 16.8, 0.1
"""Of the upper bodies, and its standard deviation as a share, which adds up from level to level."""
_LEAST_SPACING_MM = 14.0
"""Of the upper bodies of an adult: phantoms have 15 to 19 mm. A child's neck is shorter, and not measured by this."""
_IN_AXIS, _IN_AXIS_MM, _IN_AXIS_SPREAD_MM = 0.2, 33.0, 6.0
"""What is taken for a disc above C2 is an edge in its tall body, a spacing above the disc below it: the chance of it, 1
of 29 in phantoms, and its place."""
_ANYWHERE_MM = 300.0
"""A place that has nothing to do with the level lies anywhere along so much of the spine."""
_ILIAC = 0.3
"""Share of transverse processes of the lowest lumbar vertebra that touch the pelvis or the sacrum, so that bone leads
outward from them as from a rib."""


_NEXT = 0.5
"""Share of views whose last body listed is a cervical one in which bone leads outward from it, to the first rib of a
vertebra below that is cut off or not found: 10 of 14 phantoms of necks that end at C7."""


@dataclass(frozen=True)
class _Build:
    """A number of vertebrae and ribs: the levels cranial to caudal, which have ribs, and the share of people."""

    share: float
    levels: tuple[str, ...]
    ribs: frozenset[str]


def _builds() -> tuple[_Build, ...]:
    """The usual build first. Shares: transitional counts 4 to 8 % (Thawait et al. 2013), other ribs about 1 % each."""
    usual = tuple(level for level in USUAL_LEVELS if level != "S1")
    thoracic = frozenset(level for level in usual if level[0] == "T")
    lumbar = usual.index("L1")
    return (
        _Build(0.9, usual, thoracic),
        _Build(0.02, usual[:-1], thoracic),
        _Build(0.025, (*usual, "L6"), thoracic),
        _Build(0.01, (*usual[:lumbar], "T13", *usual[lumbar:]), thoracic | {"T13"}),
        _Build(0.02, usual, thoracic - {"T12"}),
        _Build(0.015, usual, thoracic | {"L1"}),
        _Build(0.01, usual, thoracic | {"C7"}),
    )


BUILDS = _builds()


@dataclass(frozen=True)
class Names:
    """Level and its probability for each body, cranial to caudal; whether an unusual build is the likelier one."""

    levels: tuple[tuple[str, float], ...]
    transitional: bool = False


def level_names(bodies: list[Body], sacrum: float, reach: Reach | None = None, foramen: float | None = None) -> Names:
    """The names of `bodies`, cranial to caudal.

    sacrum: probability that the last of them stands on the sacrum; 0 where none was found. reach: of bone to
    their sides; None where no ribs were looked for. foramen: s of the foramen magnum where it is in view. A level below
    a probability of _LEAST is unknown.
    """
    if len(bodies) > len(BUILDS[0].levels):  # more than there are names: the count is wrong somewhere
        return Names(_unnamed(len(bodies)))
    miscounts = [_miscount(above, below) for above, below in itertools.pairwise(bodies)]
    nothing = [np.zeros((len(bodies), len(build.levels))) for build in BUILDS]
    anchors = [[_sacral_evidence(build, len(bodies), sacrum) for build in BUILDS]] if sacrum else []
    if reach:
        anchors.append([_rib_evidence(build, reach) for build in BUILDS])
    if foramen is not None:
        anchors.append([_skull_evidence(build, bodies, foramen) for build in BUILDS])
    chance = _level_shares(nothing, miscounts)[0]
    for one, other in itertools.combinations(anchors, 2):
        alone = _level_shares(one, miscounts)[0] * _level_shares(other, miscounts)[0]
        if _level_shares(_both(one, other), miscounts)[0] * chance < _CONFLICT * alone:
            return Names(_unnamed(len(bodies)))
    _, shares, unusual = _level_shares(functools.reduce(_both, anchors, nothing), miscounts)
    return Names(_decided(shares), unusual > 0.5)


def _both(one: list[Array], other: list[Array]) -> list[Array]:
    return [a + b for a, b in zip(one, other, strict=True)]


def _level_shares(evidence: list[Array], miscounts: list[float]) -> tuple[float, Array, float]:
    """From log `evidence` per build: its probability in all, that of each level for each body (n, LEVELS), and that of
    an unusual build."""
    shares = np.zeros((len(miscounts) + 1, len(LEVELS)))
    weights = []
    for build, emission in zip(BUILDS, evidence, strict=True):
        joint = _forward_backward(emission, miscounts) * build.share / len(build.levels)
        shares[:, [LEVEL_INDEX[level] for level in build.levels]] += joint
        weights.append(joint[0].sum())
    total = float(sum(weights))
    return total, shares / total, 1 - float(weights[0]) / total


def _unnamed(count: int) -> tuple[tuple[str, float], ...]:
    return tuple((f"?{n + 1}", 0.0) for n in range(count))


def _decided(shares: Array) -> tuple[tuple[str, float], ...]:
    """The likeliest level of each body where it is likely enough and no other body's."""
    best = shares.argmax(axis=1)
    named = []
    for n, index in enumerate(best):
        sure = float(shares[n, index])
        clear = sure >= _LEAST and (best == index).sum() == 1
        named.append((LEVELS[index], round(sure, 3)) if clear else (f"?{n + 1}", 0.0))
    return tuple(named)


def _sacral_evidence(build: _Build, count: int, sacrum: float) -> Array:
    """(count, K) log probability of a sacrum below the last body, for each level of `build`; zeros without one."""
    evidence = np.zeros((count, len(build.levels)))
    if sacrum:
        sure = min(sacrum, 1 - _BLUNDER)
        evidence[-1] = np.log((1 - sure) / (len(build.levels) - 1))
        evidence[-1, -1] = np.log(sure)
    return evidence


def _skull_evidence(build: _Build, bodies: list[Body], foramen: float) -> Array:
    """(n, K) log density, for each level of `build`, of the way from the foramen magnum to the first body with a disc
    above it; zeros without one, or where the bodies below it are none of an adult."""
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
    """(n, K) joint probability of the evidence and of body n being the k-th level, from log `emission` (n, K)."""
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
    """(K, K) probability to come from a level (row) to a level (column)."""
    return (1 - slip) * np.eye(size, k=1) + slip / 2 * (np.eye(size) + np.eye(size, k=2))


def _rib_evidence(build: _Build, reach: Reach) -> Array:
    """(n, K) log probability, for each level of `build`, that bone leads so far outward as it does."""
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


def _reach_share(
    reach_mm: Array, ends: npt.NDArray[np.bool_], tip: float, shorter: float, longer: float, stray: float
) -> Array:
    """(n, 2) probability of a reach, within 1 mm, from bone that ends at `tip` give or take, or (`stray`) anywhere.

    A reach that does not end within the field of view: the probability of it or more.
    """
    low, high = (_below(np.minimum(reach_mm, FARTHEST_MM) + side, tip, shorter, longer) for side in (-1.0, 1.0))
    high = np.where((reach_mm >= FARTHEST_MM) | ~ends, 1.0, high)
    low = np.where(reach_mm <= 0, 0.0, low)
    anywhere = np.where(ends, 2 / FARTHEST_MM, 1 - np.minimum(reach_mm, FARTHEST_MM - 2) / FARTHEST_MM)
    return np.asarray((1 - stray) * (high - low) + stray * anywhere)


def _below(reach_mm: Array, tip: float, shorter: float, longer: float) -> Array:
    off = reach_mm - tip
    # Two halves of normal distributions, each with half of the probability.
    return np.asarray(ndtr(off / np.where(off < 0, shorter, longer)))
