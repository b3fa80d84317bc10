"""Names come only from anchors, and from none if two anchors contradict each other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spinemet.anatomy import LEVEL_INDEX, is_named
from spinemet.spine.anchors import BUILDS
from spinemet.spine.bodies import Body
from spinemet.spine.naming import Names, level_names
from spinemet.spine.ribs import Reach
from spinemet.types import Array

RIB, NONE, UNSEEN = (58.0, 58.0), (38.0, 40.0), (0.0, 0.0)


def _column(count: int, disc: float = 2.0, height: float = 24.0, space: float = 10.0) -> list[Body]:
    tops = [n * (height + space) for n in range(count)]
    return [Body(top, top + height, disc, disc, 0.0) for top in tops]


def _reach(mm: Array, forward: int | None = None, behind: float = 19.0) -> Reach:
    """These reaches of bone, open where there is none. Where ribs lie is known if one of them goes forward."""
    course = np.where(np.arange(len(mm)) == forward, -2.0, behind)
    seen = (mm.min(axis=1) >= 50) & (forward is not None)
    return Reach(mm, mm > 0, mm > 0, np.where(seen, course, np.nan), np.full(mm.shape, np.nan))


def _named(*reach: tuple[float, float], sacrum: float = 0.0, forward: int | None = None) -> Names:
    """Names of a column with these reaches of bone to its sides; UNSEEN if the field of view ends first."""
    return level_names(_column(len(reach)), sacrum, _reach(np.array(reach), forward))


def _levels(names: Names) -> list[str]:
    return [level for level, _ in names.levels]


def test_without_an_anchor_vertebrae_are_numbered() -> None:
    assert level_names(_column(4), 0.0).levels == tuple((f"?{n}", 0.0) for n in (1, 2, 3, 4))
    for one in (RIB, NONE, UNSEEN):
        assert _named(*[one] * 4).levels == tuple((f"?{n}", 0.0) for n in (1, 2, 3, 4))


def test_the_sacrum_alone_is_not_sure_enough() -> None:
    # 4.5 % have four lumbar vertebrae or six, which only a second anchor shows.
    assert not any(is_named(level) for level in _levels(level_names(_column(7), 0.98)))


def test_the_sacrum_alone_names_nothing_also_if_all_else_fits() -> None:
    # Long processes and the ala beside the lowest body, as in a pelvis with L6, which was named L3 to L5.
    heads = np.array([(0.4, 0.44), (0.27, 0.48), (0.9, 0.85)])
    reach = replace(_reach(np.array([(38.0, 38.0), (40.0, 40.0), (44.0, 46.0)])), head=heads)
    assert not any(is_named(level) for level in _levels(level_names(_column(3), 0.999, reach)))


LOWER = [*[RIB] * 4, *[NONE] * 5]
"""T9 to L5."""


def _lower(bodies: list[Body]) -> list[str]:
    """Names of nine bodies with the reaches of LOWER above a sacrum."""
    values = np.array(LOWER)
    return _levels(level_names(bodies, 0.98, _reach(values)))


def test_names_end_at_a_gap_with_room_for_another_body() -> None:
    named = ["T9", "T10", "T11", "T12", "L1", "L2", "L3", "L4", "L5"]
    assert _lower(_column(9)) == named
    gap = _column(9)
    gap = [*gap[:2], *(replace(b, top=b.top + 40, bottom=b.bottom + 40) for b in gap[2:])]
    assert _lower(gap) == ["?1", "?2", *named[2:]]


@pytest.mark.parametrize(
    ("disc", "taller", "named"), [(0.1, 0.0, True), (2.0, 30.0, True), (0.1, 30.0, False), (-1.0, 30.0, False)]
)
def test_an_unclear_disc_beside_an_odd_spacing_costs_the_names_beyond(disc: float, taller: float, named: bool) -> None:
    column = _column(9)
    odd = replace(column[2], bottom=column[2].bottom + taller, disc_below=disc)
    below = [replace(b, top=b.top + taller, bottom=b.bottom + taller) for b in column[3:]]
    names = _lower([*column[:2], odd, replace(below[0], disc_above=disc), *below[1:]])
    assert [is_named(level) for level in names] == [named] * 3 + [True] * 6


def test_more_vertebrae_than_names_are_not_named() -> None:
    assert all(level.startswith("?") for level, _ in level_names(_column(25), 0.99).levels)
    whole = [*[(28.0, 26.0)] * 7, *[RIB] * 12, *[NONE] * 5]
    assert _levels(_named(*whole, sacrum=0.98))[::6] == ["C1", "C7", "T6", "T12"]


def test_from_the_last_rib() -> None:
    names = _named(*[RIB] * 5, (36.0, 38.0), *[(40.0, 42.0)] * 2)
    assert _levels(names) == ["T8", "T9", "T10", "T11", "T12", "L1", "L2", "L3"]
    assert all(0.93 < p < 0.98 for _, p in names.levels)


def test_from_the_first_rib() -> None:
    names = _named(*[(28.0, 26.0)] * 2, *[RIB] * 6)
    assert _levels(names) == ["C6", "C7", "T1", "T2", "T3", "T4", "T5", "T6"]


def test_a_rib_that_goes_forward_is_the_first() -> None:
    chest = [UNSEEN, *[RIB] * 10]
    assert not any(is_named(level) for level in _levels(_named(*chest)))
    assert _levels(_named(*chest, forward=1)) == ["C7", *(f"T{n}" for n in range(1, 11))]
    # One such rib does not outweigh ribs on two bodies above it.
    assert not any(is_named(level) for level in _levels(_named(*chest, forward=3)))


def test_a_rib_at_the_end_of_the_view_may_belong_to_the_next_vertebra() -> None:
    neck = [(28.0, 26.0)] * 4
    assert not any(is_named(level) for level in _levels(_named(*neck, RIB)))
    assert _levels(_named(*neck, RIB, RIB)) == ["C4", "C5", "C6", "C7", "T1", "T2"]


def test_twelve_pairs_of_ribs_name_all_thoracic_levels() -> None:
    assert _levels(_named(UNSEEN, *[RIB] * 12)) == ["C7", *(f"T{n}" for n in range(1, 13))]
    assert not any(is_named(level) for level in _levels(_named(UNSEEN, *[RIB] * 9)))


def test_two_anchors_that_agree_give_more_certainty_than_one() -> None:
    both = _named(*[RIB] * 3, *[NONE] * 5, sacrum=0.98)
    assert _levels(both) == ["T10", "T11", "T12", "L1", "L2", "L3", "L4", "L5"]
    assert both.levels[0][1] > _named(*[UNSEEN] * 8, sacrum=0.98).levels[0][1]
    assert not both.transitional


@pytest.mark.parametrize("lumbar", [4, 6])
def test_an_unusual_count_between_last_rib_and_sacrum_is_flagged_and_unnamed(lumbar: int) -> None:
    # Sacralised L5 or a rib on L1; lumbarised S1 or no rib on T12: this view cannot tell.
    names = _named(*[RIB] * 3, *[NONE] * lumbar, sacrum=0.98)
    assert names.transitional
    assert not is_named(names.levels[2][0])


@pytest.mark.parametrize("extra", ["T13", "L6"])
def test_an_extra_vertebra_is_named_between_the_first_rib_and_the_sacrum(extra: str) -> None:
    levels = ["C6", "C7", *(f"T{n}" for n in range(1, 13)), extra, *(f"L{n}" for n in range(1, 6))]
    levels.sort(key=LEVEL_INDEX.__getitem__)
    reach = [RIB if level[0] == "T" else NONE for level in levels]
    names = _named(*reach, sacrum=0.98, forward=2)
    assert names.transitional
    assert _levels(names) == levels


@pytest.mark.parametrize(("head", "level"), [(0.9, "T13"), (0.35, "?15"), (np.nan, "?15"), (0.02, "L1")])
def test_a_stump_is_a_rib_if_it_has_a_head(head: float, level: str) -> None:
    heads = np.array([*[0.9] * 14, head, 0.02, 0.02, 0.02, 0.3, 0.8])
    reach = _reach(np.array([*[(28.0, 26.0)] * 2, *[RIB] * 12, (32.0, 34.0), *[NONE] * 5]), forward=2)
    names = level_names(_column(20), 0.98, replace(reach, head=np.stack([heads, heads], axis=1)))
    assert names.transitional
    assert _levels(names)[:15] == ["C6", "C7", *(f"T{n}" for n in range(1, 13)), level]


@pytest.mark.parametrize(("level", "score", "named"), [("L4", -0.4, False), ("T6", -0.4, False), ("C6", -0.4, True)])
@pytest.mark.parametrize("extra", ["T13", "L6"])
def test_a_disc_that_may_be_none_outweighs_an_extra_vertebra(extra: str, level: str, score: float, named: bool) -> None:
    levels = ["C6", "C7", *(f"T{n}" for n in range(1, 13)), extra, *(f"L{n}" for n in range(1, 6))]
    levels.sort(key=LEVEL_INDEX.__getitem__)
    column = _column(len(levels))
    place = levels.index(level)
    column[place] = replace(column[place], disc_below=score)
    column[place + 1] = replace(column[place + 1], disc_above=score)
    reach = _reach(np.array([RIB if one[0] == "T" else NONE for one in levels]), forward=2)
    assert any(is_named(one) for one in _levels(level_names(column, 0.98, reach))) == named


def test_a_transitional_spine_is_named_by_counting_from_the_first_rib() -> None:
    neck = [(28.0, 26.0)] * 2
    four = _named(*neck, *[RIB] * 12, *[NONE] * 4, sacrum=0.98)
    assert four.transitional
    assert _levels(four)[-5:] == ["T12", "L1", "L2", "L3", "L4"]
    thirteen = _named(*neck, *[RIB] * 13, *[NONE] * 5, sacrum=0.98)
    assert thirteen.transitional
    assert _levels(thirteen)[-5:] == ["L1", "L2", "L3", "L4", "L5"]
    lumbar_rib = _named(*neck, *[RIB] * 13, *[NONE] * 4, sacrum=0.98)
    assert lumbar_rib.transitional
    assert _levels(lumbar_rib)[-6:] == ["T12", "L1", "L2", "L3", "L4", "L5"]


@pytest.mark.parametrize("lumbar", [1, 7])
def test_anchors_that_contradict_each_other_name_nothing(lumbar: int) -> None:
    assert not any(is_named(level) for level in _levels(_named(*[RIB] * 4, *[NONE] * lumbar, sacrum=0.98)))


def test_more_bodies_below_the_ribs_than_anybody_has_name_nothing() -> None:
    neck = [(28.0, 26.0)] * 2
    assert is_named(_levels(_named(*neck, *[RIB] * 12, *[NONE] * 6, forward=2))[-1])
    assert not any(is_named(level) for level in _levels(_named(*neck, *[RIB] * 12, *[NONE] * 7, forward=2)))


def _neck(
    foramen: float | None, *reach: tuple[float, float], count: int = 6, height: float = 12.0, disc: float = 2.0
) -> list[str]:
    """Levels of bodies every `height` + 5 mm, the first cut above, with the foramen this far above the second's top."""
    bodies = _column(count, disc, height, 5.0)
    bodies[0] = replace(bodies[0], disc_above=float("nan"))
    values = np.array(reach) if reach else np.zeros((count, 2))
    place = None if foramen is None else bodies[1].top - foramen
    return _levels(level_names(bodies, 0.0, _reach(values), place))


