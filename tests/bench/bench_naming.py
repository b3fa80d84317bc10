"""Names on a population of phantoms: in how many subjects every printed name is right."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np

from spinemet.anatomy import LEVELS, is_named
from spinemet.errors import StudyExcluded
from spinemet.phantom.body.anatomy import Variant
from spinemet.spine.geometric import geometric_spine
from spinemet.types import Array, Completeness
from tests.bench.figures import Figures
from tests.bench.localizer_phantoms import Truth
from tests.bench.population import VIEWS, subject

SUBJECTS, FIRST = 500, 10_000
"""How many subjects, and the number of the first. Parameters were set on subjects with smaller numbers."""
COUNTED, COUNTED_FIRST = 40, 20_000
"""The same for subjects with T13 or L6 from the neck to the sacrum, of whom the population holds too few."""
NEAR_MM = 10.0
WORKERS = 2
UPPER, LOWER = {"skull base", "first rib"}, {"last rib", "sacrum"}


@dataclass(frozen=True)
class Outcome:
    """One subject. named: levels printed. wrong: `printed for true` of each wrong one, `-` if no body is there."""

    number: int
    view: str
    variant: Variant
    anchors: frozenset[str]
    named: tuple[str, ...]
    wrong: tuple[str, ...]

    @property
    def right(self) -> bool:
        """Something is named, and rightly."""
        return bool(self.named) and not self.wrong


def run() -> Figures:
    """Name the population, and the subjects with T13 or L6."""
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool:
        people = list(pool.map(outcome, range(FIRST, FIRST + SUBJECTS)))
        counted = list(pool.map(counted_outcome, range(COUNTED_FIRST, COUNTED_FIRST + COUNTED)))
    figures = Figures(
        "Names: phantoms drawn as a population",
        ("subjects", "there", "an anchor in view", "of these named", "named", "every name right", "share right"),
    )
    for view in VIEWS:
        _add(figures, view, [one for one in people if one.view == view])
    _add(figures, "all", people)
    counted = [one for one in counted if one.anchors & UPPER and one.anchors & LOWER]
    for variant in ("T13", "L6"):
        _add(figures, f"{variant}, upper and lower anchor", [one for one in counted if one.variant == variant])
    named = [one for one in counted if one.right and one.variant in one.named]
    figures.note = (
        f"{SUBJECTS} subjects with the population's share of unusual numbers of vertebrae and ribs, and {len(counted)}"
        f" more with T13 or L6, of whom {len(named)} have that level and every other name right. Anchors: skull base,"
        " first rib, last rib, sacrum. Wrong: "
    ) + ("; ".join(map(_told, [one for one in (*people, *counted) if one.wrong])) or "none")
    return figures


def _add(figures: Figures, name: str, group: Sequence[Outcome]) -> None:
    anchored = [one for one in group if one.anchors]
    named = [one for one in group if one.named]
    right = sum(one.right for one in group)
    share = sum(bool(one.named) for one in anchored) / len(anchored) if anchored else "-"
    sure = right / len(named) if named else "-"
    figures.add(name, len(group), len(anchored), share, len(named), right, sure)


def _told(one: Outcome) -> str:
    return f"{one.number} ({one.view}, {one.variant}): {', '.join(one.wrong[:2])}{', …' if len(one.wrong) > 2 else ''}"


def outcome(number: int) -> Outcome:
    """Draw subject `number` and name it. Runs in a process of its own."""
    return _outcome(number)


def counted_outcome(number: int) -> Outcome:
    """The same for one with T13 or L6 whose first rib, last rib and sacrum are in view."""
    return _outcome(number, ("T13", "L6")[number % 2], "trunk")


def _outcome(number: int, variant: Variant | None = None, view: str | None = None) -> Outcome:
    case, seen = subject(number, variant, view)
    try:
        found = geometric_spine(case.volume).vertebrae
    except StudyExcluded:
        found = ()
    places = np.array([v.center_mm for v in found]).reshape(-1, 3)
    cut = [v.completeness is Completeness.CUT for v in found]
    true = true_levels(places, cut, case.truth, _levels_of(case.variant))
    pairs = [(v.level, level) for v, level in zip(found, true, strict=True) if is_named(v.level)]
    wrong = tuple(f"{level} for {other}" for level, other in pairs if level != other)
    return Outcome(number, seen, case.variant, frozenset(case.anchors), tuple(level for level, _ in pairs), wrong)


def _levels_of(variant: Variant) -> list[str]:
    absent = {"L4": {"L5", "L6", "T13"}, "L6": {"T13"}, "T13": {"L6"}}.get(variant, {"L6", "T13"})
    return [level for level in LEVELS if level not in absent]


def true_levels(places_mm: Array, cut: Sequence[bool], truth: Sequence[Truth], order: Sequence[str]) -> list[str]:
    """The true level of each listed body, cranial to caudal; `-` if no body lies there.

    A body lies within NEAR_MM of its place, or within half the distance to the next one. A cut body at an end is
    counted from its neighbour if its own centre is not among `truth`. places_mm: (n, 3). order: all levels, in order.
    """
    centers = np.array([t.center_mm for t in truth])
    levels = []
    for place in places_mm:
        distance = np.linalg.norm(centers - place, axis=1)
        nearest = int(distance.argmin())
        spacing = np.sort(np.linalg.norm(centers - centers[nearest], axis=1))[1:2]
        levels.append(truth[nearest].level if distance[nearest] <= max(NEAR_MM, *spacing / 2) else "-")
    for end, beside, step in ((0, 1, -1), (-1, -2, 1)):
        if len(levels) > 1 and cut[end] and levels[beside] != "-" and levels[end] in ("-", levels[beside]):
            place = order.index(levels[beside]) + step
            levels[end] = order[place] if 0 <= place < len(order) else "-"
    return levels
