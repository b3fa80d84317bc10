"""Names come from the anchor and from nothing else."""

from __future__ import annotations

import pytest

from spinemet.spine.bodies import Body
from spinemet.spine.naming import level_names


def _column(count: int, disc: float = 2.0, height: float = 24.0, space: float = 10.0) -> list[Body]:
    tops = [n * (height + space) for n in range(count)]
    return [Body(top, top + height, disc, disc, 0.0) for top in tops]


def test_without_an_anchor_vertebrae_are_numbered() -> None:
    assert level_names(_column(4), 0.0) == [(f"?{n}", 0.0) for n in (1, 2, 3, 4)]


def test_from_the_sacrum_upward() -> None:
    names = level_names(_column(7), 0.98)
    assert [level for level, _ in names] == ["T11", "T12", "L1", "L2", "L3", "L4", "L5"]
    sure = [p for _, p in names]
    assert sure == sorted(sure)
    assert sure[-1] == pytest.approx(0.98)
    assert 0.85 < sure[0] < 0.95


def test_unclear_discs_and_gaps_cost_certainty() -> None:
    clear = level_names(_column(6), 0.98)[0][1]
    unclear = level_names(_column(6, disc=-1.0), 0.98)
    assert unclear[0][0] == "?1"
    assert unclear[-2][1] < clear
    gap = _column(6)
    gap = [*gap[:3], *(Body(b.top + 40, b.bottom + 40, 2.0, 2.0, 0.0) for b in gap[3:])]
    names = level_names(gap, 0.98)
    assert [level for level, _ in names] == ["?1", "?2", "?3", "L3", "L4", "L5"]


def test_more_vertebrae_than_names_is_a_miscount() -> None:
    assert all(level.startswith("?") for level, _ in level_names(_column(25), 0.99))
    assert level_names(_column(24), 0.99)[0][0] == "C1"
