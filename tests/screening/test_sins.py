"""SINS points of a vertebra: known cases, and bounds that hold for every combination."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spinemet.anatomy import LEVELS
from spinemet.screening.sins import SinsPoints, sins_points

LEVEL = st.sampled_from([*LEVELS, "?1"])
BONE = st.sampled_from([None, "normal", "blastic", "mixed", "lytic"])
INVOLVED = st.sampled_from([None, "none", "unilateral", "bilateral"])


@pytest.mark.parametrize(
    ("level", "bone", "involved", "expected"),
    [
        ("T12", "lytic", "bilateral", SinsPoints(3, 2, 3, 8, 8, 18)),  # 18 is the greatest total of the score
        ("T5", "blastic", "none", SinsPoints(1, 0, 0, 1, 1, 11)),
        ("L3", "mixed", "unilateral", SinsPoints(2, 1, 1, 4, 4, 14)),
        ("C4", "lytic", "none", SinsPoints(2, 2, 0, 4, 4, 14)),
        ("?2", "lytic", "none", SinsPoints(None, 2, 0, None, 2, 15)),
        ("L1", "lytic", None, SinsPoints(3, 2, None, None, 5, 18)),
        ("L1", "normal", "bilateral", SinsPoints()),
        ("L1", None, "none", SinsPoints()),
    ],
)
def test_points_of_known_vertebrae(level: str, bone: str | None, involved: str | None, expected: SinsPoints) -> None:
    assert sins_points(level, bone, involved) == expected


@given(LEVEL, BONE, INVOLVED)
def test_bounds_contain_the_score_if_parts_are_unknown(level: str, bone: str | None, involved: str | None) -> None:
    points = sins_points(level, bone, involved)
    if bone in (None, "normal"):
        assert points == SinsPoints()
        return
    assert points.min is not None
    assert points.max is not None
    assert 0 <= points.min <= points.max - 10
    assert points.max <= 18
    if points.partial is not None:
        assert points.min == points.partial == points.max - 10
    if involved is None:  # knowing more never leaves the bounds
        for known in ("none", "unilateral", "bilateral"):
            more = sins_points(level, bone, known)
            assert more.min is not None
            assert more.max is not None
            assert points.min <= more.min <= more.max <= points.max
