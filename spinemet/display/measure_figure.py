"""A measure's picture: one line per group, a point for each value and a bar for its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spinemet.display import palette
from spinemet.errors import BadInput, plain_cause

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, ROW, EDGES = 7.6, 0.3, 1.5
"""Inches: of the page, of a point's line, and of title, axis and legend together."""
GAP = 0.6
"""Between groups, in lines."""
MOST_LINES = 120
_ALONE = palette.INK


@dataclass(frozen=True)
class Columns:
    """Which columns of a measure's table are drawn, and the words around them.

    groups: they name a line. value, low, high: numbers, drawn `scale` times as large. series: its values stand beside
    each other in each group, each in the colour of its class. middle: a number to mark, such as no difference.
    """

    groups: Sequence[str]
    value: str
    low: str
    high: str
    axis: str
    title: str
    series: str | None = None
    scale: float = 1.0
    middle: float | None = None


def write_measure(path: Path, table: pd.DataFrame, columns: Columns) -> None:
    """Write `measure_figure` of `table` as PNG to `path`. Raises BadInput if it cannot be written."""
    picture = palette.as_png(measure_figure(table, columns))
    try:
        path.write_bytes(picture)
    except OSError as error:
        raise BadInput(f"Cannot write the picture to {path}: {plain_cause(error)}.") from error


def measure_figure(table: pd.DataFrame, columns: Columns) -> Figure:
    """Points with intervals, the first row of `table` at the top.

    If the interval is unknown (NaN), the point is open; without a value nothing is drawn. Raises BadInput for no row,
    or for more than MOST_LINES.
    """
    from matplotlib.figure import Figure

    if not 0 < len(table) <= MOST_LINES:
        raise BadInput(f"expected 1 to {MOST_LINES} rows for a picture, found {len(table)}; choose other groups.")
    groups = list(columns.groups)
    labels = list(table[groups].astype(str).agg(", ".join, axis=1)) if groups else [""] * len(table)
    names = list(dict.fromkeys(table[columns.series])) if columns.series else [""]
    figure = Figure(figsize=(WIDTH, EDGES + ROW * (len(table) + 0.6 * len(set(labels)))), dpi=160, layout="constrained")
    axes = figure.add_subplot()
    heights: dict[str, list[float]] = {}
    y = 0.0
    for label, row in zip(labels, table.to_dict("records"), strict=True):
        y += GAP if label not in heights and heights else 0
        heights.setdefault(label, []).append(y)
        name = str(row[columns.series]) if columns.series else ""
        value, low, high = (columns.scale * float(row[one]) for one in (columns.value, columns.low, columns.high))
        _point(axes, y, (value, low, high), _colour(name, names))
        y += 1
    if columns.middle is not None:
        axes.axvline(columns.middle, color=palette.FAINT, lw=1, zorder=0)
    axes.set_yticks([(ends[0] + ends[-1]) / 2 for ends in heights.values()], list(heights))
    axes.set_ylim(y - 0.4, -0.6)
    palette.remove_frame(axes, 9, grid="x")
    axes.set_xlabel(columns.axis, fontsize=9, color=palette.INK)
    axes.set_title(columns.title, fontsize=11, color=palette.INK, loc="left", pad=10)
    if len(names) > 1 and columns.series not in groups:
        for name in names:
            axes.plot([], [], "o", ms=6, color=_colour(name, names), label=name)
        figure.legend(loc="outside lower center", ncols=min(len(names), 5), fontsize=9, frameon=False)
    return figure


def _point(axes: Axes, y: float, value: tuple[float, float, float], colour: str) -> None:
    middle, low, high = value
    known = not (math.isnan(low) or math.isnan(high))
    if known:
        axes.plot([low, high], [y, y], color=colour, lw=2.4, alpha=0.45, solid_capstyle="round")
    axes.plot([middle], [y], "o", ms=6, color=colour, mfc=colour if known else "white", mew=1.4)


def _colour(name: str, names: Sequence[str]) -> str:
    if name in palette.LIGHT:
        return palette.LIGHT[name]
    others = [one for one in names if one not in palette.LIGHT]
    return _ALONE if len(others) <= 1 else palette.CURVES[others.index(name) % len(palette.CURVES)]
