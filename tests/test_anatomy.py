from __future__ import annotations

import pytest

from spinemet.anatomy import (
    LEVELS,
    NUMBERINGS,
    TOTALSEGMENTATOR_LEVELS,
    USUAL_LEVELS,
    VERSE_LEVELS,
    is_named,
    level_in,
    may_be_vertebra,
    region,
    sins_location_points,
    spacing_ratios,
)


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
    for scheme in (numbering.levels for numbering in NUMBERINGS):
        assert all(is_named(level) for level in scheme.values())
        assert len(set(scheme.values())) == len(scheme)
    assert (VERSE_LEVELS[1], VERSE_LEVELS[19], VERSE_LEVELS[24]) == ("C1", "T12", "L5")
    assert (TOTALSEGMENTATOR_LEVELS[27], TOTALSEGMENTATOR_LEVELS[32], TOTALSEGMENTATOR_LEVELS[50]) == (
        "L5",
        "T12",
        "C1",
    )


def test_spacing_is_judged_against_the_usual_one_of_the_levels() -> None:
    heights = [0.0, -34.0, -70.0, -107.0, -143.0]
    centers = [(0.0, 0.0, height) for height in heights]
    assert spacing_ratios(["L1", "L2", "L3", "L4", "L5"], centers) == [1.0]
    assert spacing_ratios(["C3", "C4", "C5", "C6", "C7"], centers)[0] > 2
    assert spacing_ratios(["L1", "L3"], [centers[0], centers[2]]) == [1.0]  # one left out
    assert spacing_ratios(["L5", "S1"], [centers[0], centers[2]]) == []  # S1 may be the whole sacrum
    assert spacing_ratios(["T12", "T13", "L1", "L2"], centers[:4]) == [37 / 34]
    assert len(spacing_ratios(USUAL_LEVELS, [(0, 0, n) for n in range(len(USUAL_LEVELS))])) == 22 - 4 + 1


@pytest.mark.parametrize(
    ("text", "level"),
    [("T1 vertebra", "T1"), ("vertebrae_T12", "T12"), ("L5", "L5"), ("vertebra l3", "L3"), ("S1", "S1"), ("T13", "T13"),
     ("Th11", "T11"), ("D11", "T11"), ("BWK 11", "T11"), ("LWK 1", "L1"), ("HWK 3", "C3"), ("TH 11", "T11"),
     ("T-11", "T11"), ("Th. 11", "T11"), ("T01", "T1"), ("01-T11", "T11"), ("Vertebra T11", "T11"),
     ("VertebraL1", "L1"),
     ("L1 vertebral body", "L1"), ("T11_body", "T11"), ("vertebrae_Th05", "T5"), ("dorsal 11", "T11"), ("D 9", "T9"),
     ("lumbar 1", "L1"), ("12th thoracic vertebra", "T12"), ("Twelfth thoracic vertebra", "T12"), ("Axis", "C2"),
     ("first lumbar vertebra (L1)", "L1"), ("atlas vertebra", "C1"), ("11. Brustwirbel", "T11"), ("LWK4", "L4"),
     ("Brustwirbelkörper 11", "T11"), ("1. Lendenwirbelkörper", "L1"), ("Halswirbelkörper 7", "C7"),
     ("vertèbre lombaire 3", "L3"), ("1re vertèbre cervicale", "C1"), ("5ª vértebra lumbar", "L5"),
     ("vértebra torácica 11", "T11"), ("vertebra dorsale 12", "T12"), ("vertebra lumbalis III", "L3"),
     ("First sacral vertebra", "S1")],
)  # fmt: skip
def test_level_names(text: str, level: str) -> None:
    assert level_in(text) == level
    assert not may_be_vertebra(text)


@pytest.mark.parametrize(
    "text",
    ["Vertebra 6", "T14", "L7", "C8", "Th14", "T99", "Wirbel 11", "T11a", "T11 L1 vertebra", "vertebra",
     "vertebrae_X11",
     "dorsal 14", "vertebra lumbar 9"],
)  # fmt: skip
def test_names_that_may_mean_a_vertebra(text: str) -> None:
    assert level_in(text) is None
    assert may_be_vertebra(text)


@pytest.mark.parametrize(
    "text",
    ["Liver", "L5-S1 disc", "L5/S1 disc", "L1-2", "L5-S1", "L5 S1", "disque L4", "L4 Bandscheibe", "rib_left_3",
     "T4 rib",
     "12th rib left", "costa 11", "nerve C8", "dorsal root ganglion L2", "Sacrum", "Sacral vertebra 3", "S2", "Coccyx",
     "vertebral column", "Vertebrae", "spinal canal", "vertebral artery C3", "metastasis L2", "CT1", "aorta",
     "kidney_left",
     "lung_upper_lobe_left", "colon", ""],
)  # fmt: skip
def test_names_of_other_structures(text: str) -> None:
    assert level_in(text) is None
    assert not may_be_vertebra(text)
