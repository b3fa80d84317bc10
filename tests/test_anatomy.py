from __future__ import annotations

import pytest

from spinemet.anatomy import LEVELS, TOTALSEGMENTATOR_LEVELS, VERSE_LEVELS, is_named, region, sins_location_points


@pytest.mark.parametrize(
    ("level", "points"),
    [
        ("C1", 3),
        ("C2", 3),
        ("C3", 2),
        ("C6", 2),
        ("C7", 3),
        ("T2", 3),
        ("T3", 1),
        ("T10", 1),
        ("T11", 3),
        ("L1", 3),
        ("L2", 2),
        ("L4", 2),
        ("L5", 3),
        ("S1", 3),
        ("?1", None),
    ],
)
def test_sins_points_follow_fisher_2010(level: str, points: int | None) -> None:
    assert sins_location_points(level) == points


def test_every_level_has_sins_points_and_a_region() -> None:
    assert all(sins_location_points(level) in {1, 2, 3} for level in LEVELS)
    assert {region(level) for level in LEVELS} == {"cervical", "thoracic", "lumbar", "sacral"}


def test_public_numbers_name_known_levels_once() -> None:
    for scheme in (VERSE_LEVELS, TOTALSEGMENTATOR_LEVELS):
        assert all(is_named(level) for level in scheme.values())
        assert len(set(scheme.values())) == len(scheme)
    assert (VERSE_LEVELS[1], VERSE_LEVELS[19], VERSE_LEVELS[24]) == ("C1", "T12", "L5")
    assert (TOTALSEGMENTATOR_LEVELS[27], TOTALSEGMENTATOR_LEVELS[32], TOTALSEGMENTATOR_LEVELS[50]) == (
        "L5",
        "T12",
        "C1",
    )
