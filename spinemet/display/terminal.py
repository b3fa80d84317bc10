"""Answers for a reader at a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from spinemet.cohort.flow import REASON_WORDS
from spinemet.display import palette
from spinemet.display.study_json import rejected_series, study_json
from spinemet.types import (
    BONE_QUALITY,
    Completeness,
    NotScreened,
    Screened,
    State,
    StudyReading,
    Vertebra,
    VertebraCall,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["console", "render_prevalence", "render_study", "render_table", "study_json"]

# Colours that stay readable on light and on dark terminals.
_COLOURS = {"normal": "grey58", "blastic": "#2f8fd0", "mixed": "#b565a2", "lytic": "#e0701c"}
_SHADES = {"normal": "░", "blastic": "█", "mixed": "▓", "lytic": "▒"}
"""Bars stay readable without colour, in a file or a log."""
_STATES = {State.SCREENED: "green", State.EXCLUDED: "yellow", State.FAILED: "red"}
_BAR = 14
_WIDE = 112
"""Columns of a terminal that has room for bars."""
_MANY_COLUMNS = 12
_MAX_ROWS = 200
"""A terminal shows no more rows of a table; piped, the answer is whole."""


def console() -> Console:
    """A console on standard output; wide enough for a table where the output is no terminal."""
    plain = Console()
    return plain if plain.is_terminal else Console(width=120)


def render_study(
    reading: StudyReading, calls: Sequence[VertebraCall | None] | None, width: int | None = None
) -> RenderableType:
    """One study: its state and series, and a table of its vertebrae with their calls, or why there are none.

    width: of the terminal, by default of this one; a narrow one gets no bars.
    """
    parts: list[RenderableType] = [_headline(reading)]
    if isinstance(reading, Screened):
        said: Sequence[VertebraCall | None] = calls if calls is not None else [None] * len(reading.spine.vertebrae)
        wide = (width or console().width) >= _WIDE
        parts.append(_vertebrae(list(zip(reading.spine.vertebrae, said, strict=True)), wide))
        if not wide:
            parts += [
                Text(f"{v.level}: {', '.join(v.flags)}", style="yellow") for v in reading.spine.vertebrae if v.flags
            ]
        if calls is not None:
            parts.append(_legend())
    elif rejected_series(reading):
        parts.append(_rejected(reading))
    if reading.seconds:
        times = "  ".join(f"{stage} {seconds:.1f} s" for stage, seconds in reading.seconds.items())
        parts.append(Text(f"{sum(reading.seconds.values()):.1f} s in all: {times}", style="dim"))
    return Padding(Group(*parts), (1, 1))


def render_prevalence(table: pd.DataFrame, width: int | None = None) -> Table:
    """The answer of `cohort.prevalence`, one line per group: denominators, any finding with its interval, classes.

    width: of the terminal, by default of this one; a narrow one gets no bars.
    """
    wide = (width or console().width) >= _WIDE
    groups = list(table.columns[: list(table.columns).index("finding")])
    out = _table(caption=_PREVALENCE_CAPTION, caption_justify="left")
    for name in groups:
        out.add_column(name.replace("_", " "), no_wrap=True)
    counts = ("imaged", "cut", "evaluable") if wide or len(groups) < 2 else ("cut", "evaluable")
    for name in counts:
        out.add_column(name, justify="right", style="dim" if name != "evaluable" else "", no_wrap=True)
    out.add_column("positive", justify="right", no_wrap=True)
    out.add_column("% (95 % CI)", justify="right", no_wrap=True)
    top = palette.axis_top(table["ci_high"])
    if wide:
        out.add_column(f"0 to {100 * top:.0f} %", justify="center", no_wrap=True, style="dim")
    for finding in BONE_QUALITY[1:]:
        name = finding if wide else palette.LETTERS[finding]
        out.add_column(name, justify="right", no_wrap=True, header_style=f"bold {_COLOURS[finding]}")
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in table.to_dict("records"):
        rows.setdefault(tuple(str(row[name]) for name in groups), {})[row["finding"]] = row
    for key, findings in rows.items():
        found = findings["any"]
        out.add_row(
            *key,
            *(f"{found[f'n_{name}']}" for name in counts),
            f"{found['n_positive']}",
            _rate(found["prevalence"], found["ci_low"], found["ci_high"]),
            *([_rate_bar(found["prevalence"], found["ci_low"], found["ci_high"], top)] if wide else []),
            *(_count(findings[finding]["n_positive"], _COLOURS[finding]) for finding in BONE_QUALITY[1:]),
        )
    return out


_PREVALENCE_CAPTION = (
    "Prevalence = positive / evaluable (whole and classified). Cut by the field of view is not negative; "
    "not imaged is in no count. One row per patient and level, from the latest study that shows it."
)


def render_table(table: pd.DataFrame) -> RenderableType:
    """Any data frame, at most 200 rows of it; a few wide rows become one line per column."""
    if len(table.columns) > _MANY_COLUMNS and 0 < len(table) <= 3:
        table = table.T.rename(columns=str).reset_index(names="column")
    out = _table()
    for name in table.columns:
        out.add_column(str(name), justify="right" if table[name].dtype.kind in "iuf" else "left")
    for values in table.head(_MAX_ROWS).itertuples(index=False):
        out.add_row(*(_cell(value) for value in values))
    if len(table) > _MAX_ROWS:
        return Group(out, Text(f"{_MAX_ROWS} of {len(table)} rows; pipe the command to see all", style="dim"))
    return out


def _table(**options: Any) -> Table:
    return Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, collapse_padding=True, **options)


def _headline(reading: StudyReading) -> Text:
    text = Text()
    text.append(f" {reading.state.value} ", style=f"bold reverse {_STATES[reading.state]}")
    problem = reading if isinstance(reading, NotScreened) else None
    if problem is not None:
        text.append(f"  {REASON_WORDS[problem.reason]}", style="bold")
        text.append(f" ({problem.reason.value})", style="dim")
        text.append(f"\n{problem.detail}" if problem.detail else "")
    facts = _facts(reading)
    if facts:
        text.append(("  " if problem is None else "\n") + " · ".join(facts), style="default")
    if reading.flags:
        text.append(f"\nflags: {', '.join(reading.flags)}", style="yellow")
    return text


def _facts(reading: StudyReading) -> list[str]:
    facts = []
    if isinstance(reading, Screened):
        facts.append(f"{len(reading.spine.vertebrae)} vertebrae ({reading.spine.method})")
    if reading.spacing_mm is not None:
        depth, height, width = reading.spacing_mm
        facts.append(f"{reading.slice_count} slices, {height:.2f} × {width:.2f} × {depth:.2f} mm")
    if reading.chosen is not None:
        facts += [fact for fact in (reading.chosen.Manufacturer, reading.chosen.ConvolutionKernel) if fact]
    return facts


def _vertebrae(rows: list[tuple[Vertebra, VertebraCall | None]], wide: bool) -> Table:
    called = any(call is not None for _, call in rows)
    out = _table()
    out.add_column("level", no_wrap=True)
    out.add_column("body", no_wrap=True)
    out.add_column("centre L, P, S mm", justify="right", no_wrap=True)
    if wide:
        out.add_column("height", justify="right")
    out.add_column("HU", justify="right", no_wrap=True)
    if called:
        out.add_column("bone quality", no_wrap=True)
        if wide:
            out.add_column("probabilities", no_wrap=True)
        out.add_column("posterolateral", no_wrap=True)
    if wide:
        out.add_column("notes", style="yellow")
    for vertebra, call in rows:
        hu = vertebra.trabecular_hu
        cells: list[RenderableType] = [
            _level(vertebra),
            Text(vertebra.completeness.value, style="dim" if vertebra.completeness is Completeness.WHOLE else "yellow"),
            " ".join(f"{value:7.1f}" if wide else f"{value:5.0f}" for value in vertebra.center_mm),
            *([f"{vertebra.height_mm:.0f}"] if wide else []),
            "–" if hu is None else f"{hu:.0f}",
        ]
        if called:
            bar = [_bar(palette.bone_quality_probabilities(call))] if wide else []
            cells += [_call(call), *bar, _side(call)]
        out.add_row(*cells, *([", ".join(vertebra.flags)] if wide else []))
    return out


def _level(vertebra: Vertebra) -> Text:
    unsure = not vertebra.level.startswith("?") and vertebra.level_confidence < palette.LOW_CONFIDENCE
    return Text(vertebra.level + ("?" if unsure else ""), style="bold")


def _call(call: VertebraCall | None) -> Text:
    said = palette.bone_quality(call)
    if said is None:
        return Text("–", style="dim")
    label, probability = said
    unsure = "?" if probability < palette.LOW_CONFIDENCE else ""
    weight = "" if label == "normal" else "bold "
    return Text(f"{label + unsure:<8} {probability:.2f}", style=f"{weight}{_COLOURS[label]}")


def _side(call: VertebraCall | None) -> Text:
    label = palette.posterolateral(call)
    if call is None or label is None:
        return Text("–", style="dim")
    mark = palette.POSTEROLATERAL_MARKS[label]
    words = f"{mark} {label} {call.probabilities['posterolateral'][label]:.2f}" if mark else label
    return Text(words, style="" if mark else "dim")


def _bar(probabilities: Mapping[str, float]) -> Text:
    """`_BAR` cells shared out among the classes by largest remainder."""
    exact = {name: value * _BAR for name, value in probabilities.items()}
    cells = {name: math.floor(value) for name, value in exact.items()}
    for name in sorted(exact, key=lambda key: cells[key] - exact[key])[
        : round(sum(exact.values())) - sum(cells.values())
    ]:
        cells[name] += 1
    return Text.assemble(*((_SHADES[name] * count, _COLOURS[name]) for name, count in cells.items()))


def _legend() -> Text:
    text = Text()
    for name in BONE_QUALITY:
        text.append(_SHADES[name] * 2, style=_COLOURS[name])
        text.append(f" {name}   ", style="dim")
    return text.append("? less probable than 0.5   for research, not for diagnosis", style="dim")


def _rejected(reading: StudyReading) -> Table:
    out = _table()
    for name in ("series", "modality", "objects", "why not"):
        out.add_column(name, justify="right" if name in ("series", "objects") else "left")
    for n, (header, reason) in enumerate(rejected_series(reading), 1):
        out.add_row(str(n), header.Modality or "–", str(len(header.instances)), REASON_WORDS[reason])
    return out


def _rate(rate: float, low: float, high: float) -> str:
    return "–" if math.isnan(rate) else f"{100 * rate:.1f} ({100 * low:.1f}–{100 * high:.1f})"


def _rate_bar(rate: float, low: float, high: float, top: float) -> Text:
    """15 cells from 0 to `top`: the interval as a line, the rate as a dot."""
    if math.isnan(rate):
        return Text()
    first, dot, last = (min(int(15 * value / top), 14) for value in (low, rate, high))
    marks = ["●" if n == dot else "━" if first <= n <= last else "·" for n in range(15)]
    return Text.assemble(*((mark, "dim" if mark == "·" else _COLOURS["blastic"]) for mark in marks))


def _count(count: int, colour: str) -> Text:
    return Text(str(count), style=colour if count else "dim")


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)) or str(value) in ("NaT", "<NA>"):
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{len(value)} bytes" if isinstance(value, bytes | bytearray) else str(value)
