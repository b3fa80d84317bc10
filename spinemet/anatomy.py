"""Vertebral levels: their order, their numbers in public label maps, and their points in SINS.

Levels have the names that radiologists use (`C1` … `S1`). Vertebrae without a known name are `?1`, `?2`, … from cranial
to caudal in their study.
"""

from __future__ import annotations

from typing import Literal

Region = Literal["cervical", "thoracic", "lumbar", "sacral"]

LEVELS: tuple[str, ...] = (
    *(f"C{n}" for n in range(1, 8)),
    *(f"T{n}" for n in range(1, 14)),
    *(f"L{n}" for n in range(1, 7)),
    "S1",
)
"""Every level name, cranial to caudal; T13 and L6 are transitional."""

USUAL_LEVELS: tuple[str, ...] = tuple(level for level in LEVELS if level not in {"T13", "L6"})

LEVEL_INDEX: dict[str, int] = {level: n for n, level in enumerate(LEVELS)}
"""Level -> place in LEVELS; label maps in SpineMet hold this number plus one (0 is background)."""

# VerSe 2020 (Sekuboyina et al.): 1-7 C1-C7, 8-19 T1-T12, 20-25 L1-L6, 26 sacrum, 28 T13.
VERSE_LEVELS: dict[int, str] = {
    **{n: f"C{n}" for n in range(1, 8)},
    **{n + 7: f"T{n}" for n in range(1, 13)},
    **{n + 19: f"L{n}" for n in range(1, 7)},
    26: "S1",
    28: "T13",
}

# TotalSegmentator v2 task "total": 25 sacrum, 26 S1, 27-31 L5-L1, 32-43 T12-T1, 44-50 C7-C1.
TOTALSEGMENTATOR_LEVELS: dict[int, str] = {
    26: "S1",
    **{32 - n: f"L{n}" for n in range(1, 6)},
    **{44 - n: f"T{n}" for n in range(1, 13)},
    **{51 - n: f"C{n}" for n in range(1, 8)},
}

_REGIONS: dict[str, Region] = {"C": "cervical", "T": "thoracic", "L": "lumbar", "S": "sacral"}


def is_named(level: str) -> bool:
    """True for a level of LEVELS, False for `?1`, `?2`, …"""
    return level in LEVEL_INDEX


def region(level: str) -> Region | None:
    """The region of a named level, None for an unnamed one."""
    return _REGIONS[level[0]] if is_named(level) else None


def sins_location_points(level: str) -> int | None:
    """SINS points for the location of `level` (Fisher 2010), None for an unnamed level.

    Junctional (occiput-C2, C7-T2, T11-L1, L5-S1) 3, mobile (C3-C6, L2-L4) 2, semi-rigid (T3-T10) 1. T13 and L6 lie at
    junctions and count as junctional.
    """
    if not is_named(level):
        return None
    if level in {"C1", "C2", "C7", "T1", "T2", "T11", "T12", "T13", "L1", "L5", "L6", "S1"}:
        return 3
    return 1 if region(level) == "thoracic" else 2
