"""What the anchors in view say about each body's level: sacrum (sacrum.py), ribs (ribs.py), skull (skull.py), size.

Each function gives log probabilities for the levels of one build of the spine. naming.py weighs them together.
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

_BLUNDER = 0.02
"""Probability that an anchor is false: a lesion, metal, a wrong path. It limits the certainty that one anchor can give.
Set above the share of such cases among 54 phantoms (1 % of ribs, no sacrum)."""
_BOTH_SIDES = 0.7
"""Weight of each side's rib: both sides fail together (noise, thick slices), so they count as 1.4 ribs instead of 2."""
_SHORT_RIBS = {"T12": 0.16, "T13": 0.4, "L1": 0.3, "C7": 0.3}
"""Share of free ribs that end within FARTHEST_MM of the midline. Both sides do in 8 % of the twelfth ribs of phantoms
(0.16 to the power of 2 x _BOTH_SIDES), in 30 % of the thirteenth and 17 % of those at L1."""
_FADING_MM = 3.0
"""Standard deviation of the lost length of a rib that reaches FARTHEST_MM: 1 in 10 long ribs of the phantoms of
tests/bench/population.py ends at 52 to 56 mm."""
_FIRST_BEHIND_MM, _BEHIND_MM, _COURSE_SPREAD_MM, _ODD_COURSE = -1.0, 19.0, 6.0, 0.02
"""How far behind the bodies' posterior wall the first rib lies at ribs.ACROSS_MM, as the other ribs do, their standard
deviation, and the share that lies anywhere. Mean of both sides in three patients of ../shared/realct/spines: first ribs
-7 to 1, second 14 to 16, others 18 to 28; in two patients left out -5 and 2, 12 and 17, 18 to 32."""
_CERVICAL_RANGE_MM = 60.0
"""A cervical rib may lie anywhere within this range there."""
_MOST_HEAD, _HEAD, _HEAD_SPREAD, _HEAD_LIMITS = 0.55, 0.28, 0.045, (-3.0, 6.0)
"""Boneness at a rib's head. The most that one side counts, because a wall a few mm off puts the body there; the mean of
both sides that speaks neither for a rib nor against one; what changes the odds by a factor of e; the limits of their
logarithm."""
_HEADLESS = ("T12", "T13", "L1", "L2")
"""Levels where bone in that place is a rib's. Farther down the process or the ala may lie there, and how far down must
not name a level: it would tell the usual spine from one with four lumbar vertebrae or six by the shape of L4."""
_CLIMBS = 0.03
"""Share of first ribs that climb out of the view before they descend: one of four beside an upper border of the view in
real cases, none in phantoms."""
_PROCESS_MM = {"C": 28.0, "T": 30.0, "L": 41.0}
_TIPS_MM = {"C7": 33.0, "L1": 37.0}
"""Half the distance between the tips of the transverse processes (Panjabi et al. 1991, 1992). One figure per region, so
that their lengths do not name a level; the two next to the ribs are separate, or they would pass for short ribs."""
_LONGER_MM, _SHORTER_MM = 5.0, 10.0
"""Standard deviation of the measured length, for longer and shorter ones: people differ by 4 mm, and the tips fade in
thick slices."""
_SKULL = 0.03
"""_BLUNDER of the foramen magnum: higher, because it was tested on phantoms and on one patient's whole neck."""
_TO_THIRD_MM, _SKULL_SPREAD_MM = 49.5, 5.0
"""From the foramen magnum down to the upper end of C3's body, and its standard deviation: 50.4 and 4.5 mm in 49
phantoms, whose axis, basion and foramen have human dimensions (Rojas et al., AJNR 2007). Body depth would reduce the
4.5 mm by 0.6, body spacing by nothing, so neither is used."""
_SPACING_MM, _SPACING_SPREAD = 16.8, 0.1
"""Spacing of the upper bodies, and its standard deviation as a share, which adds up from level to level."""
_GROWTH_MM, _LUMBAR_MM = 1.2, 34.0
"""From C6 down the spacing along the canal grows by the first value a level, up to the second. Within 8 % of the means
of the phantoms and of six patients."""
_SIZE_SPREAD = 0.25
"""Standard deviation of the logarithm of a person's spacing: 0.1 in adults; half-grown children are 0.3 below."""
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
_ASTRAY = 0.1
"""The same share for the other lumbar vertebrae from L2: bone seems to lead on in the thin lower pole of a kidney with
contrast. At L3 it does in 0.42 of 80 phantoms, at the others in none, but that must not name a level either."""
_NEXT = 0.5
"""Share of views ending with a cervical body in which bone leads outward from that body to the first rib, whose own
vertebra is cut off or not found: 10 of 14 phantoms of necks that end at C7."""


@dataclass(frozen=True)
class Build:
    """A build of the spine: the share of people with it, its levels cranial to caudal, and the levels with ribs."""

    share: float
    levels: tuple[str, ...]
    ribs: frozenset[str]


_USUAL = USUAL_LEVELS[:-1]  # without S1
_THORACIC = frozenset(level for level in _USUAL if level[0] == "T")
BUILDS = (
    Build(0.91, _USUAL, _THORACIC),
    Build(0.02, _USUAL[:-1], _THORACIC),
    Build(0.025, (*_USUAL, "L6"), _THORACIC),
    Build(0.01, tuple(level for level in LEVELS if level not in {"L6", "S1"}), _THORACIC | {"T13"}),
    Build(0.015, _USUAL, _THORACIC - {"T12"}),
    Build(0.01, _USUAL, _THORACIC | {"L1"}),
    Build(0.01, _USUAL, _THORACIC | {"C7"}),
)
"""The usual build first. Shares: transitional counts 4 to 8 % (Thawait et al. 2013), other ribs about 1 % each."""


