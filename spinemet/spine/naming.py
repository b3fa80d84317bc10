"""Names the vertebrae of a row from anchors in view; without an anchor they are `?1`, `?2`, …

A hidden Markov model weighs the anchors (anchors.py) together. Its states are the levels of a spine with the usual
number of vertebrae and ribs, or with an unusual one. From body to body the state moves one level down, rarely none or
two (a disc found twice or missed).

Names are decided together, as a count: the likeliest sequence of consecutive levels. Where a body is sure of its level
in that count, its neighbours are named by counting, so names never contradict each other. If two anchors contradict
each other, no vertebra is named.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from spinemet.anatomy import LEVEL_INDEX, LEVELS
from spinemet.spine.anchors import BUILDS, rib_evidence, sacral_evidence, size_evidence, skull_evidence
from spinemet.spine.bodies import Body
from spinemet.spine.ribs import Reach
from spinemet.types import Array, BoolArray

_LEAST, _LIKELY = 0.955, 0.93
"""Least probability of the bodies' levels in the count: the median of all that are named, and each of them. Set on 640
subjects of tests/bench/population.py: lower, names of chests whose first rib is out of view are wrong too often."""
_CONFLICT = 0.05
"""Two anchors contradict each other if both together are less likely than this share of the product of their single
probabilities: 0.02 if they disagree by some levels, 0.1 to 0.5 if a spine with four lumbar vertebrae or lumbar ribs
reconciles them."""
_EVEN, _MISCOUNT, _UNCLEAR, _GAP = 0.00001, 0.001, 0.3, 0.5
"""Probability that a disc was missed or found twice: in an even row, with good evidence for the disc, with none, and
with a gap that has room for another body. The second and third count as far as spacings are uneven: 17 discs at 0.001
each would outweigh the 1 to 2.5 % of people who have another number of vertebrae."""
_STEADY, _COUNTED = 0.9, 0.5
"""If the discs make a row without a miscount likelier than the first value, but the anchors make it less likely than
the second, they contradict each other: the sacrum passes for a body, say, and there are more bodies below the ribs than
any build has. Of 280 phantoms one is below 0.8, at 0.00, and its names were wrong."""
_CLEAR = 0.8
"""Least median evidence of the discs if names stand on the skull, or on a sacrum and a single rib: then no second
anchor proves the count, and in bone as dark as muscle the middles of bodies pass for discs. Rightly named necks with at
most one rib in view have 0.89 to 1.65 in 10 of 11 phantoms (numbers 0 to 76, 5000 to 5199), 0.13 in one."""
_DOUBTFUL = -0.25
"""A disc with less evidence may be none. Of 60 phantoms with T13 or L6 (numbers 30000 to 30059) none that is flagged
has less than -0.17 below the first rib."""
_UNEVEN = 0.12
"""Standard deviation of the logarithm of a spacing against that of its neighbours. A miscount changes the spacing of
discs by a third or more, so even spacings speak against it. 0.12 on the phantoms of tests/bench/population.py."""
_NEIGHBOURS = 4
"""Spacings of so many bodies to either side show what is usual."""


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
    anchors = [[sacral_evidence(build, len(bodies), sacrum) for build in BUILDS]] if sacrum else []
    if reach:
        anchors.append([rib_evidence(build, reach) for build in BUILDS])
    if foramen is not None:
        anchors.append([skull_evidence(build, bodies, foramen) for build in BUILDS])
    sizes = [size_evidence(build, bodies) for build in BUILDS]
    chance = _level_shares(miscounts)[0]
    for one, other in itertools.combinations(anchors, 2):
        alone = _level_shares(miscounts, one)[0] * _level_shares(miscounts, other)[0]
        if _level_shares(miscounts, one, other)[0] * chance < _CONFLICT * alone:
            return Names(_unnamed(len(bodies)))
    total, shares, unusual = _level_shares(miscounts, sizes, *anchors)
    steady = float(np.prod(1 - np.array(miscounts)))
    if steady >= _STEADY and steady * _level_shares([0.0] * len(miscounts), sizes, *anchors)[0] < _COUNTED * total:
        return Names(_unnamed(len(bodies)))
    count = _likeliest_count(miscounts, sizes, *anchors)
    if not _countable(bodies, count, foramen is not None, unusual > 0.5):
        return Names(_unnamed(len(bodies)), unusual > 0.5)
    sure = shares[np.arange(len(bodies)), [LEVEL_INDEX[level] for level in count]]
    names = list(_unnamed(len(bodies)))
    stretch = _around(int(sure.argmax()), sure >= _LIKELY)
    if np.median(sure[stretch]) >= _LEAST:
        for n in stretch:
            names[n] = count[n], round(float(sure[n]), 3)
    return Names(tuple(names), unusual > 0.5)


def _countable(bodies: list[Body], count: tuple[str, ...], skull: bool, unusual: bool) -> bool:
    """Whether names may stand on this count: neither on the sacrum alone, nor on a disc that may be none.

    A disc too many explains an extra vertebra better than an unusual spine, which one person in twenty has. Above the
    first rib it does not matter, because levels are counted from there.
    """
    ribs = sum(level[0] == "T" for level in count)
    discs = [(b.disc_below, level) for b, level in zip(bodies, count, strict=True) if np.isfinite(b.disc_below)]
    if ribs < 2 and (not (ribs or skull) or np.median([score for score, _ in discs]) < _CLEAR):
        return False
    return not unusual or all(score >= _DOUBTFUL or level[0] == "C" for score, level in discs)


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
