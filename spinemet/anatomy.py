"""Vertebral levels: their order, spacing, numbers in public label maps, words in other languages, points in SINS.

Levels have the names that radiologists use (`C1` … `S1`). Vertebrae without a known name are `?1`, `?2`, … from cranial
to caudal in their study.
"""

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
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


@dataclass(frozen=True)
class Numbering:
    """The numbers of a public scheme of label maps. others: what lies in the row of the vertebrae and is none."""

    name: str
    levels: Mapping[int, str]
    others: frozenset[int]


# VerSe 2020 (Sekuboyina et al.): 1-7 C1-C7, 8-19 T1-T12, 20-25 L1-L6, 26 sacrum, 27 coccyx, 28 T13. CTSpine1K too.
VERSE_LEVELS: dict[int, str] = {
    **{n: f"C{n}" for n in range(1, 8)},
    **{n + 7: f"T{n}" for n in range(1, 13)},
    **{n + 19: f"L{n}" for n in range(1, 7)},
    26: "S1",
    28: "T13",
}

# TotalSegmentator v2 task "total": 25 sacrum, 26 S1, 27-31 L5-L1, 32-43 T12-T1, 44-50 C7-C1, 79 cord.
TOTALSEGMENTATOR_LEVELS: dict[int, str] = {
    26: "S1",
    **{32 - n: f"L{n}" for n in range(1, 6)},
    **{44 - n: f"T{n}" for n in range(1, 13)},
    **{51 - n: f"C{n}" for n in range(1, 8)},
}

# TotalSegmentator v1 task "total": 18-22 L5-L1, 23-34 T12-T1, 35-41 C7-C1, 92 sacrum.
TOTALSEGMENTATOR_1_LEVELS: dict[int, str] = {
    **{23 - n: f"L{n}" for n in range(1, 6)},
    **{35 - n: f"T{n}" for n in range(1, 13)},
    **{42 - n: f"C{n}" for n in range(1, 8)},
}

NUMBERINGS = (
    Numbering("VerSe", VERSE_LEVELS, frozenset({27})),
    Numbering("TotalSegmentator", TOTALSEGMENTATOR_LEVELS, frozenset({25, 79})),
    Numbering("TotalSegmentator 1", TOTALSEGMENTATOR_1_LEVELS, frozenset({92})),
)

_STEPS_MM = (17, 17, 17, 17, 17, 18, 19, 20, 20, 21, 22, 22.5, 23, 24, 25, 27, 29, 32, 34, 36, 37, 36)
_PLACE_MM = dict(zip(USUAL_LEVELS[1:], (float(sum(_STEPS_MM[:n])) for n in range(len(_STEPS_MM) + 1)), strict=False))
"""Usual distance of a vertebra's centre below C2's, in adults. Without C1, a ring, and S1, often the whole sacrum."""
_STEPS_TOGETHER = 4
"""So many neighbouring distances are judged together: a collapsed body changes one of them, a wrong name all."""

_REGIONS: dict[str, Region] = {"C": "cervical", "T": "thoracic", "L": "lumbar", "S": "sacral"}


def spacing_ratios(
    levels: Sequence[str], centers_mm: Sequence[Sequence[float]], together: int = _STEPS_TOGETHER
) -> list[float]:
    """The distances between vertebrae over the usual ones of their levels, for each run of `together` neighbours.

    levels: cranial to caudal, with their centres in mm. About 1 in adults and 0.5 in a child of two years. Left out are
    C1, S1, T13 and L6 (see _PLACE_MM), T11 above L1 (some people have no T12), and runs across them.
    """
    steps: list[tuple[float, float] | None] = []
    for (a, one), (b, other) in pairwise(zip(levels, centers_mm, strict=True)):
        known = a in _PLACE_MM and b in _PLACE_MM and (a, b) != ("T11", "L1")
        steps.append((math.dist(one, other), _PLACE_MM[b] - _PLACE_MM[a]) if known else None)
    ratios = []
    for is_known, group in groupby(steps, key=lambda step: step is not None):
        run = [step for step in group if step is not None]
        for start in range(max(1, len(run) - together + 1) if is_known else 0):
            found, usual = map(sum, zip(*run[start : start + together], strict=True))
            ratios.append(found / usual)
    return ratios


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


# ---- words ---------------------------------------------------------------------------------------------------

