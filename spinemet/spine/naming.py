"""Names the vertebrae of a row from anchors in view; without an anchor they are `?1`, `?2`, …

Anchors are the skull (skull.py), the sacrum (sacrum.py) and the ribs (ribs.py): the bodies that carry them show where
T1 and T12 are. A hidden Markov model weighs them together. Its states are the levels of a spine with the usual number
of vertebrae and ribs, or with an unusual one. From body to body the state moves one level down, rarely none or two
(a disc found twice or missed).

Names are decided together, as a count: the likeliest sequence of consecutive levels. Where a body is sure of its level
in that count, its neighbours are named by counting, so names never contradict each other. If two anchors contradict
each other, no vertebra is named.
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

_LEAST, _LIKELY = 0.955, 0.93
"""Least probability of the bodies' levels in the count: the median of all that are named, and each of them. Set on 640
subjects of tests/bench/population.py: lower, names of chests whose first rib is out of view are wrong too often."""
_BLUNDER = 0.02
"""Probability that an anchor is false: a lesion, metal, a wrong path. It limits the certainty that one anchor can give.
Set above the share of such cases among 54 phantoms (1 % of ribs, no sacrum)."""
_CONFLICT = 0.05
"""Two anchors contradict each other if both together are less likely than this share of the product of their single
probabilities: 0.02 if they disagree by some levels, 0.1 to 0.5 if a spine with four lumbar vertebrae or lumbar ribs
reconciles them."""
_EVEN, _MISCOUNT, _UNCLEAR, _GAP = 0.00001, 0.001, 0.3, 0.5
"""Probability that a disc was missed or found twice: in an even row, with good evidence for the disc, with none, and
with a gap that has room for another body. The second and third count as far as spacings are uneven: 17 discs at 0.001
each would outweigh the 1 to 2.5 % of people who have another number of vertebrae."""
_UNEVEN = 0.12
"""Standard deviation of the logarithm of a spacing against that of its neighbours. A miscount changes the spacing of
discs by a third or more, so even spacings speak against it. 0.12 on the phantoms of tests/bench/population.py."""
_NEIGHBOURS = 4
"""Spacings of so many bodies to either side show what is usual."""
_BOTH_SIDES = 0.7
"""Weight of each side's rib: both sides fail together (noise, thick slices), so they count as 1.4 ribs instead of 2."""
_SHORT_RIBS = {"T12": 0.16, "T13": 0.2, "L1": 0.3, "C7": 0.3}
"""Share of free ribs that end within FARTHEST_MM of the midline. Both sides do in 8 % of the twelfth ribs of phantoms
(0.16 to the power of 2 x _BOTH_SIDES). Further ribs are shorter."""
_FADING_MM = 3.0
"""Standard deviation of the lost length of a rib that reaches FARTHEST_MM: 1 in 10 long ribs of the phantoms of
tests/bench/population.py ends at 52 to 56 mm."""
_FIRST_BEHIND_MM, _BEHIND_MM, _COURSE_SPREAD_MM, _ODD_COURSE = -1.0, 19.0, 6.0, 0.02
"""How far behind the bodies' posterior wall the first rib lies at ribs.ACROSS_MM, as the other ribs do, their standard
deviation, and the share that lies anywhere. Mean of both sides in three patients of ../shared/realct/spines: first ribs
-7 to 1, second 14 to 16, others 18 to 28; in two patients left out -5 and 2, 12 and 17, 18 to 32."""
_CERVICAL_RANGE_MM = 60.0
"""A cervical rib may lie anywhere within this range there."""
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
    _Build(0.91, _USUAL, _THORACIC),
    _Build(0.02, _USUAL[:-1], _THORACIC),
    _Build(0.025, (*_USUAL, "L6"), _THORACIC),
    _Build(0.01, tuple(level for level in LEVELS if level not in {"L6", "S1"}), _THORACIC | {"T13"}),
    _Build(0.015, _USUAL, _THORACIC - {"T12"}),
    _Build(0.01, _USUAL, _THORACIC | {"L1"}),
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
    their sides; None if ribs were not searched. foramen: s of the foramen magnum if it is in view. The named bodies
    stand together and have consecutive levels.
    """
    if len(bodies) > len(BUILDS[0].levels):  # more bodies than names: some of them are false
        return Names(_unnamed(len(bodies)))
    miscounts = _miscounts(bodies)
    anchors = [[_sacral_evidence(build, len(bodies), sacrum) for build in BUILDS]] if sacrum else []
    if reach:
        anchors.append([_rib_evidence(build, reach) for build in BUILDS])
    if foramen is not None:
        anchors.append([_skull_evidence(build, bodies, foramen) for build in BUILDS])
    sizes = [_size_evidence(build, bodies) for build in BUILDS]
    chance = _level_shares(miscounts)[0]
    for one, other in itertools.combinations(anchors, 2):
        alone = _level_shares(miscounts, one)[0] * _level_shares(miscounts, other)[0]
        if _level_shares(miscounts, one, other)[0] * chance < _CONFLICT * alone:
            return Names(_unnamed(len(bodies)))
    _, shares, unusual = _level_shares(miscounts, sizes, *anchors)
    count = _likeliest_count(miscounts, sizes, *anchors)
    sure = shares[np.arange(len(bodies)), [LEVEL_INDEX[level] for level in count]]
    names = list(_unnamed(len(bodies)))
    stretch = _around(int(sure.argmax()), sure >= _LIKELY)
    if np.median(sure[stretch]) >= _LEAST:
        for n in stretch:
            names[n] = count[n], round(float(sure[n]), 3)
    return Names(tuple(names), unusual > 0.5)


def _around(start: int, kept: BoolArray) -> range:
    """The longest range about `start` in which all are kept."""
    first = last = start
    while first > 0 and kept[first - 1]:
        first -= 1
    while last + 1 < len(kept) and kept[last + 1]:
        last += 1
    return range(first, last + 1)


def _likeliest_count(miscounts: list[float], *anchors: list[Array]) -> tuple[str, ...]:
    """The likeliest levels of the bodies if each is the next level after the one above, over all builds together."""
    size = len(miscounts) + 1
    likely: dict[tuple[str, ...], float] = {}
    for n, build in enumerate(BUILDS):
        emission = sum((evidence[n] for evidence in anchors), np.zeros((size, len(build.levels))))
        for first in range(len(build.levels) - size + 1):
            names = build.levels[first : first + size]
            joint = np.exp(np.trace(emission, offset=first)) * build.share / len(build.levels)
            likely[names] = likely.get(names, 0.0) + joint
    return max(likely, key=lambda names: likely[names])


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


def _size_evidence(build: _Build, bodies: list[Body]) -> Array:
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


def _miscounts(bodies: list[Body]) -> list[float]:
    """For each pair of bodies, the probability that the lower one is not the next level after the upper one."""
    discs = np.array([(above.bottom + below.top) / 2 for above, below in itertools.pairwise(bodies)])
    evidence = np.array([above.disc_below for above in bodies[:-1]])
    chances = []
    for n, (above, below) in enumerate(itertools.pairwise(bodies)):
        if below.middle - above.middle > 1.6 * (below.height + above.height) / 2 + 12:
            chances.append(_GAP)
        else:
            odd = _oddity(discs, *_span(evidence, n))
            chances.append(float(_EVEN + (_MISCOUNT + _UNCLEAR * expit(-3 * evidence[n])) * odd))
    return chances


def _span(evidence: Array, n: int) -> tuple[int, int]:
    """The nearest discs with evidence above and below disc `n`; `n` itself for a side without one."""
    clear = np.flatnonzero(evidence > 0)
    return max(clear[clear < n], default=n), min(clear[clear > n], default=n)


def _oddity(discs: Array, first: int, last: int) -> float:
    """How likely one body more or less between two discs makes their spacing, against the spacings around: 0 to 1."""
    around = np.diff(discs[max(first - _NEIGHBOURS, 0) : first + 1]), np.diff(discs[last : last + _NEIGHBOURS + 1])
    if first == last or sum(map(len, around)) < 2:
        return 1.0
    usual, count = np.median(np.concatenate(around)), last - first
    bodies = (discs[last] - discs[first]) / usual
    wrong = [np.log(bodies / other) for other in (count - 1 or 0.5, count + 1)]
    return float(max(np.exp(-0.5 * (off / _UNEVEN) ** 2) for off in wrong))


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
    """(n, K) log probability of the measured reach and course of bone, for each level of `build`."""
    columns = []
    courses = _course_evidence(reach.behind_mm)
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
            if level == build.levels[-1]:
                share = (1 - _ILIAC) * share + _ILIAC * far
            elif level[0] == "C":
                share[-1] = (1 - _NEXT) * share[-1] + _NEXT * far[-1]
        course = courses.get(level, 0.0) if level in build.ribs else 0.0
        columns.append(_BOTH_SIDES * np.log(share).sum(axis=1) + course)
    return np.stack(columns, axis=1)


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