def test_from_the_skull_downward() -> None:
    assert _neck(48.0) == ["C2", "C3", "C4", "C5", "C6", "C7"]
    assert _neck(66.0) == ["C3", "C4", "C5", "C6", "C7", "T1"]
    assert not any(is_named(level) for level in _neck(None))


def test_a_childs_neck_is_not_named_by_an_adults_measures() -> None:
    assert not any(is_named(level) for level in _neck(48.0, height=7.0))


@pytest.mark.parametrize("disc", [0.3, 0.7, 0.9])
def test_unclear_discs_name_a_neck_only_with_ribs(disc: float) -> None:
    assert any(is_named(level) for level in _neck(48.0, disc=disc)) == (disc > 0.8)
    ribs = [*[(28.0, 26.0)] * 6, *[RIB] * 4]
    assert _neck(48.0, *ribs, count=10, disc=disc)[6:] == ["T1", "T2", "T3", "T4"]


def test_half_a_spacing_off_gives_no_level() -> None:
    assert not any(is_named(level) for level in _neck(58.5))


def test_skull_and_first_rib_agree_or_name_nothing() -> None:
    neck = [(28.0, 26.0)] * 6
    assert _neck(48.0, *neck, *[RIB] * 4, count=10) == ["C2", "C3", "C4", "C5", "C6", "C7", "T1", "T2", "T3", "T4"]
    assert not any(is_named(level) for level in _neck(48.0, *neck[:3], *[RIB] * 7, count=10))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from((0.0, 12.0, 30.0, 44.0, 56.0, 58.0)), st.booleans()), min_size=1, max_size=24),
    st.floats(0, 1),
    st.floats(-2, 3),
    st.none() | st.floats(-80, 40),
)
def test_names_are_always_consecutive_and_certain(
    sides: list[tuple[float, bool]], sacrum: float, disc: float, foramen: float | None
) -> None:
    reach, ends = (np.repeat([[side[k]] for side in sides], 2, axis=1) for k in (0, 1))
    seen = Reach(reach, ends.astype(bool), ends.astype(bool), np.full(len(reach), np.nan), np.full(reach.shape, np.nan))
    names = level_names(_column(len(sides), disc=disc), sacrum, seen, foramen).levels
    named = [n for n, (level, _) in enumerate(names) if is_named(level)]
    assert named == list(range(named[0], named[-1] + 1)) if named else True
    levels = [level for level, _ in names if is_named(level)]
    assert any(levels == list(build.levels[k : k + len(levels)]) for build in BUILDS for k in range(len(build.levels)))
    assert all((p >= 0.93) if is_named(level) else (p == 0) for level, p in names)
    assert not levels or max(p for _, p in names) >= 0.955
