"""Tables for a person at a terminal: one study, prevalences, the rows of any query."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from spinemet.commands import console
from spinemet.dicom.values import printable
from spinemet.display import palette
from spinemet.display.study_json import flag_lines, rejected_series
from spinemet.reading import NotScreened, Screened, StudyReading, VertebraCall
from spinemet.statistics.intervals import format_interval, format_share
from spinemet.types import BONE_QUALITY, MEASURES, Completeness, Vertebra

if TYPE_CHECKING:
    import pandas as pd

_BAR = 14
"""Characters of a bar of probabilities."""
_WIDE = 112
"""A terminal with at least so many columns has room for bars."""
_MANY_COLUMNS, _ON_SIDE = 12, 3
"""A table with more columns is shown on its side, so many rows beside each other."""
_MAX_ROWS = 200
"""A terminal shows at most so many rows; a pipe gets all."""


def render_study(
    reading: StudyReading, calls: Sequence[VertebraCall | None] | None, notice: str = "", width: int | None = None
) -> RenderableType:
    """One study: its state and series, and a table of its vertebrae with their calls, or the reason why it has none.

    calls: one per vertebra, or None without a model. notice: a sentence on the model. width: columns of the terminal,
    by default of this one; a narrow one gets no bars.
    """
    parts: list[RenderableType] = [_headline(reading)]
    if isinstance(reading, Screened):
        wide = (width or console().width) >= _WIDE
        parts.append(_vertebrae([(vertebra, call) for vertebra, _, call in reading.with_calls(calls)], wide))
        if calls is not None:
            parts += _legend(calls, wide)
        parts += [Text(line, style=palette.WARNING) for line in flag_lines(reading, calls)]
        if calls is not None:
            parts += [
                Text(line, style=palette.WARNING) for line in (notice, "For research, not for diagnosis.") if line
            ]
    elif rejected_series(reading):
        parts.append(_rejected(reading))
    if reading.seconds:
        times = "  ".join(f"{stage} {seconds:.1f} s" for stage, seconds in reading.seconds.items())
        parts.append(Text(f"read in {sum(reading.seconds.values()):.1f} s: {times}", style="dim"))
    return Padding(Group(*parts), (1, 1))


def render_prevalence(table: pd.DataFrame, width: int | None = None) -> Table:
    """The result of `cohort.prevalence`, one line per group: denominators, the first finding with its interval, others.

    width: columns of the terminal, by default of this one; a narrow one gets no bars.
    """
    wide = (width or console().width) >= _WIDE
    groups = list(table.columns[: list(table.columns).index("finding")])
    out = _table(caption=_PREVALENCE_CAPTION, caption_justify="left")
    for name in groups:
        out.add_column(name.replace("_", " "), overflow="fold")
    unsure = ["unsure"] if table["n_unsure"].any() else []
    further = [name for name in ("standardised", "corrected") if name in table]
    hidden = (
        0
        if wide and not further
        else min(max(len(groups) - 1, 0) + len(unsure) + 2 * len(further), max(2, 1 + len(further)))
    )
    counts = ["imaged", "cut", *unsure, "evaluable"][hidden:]
    for name in counts:
        out.add_column(name, justify="right", style="dim" if name != "evaluable" else "", no_wrap=True)
    out.add_column("positive", justify="right", no_wrap=True)
    out.add_column("% [95 % interval]", justify="right", no_wrap=True)
    for name in further:
        out.add_column(f"{name} %", justify="right", no_wrap=True)
    top = palette.axis_top(table["ci_high"])
    if wide:
        out.add_column(f"0 to {100 * top:.0f} %", justify="center", no_wrap=True, style="dim")
    others = list(dict.fromkeys(table["finding"]))[1:]
    for finding in others:
        name, colour = finding if wide else palette.LETTERS.get(finding, finding), palette.TERMINAL.get(finding, "")
        out.add_column(name, justify="right", no_wrap=True, header_style=f"bold {colour}".strip())
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in table.to_dict("records"):
        rows.setdefault(tuple(str(row[name]) for name in groups), {})[row["finding"]] = row
    for key, findings in rows.items():
        found = next(iter(findings.values()))
        out.add_row(
            *(Text(printable(word)) for word in key),
            *(f"{found[f'n_{name}']}" for name in counts),
            f"{found['n_positive']}",
            format_share(found["prevalence"], found["ci_low"], found["ci_high"], found["interval"]),
            *(_further(found, name) for name in further),
            *([_rate_bar(found["prevalence"], found["ci_low"], found["ci_high"], top)] if wide else []),
            *(_count(findings[finding]["n_positive"], palette.TERMINAL.get(finding, "")) for finding in others),
        )
    return out


def _further(row: Mapping[str, Any], name: str) -> str:
    """The standardised or corrected share of a row with its interval, or why it has none."""
    share, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
    reason = "contradicted" if row.get("correction") == "contradicted" and name == "corrected" else "too few"
    text = format_interval(share, low, high, percent=True)
    return f"{text} ({reason})" if math.isnan(low) and not math.isnan(share) else text


_PREVALENCE_CAPTION = (
    "Prevalence = positive / evaluable (whole, classified and sure). Cut by the field of view or unsure does not mean "
    "negative, and a vertebra that was not imaged is in no count. Each level of a patient counts once."
)


def render_table(table: pd.DataFrame, width: int | None = None) -> RenderableType:
    """Any data frame, at most 200 rows of it; of a table with many columns, each becomes a line.

    width: columns of the terminal, by default of this one; if they are too few, names of columns break at their `_`.
    """
    shown = lists_as_text(table.head(_MAX_ROWS)).reset_index(drop=True)
    lengths = [[len(str(name)), *(len(_cell(value)) for value in shown.iloc[:, n])] for n, name in enumerate(shown)]
    needed = sum(2 + max(column) for column in lengths)
    is_narrow = needed > (width or console().width)
    parts: list[RenderableType] = [
        _grid(shown.rename(columns=lambda name: printable(str(name)).replace("_", "_\n" if is_narrow else "_")))
    ]
    if len(table.columns) > _MANY_COLUMNS and len(shown):
        groups = [shown[start : start + _ON_SIDE].T for start in range(0, len(shown), _ON_SIDE)]
        parts = [_grid(group.rename(columns=lambda n: f"row {n + 1}").reset_index(names="column")) for group in groups]
    if len(table) > _MAX_ROWS:
        parts.append(Text(f"{_MAX_ROWS} of {len(table)} rows; pipe the command to get all", style="dim"))
    return Group(*parts)


def _grid(table: pd.DataFrame) -> Table:
    out = _table()
    for name in table.columns:
        out.add_column(Text(str(name)), justify="right" if table[name].dtype.kind in "iuf" else "left", overflow="fold")
    for values in table.itertuples(index=False):
        out.add_row(*(Text(_cell(value)) for value in values))
    return out


def lists_as_text(table: pd.DataFrame) -> pd.DataFrame:
    """`table` with every list in a cell (such as flags) as text, its items separated by spaces."""
    cells = table.select_dtypes("object")
    return table.assign(**cells.map(lambda cell: " ".join(map(str, cell)) if isinstance(cell, np.ndarray) else cell))


def _table(**options: Any) -> Table:
    return Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, collapse_padding=True, **options)


def _headline(reading: StudyReading) -> Text:
    text = Text()
    text.append(f" {reading.state.value} ", style=f"bold reverse {palette.STATES[reading.state]}")
    problem = reading if isinstance(reading, NotScreened) else None
    if problem is not None:
        text.append(f"  {problem.reason.meaning}", style="bold")
        text.append(f" ({problem.reason.value})", style="dim")
        text.append(f"\n{problem.detail}" if problem.detail else "")
    facts = _facts(reading)
    if facts:
        text.append(("  " if problem is None else "\n") + " · ".join(facts), style="default")
    return text


def _facts(reading: StudyReading) -> list[str]:
    facts = []
    if isinstance(reading, Screened):
        count = len(reading.spine.vertebrae)
        facts.append(f"{count} {'vertebra' if count == 1 else 'vertebrae'} ({reading.spine.method})")
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
        out.add_column("height mm", justify="right", no_wrap=True)
    measures = MEASURES if wide else MEASURES[:1]
    for measure in measures:
        out.add_column(measure.heading, justify="right", no_wrap=True)
    if called:
        out.add_column("bone quality", no_wrap=True)
        if wide:
            out.add_column("probabilities", no_wrap=True)
        out.add_column("posterolateral", no_wrap=True)
    for vertebra, call in rows:
        cells: list[RenderableType] = [
            _level(vertebra),
            Text(
                vertebra.completeness.value,
                style="dim" if vertebra.completeness is Completeness.WHOLE else palette.WARNING,
            ),
            " ".join(f"{value:7.1f}" if wide else f"{value:5.0f}" for value in vertebra.center_mm),
            *([f"{vertebra.height_mm:.0f}"] if wide else []),
            *(_measured(vertebra.measures.get(measure.name)) for measure in measures),
        ]
        if called:
            bar = [_bar(call.probabilities.get("bone_quality", {}) if call else {})] if wide else []
            cells += [_call(call), *bar, _side(call)]
        out.add_row(*cells)
    return out


def _level(vertebra: Vertebra) -> Text:
    mark = "" if vertebra.level.startswith("?") else palette.unsure(vertebra.level_confidence)
    return Text(vertebra.level + mark, style="bold")


def _measured(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"


def _call(call: VertebraCall | None) -> Text:
    found = palette.bone_quality(call)
    if found is None:
        return Text("–", style="dim")
    label, probability = found
    if call is not None and call.doubt is not None:
        return Text(f"unsure ({label})", style=palette.WARNING)
    weight = "" if label == "normal" else "bold "
    mark = palette.question(call, "bone_quality") if call else ""
    return Text(f"{label + mark:<8} {probability:.2f}", style=f"{weight}{palette.TERMINAL[label]}")


def _side(call: VertebraCall | None) -> Text:
    label = call and call.label("posterolateral")
    if not call or not label:
        return Text("–", style="dim")
    mark = palette.POSTEROLATERAL_MARKS[label]
    probability = call.probabilities["posterolateral"][label]
    words = f"{label}{palette.question(call, 'posterolateral')}"
    words = f"{mark} {words} {probability:.2f}" if mark else words
    return Text(words, style="" if mark else "dim")


def _bar(probabilities: Mapping[str, float]) -> Text:
    """`_BAR` characters, shared among the classes by largest remainder."""
    exact = {name: value * _BAR for name, value in probabilities.items()}
    cells = {name: math.floor(value) for name, value in exact.items()}
    for name in sorted(exact, key=lambda key: cells[key] - exact[key])[
        : round(sum(exact.values())) - sum(cells.values())
    ]:
        cells[name] += 1
    return Text.assemble(*((palette.SHADES[name] * count, palette.TERMINAL[name]) for name, count in cells.items()))


def _legend(calls: Sequence[VertebraCall | None], wide: bool) -> list[Text]:
    """What the bars and the question marks mean, if there are any."""
    bars = Text()
    for name in BONE_QUALITY:
        bars.append(palette.SHADES[name] * 2, style=palette.TERMINAL[name])
        bars.append(f" {name}   ", style="dim")
    is_marked = any("?" in _call(call).plain + _side(call).plain for call in calls)
    return [*([bars] if wide else []), *([Text(palette.QUESTION, style="dim")] if is_marked else [])]


def _rejected(reading: StudyReading) -> Table:
    out = _table()
    for name in ("series", "modality", "objects", "why not"):
        out.add_column(name, justify="right" if name in ("series", "objects") else "left")
    for n, (header, reason) in enumerate(rejected_series(reading), 1):
        out.add_row(str(n), header.Modality or "–", str(len(header.instances)), reason.meaning)
    return out


def _rate_bar(rate: float, low: float, high: float, top: float) -> Text:
    """15 characters from 0 to `top`: the interval as a line, the rate as a dot; no line if the ends are NaN."""
    if math.isnan(rate):
        return Text()
    low, high = (rate if math.isnan(end) else end for end in (low, high))
    first, dot, last = (min(int(15 * value / top), 14) for value in (low, rate, high))
    marks = ["●" if n == dot else "━" if first <= n <= last else "·" for n in range(15)]
    return Text.assemble(*((mark, "dim" if mark == "·" else palette.TERMINAL["blastic"]) for mark in marks))


def _count(count: int, colour: str) -> Text:
    return Text(str(count), style=colour if count else "dim")


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)) or str(value) in ("NaT", "<NA>"):
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    # Tables of an earlier version may hold escape sequences of a header, and a query can make any text.
    return f"{len(value)} bytes" if isinstance(value, bytes | bytearray) else printable(str(value))