def sacral_evidence(build: Build, count: int, sacrum: float) -> Array:
    """(count, K) log probability of a sacrum below the last body, for each level of `build`."""
    evidence = np.zeros((count, len(build.levels)))
    sure = min(sacrum, 1 - _BLUNDER)
    evidence[-1] = np.log((1 - sure) / (len(build.levels) - 1))
    evidence[-1, -1] = np.log(sure)
    return evidence


def skull_evidence(build: Build, bodies: list[Body], foramen: float) -> Array:
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


def size_evidence(build: Build, bodies: list[Body]) -> Array:
    """(n, K) log probability, up to a constant, of the spacing of the bodies, for each level of `build`.

    It tells a neck from a lumbar spine, never a level from the next: all bodies together count once.
    """
    evidence = np.zeros((len(bodies), len(build.levels)))
    if len(bodies) > 2:
        steps = np.array([LEVEL_INDEX[level] - LEVEL_INDEX["C6"] for level in build.levels])
        usual = np.clip(_SPACING_MM + _GROWTH_MM * steps, _SPACING_MM, _LUMBAR_MM)
        discs = np.array([(above.bottom + below.top) / 2 for above, below in itertools.pairwise(bodies)])
        off = np.log(np.diff(discs)[:, None] / usual) / _SIZE_SPREAD
        evidence[1:-1] = -0.5 * off**2 / len(off)
    return evidence


def rib_evidence(build: Build, reach: Reach) -> Array:
    """(n, K) log probability of the measured reach, course and heads of ribs, for each level of `build`."""
    columns = []
    courses = _course_evidence(reach.behind_mm)
    head = _head_odds(reach.head)
    for level in build.levels:
        ends = reach.ends
        if level in build.ribs:
            short = _SHORT_RIBS.get(level, 2 * _BLUNDER)
            share = _reach_share(reach.mm, ends, FARTHEST_MM, _FADING_MM, 1.0, short)
            low = _reach_share(reach.mm, reach.ends_low, FARTHEST_MM, _FADING_MM, 1.0, short)
            share = _CLIMBS * share + (1 - _CLIMBS) * low
        else:
            tip = _TIPS_MM.get(level) or _PROCESS_MM[level[0]]
            share = _reach_share(reach.mm, ends, tip, _SHORTER_MM, _LONGER_MM, _BLUNDER)
            far = _reach_share(reach.mm, ends, FARTHEST_MM, 1.0, 1.0, _BLUNDER)
            if level[0] == "L" and level != "L1":
                astray = _ILIAC if level == build.levels[-1] else _ASTRAY
                share = (1 - astray) * share + astray * far
            elif level[0] == "C":
                share[-1] = (1 - _NEXT) * share[-1] + _NEXT * far[-1]
        course = courses.get(level, 0.0) if level in build.ribs else 0.0
        columns.append(_BOTH_SIDES * np.log(share).sum(axis=1) + course + _head_evidence(build, level, head))
    return np.stack(columns, axis=1)


def _head_odds(head: Array) -> Array:
    """(n,) log odds that the bone beside each body is a rib's head; 0 if neither side is in view."""
    seen = np.isfinite(head)
    mean = np.where(seen, np.minimum(head, _MOST_HEAD), 0.0).sum(axis=1) / np.maximum(seen.sum(axis=1), 1)
    return np.where(seen.any(axis=1), np.clip((mean - _HEAD) / _HEAD_SPREAD, *_HEAD_LIMITS), 0.0)


def _head_evidence(build: Build, level: str, odds: Array) -> Array:
    """(n,) log likelihood of the odds of `_head_odds` at this level, against that of either kind of bone."""
    if level in build.ribs or level[0] == "C":  # the neck's processes hold what is a rib farther down
        return np.asarray(np.log(2 * expit(odds)))
    against = np.log(2 * expit(-odds))
    return np.asarray(against if level in _HEADLESS else np.maximum(against, 0.0))


def _course_evidence(behind_mm: Array) -> dict[str, Array]:
    """Level -> (n,) log likelihood ratio of the ribs' course against that of the ribs that first go backward.

    Only bodies count that another with ribs follows: kidneys with contrast lie forward too. How cervical ribs go is not
    known.
    """
    followed = np.isfinite(behind_mm) & np.append(np.isfinite(behind_mm[1:]), False)
    behind = np.where(followed, behind_mm, _BEHIND_MM)

    def density(mm: Array, mean: float) -> Array:
        off = (mm - mean) / _COURSE_SPREAD_MM
        usual = np.exp(-0.5 * off**2) / (_COURSE_SPREAD_MM * np.sqrt(2 * np.pi))
        return np.asarray((1 - _ODD_COURSE) * usual + _ODD_COURSE / _ANYWHERE_MM)

    others = density(np.minimum(behind, _BEHIND_MM), _BEHIND_MM)
    anyhow = np.full(len(behind), 1 / _CERVICAL_RANGE_MM)
    return {
        level: np.where(followed, np.log(own / others), 0.0)
        for level, own in (("T1", density(behind, _FIRST_BEHIND_MM)), ("C7", anyhow))
    }


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