_NOT_A_VERTEBRA = re.compile(
    r"dis[ck]|disque|bandscheib|\bivd|\brib|rippe|\bcost|\bcote|nerv|cord\b|lesion|met[as]|tumou?r|[ck]anal|arter|vein|"
    r"\bvena|ligament|mus[ck][lu]|foramen|root|wurzel|ganglion|screw|schraube|implant|cement|\brods?\b|medul|lymph"
)
_NO_SINGLE_LEVEL = re.compile(
    r"colum|colonn|saule|spine|vertebrae|vertebral bodies|vertebres|vertebras|coccy|sacr|sakr"
)
_REGION_OF = {"h": "C", "c": "C", "b": "T", "t": "T", "d": "T", "l": "L", "s": "S"}
_PREFIX = r"(?<![a-z0-9])(c|cv|hw[ks]?|th?|tv|d|dv|bw[ks]?|l|lv|lw[ks]?|s|sv|sw[ks]?)[\s.\-]*0?"
_SHORT = re.compile(_PREFIX + r"(\d{1,2})(?![0-9a-z])(?!\s*[-/]\s*\d)")
_LIKE_SHORT = re.compile(r"\W*" + _PREFIX + r"\d{1,3}[a-z]?\W*")
_REGION_WORDS = (
    ("C", re.compile(r"[cz]ervi[ck]al|halswirbel")),
    ("T", re.compile(r"thora[ck]|torac|torak|dorsal|brustwirbel")),
    ("L", re.compile(r"lumb|lomba|lendenwirbel")),
    ("S", re.compile(r"sa[ck]ra[l]?|kreuzwirbel")),
)
_ROMAN = ("", "i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x", "xi", "xii", "xiii")
_ORDINALS = (
    *("", "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"),
    *("eleventh", "twelfth", "thirteenth"),
)
_ORDINAL_DIGITS = re.compile(r"0?(\d{1,2})(st|nd|rd|th|re|er|e|eme|a|o)?")
_BONE = re.compile(r"vertebr|wirbel|\b[hbl]wk")


def level_in(text: str) -> str | None:
    """The level in a name (`T1 vertebra`, `vertebrae_L3`, `BWK 11`, `first lumbar vertebra`); None if it names none.

    Known are T, Th, TH, D and BWK for the thoracic spine and their like for the others; English, German, French,
    Spanish and Italian words with a number, an ordinal or a Roman numeral; atlas and axis. Discs, ribs and so on are
    None, as is a name with two levels.
    """
    words = _plain(text)
    if _NOT_A_VERTEBRA.search(words):
        return None
    levels = {f"{_REGION_OF[match[1][0]]}{int(match[2])}" for match in _SHORT.finditer(words)}
    levels |= _spelled_out(words)
    named = levels & LEVEL_INDEX.keys()
    return named.pop() if len(named) == len(levels) == 1 else None


def may_be_vertebra(text: str) -> bool:
    """Whether a name without a level (see `level_in`) may mean one vertebra all the same: `Vertebra 6`, `Th14`, `L7`.

    False for the sacrum and for words for many vertebrae.
    """
    words = _plain(text)
    if _NOT_A_VERTEBRA.search(words) or level_in(text) is not None or re.fullmatch(r"\W*s\W*[2-5]\W*", words):
        return False
    numbered = re.search(r"\d", words) is not None
    if _NO_SINGLE_LEVEL.search(words) and not (numbered and "vertebrae" in words):
        return False
    regions = any(word.search(words) for _, word in _REGION_WORDS)
    return _BONE.search(words) is not None or _LIKE_SHORT.fullmatch(words) is not None or (regions and numbered)


def is_other_structure(text: str) -> bool:
    """Whether a name means a disc, a rib, a lesion or another structure at a vertebra."""
    return _NOT_A_VERTEBRA.search(_plain(text)) is not None


def _plain(text: str) -> str:
    """Lower case without accents or underscores, and with a blank before a capital inside a word."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)
    letters = unicodedata.normalize("NFKD", apart.replace("ß", "ss"))
    return "".join(c for c in letters if not unicodedata.combining(c)).lower().replace("_", " ").strip()


def _spelled_out(words: str) -> set[str]:
    """The level in region words with one number (`11. brustwirbel`, `vertebra lumbar 3`), or `atlas` or `axis`."""
    tokens = re.findall(r"[a-z]+|\d+[a-z]*", words)
    rings = {"atlas": "C1", "axis": "C2"}.keys() & tokens
    if rings and all(token in rings or token.startswith("vertebr") for token in tokens):
        return {"C1" if ring == "atlas" else "C2" for ring in rings}
    regions = {region for region, word in _REGION_WORDS if word.search(words)}
    numbers = [n for token in tokens if (n := _number(token))]
    return {f"{regions.pop()}{numbers[0]}"} if len(regions) == len(numbers) == 1 else set()


def _number(token: str) -> int | None:
    for series in (_ORDINALS, _ROMAN):
        if token in series:
            return series.index(token)
    match = _ORDINAL_DIGITS.fullmatch(token)
    return int(match[1]) if match else None
