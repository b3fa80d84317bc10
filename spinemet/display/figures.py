"""One study on one dark page: the straightened spine, and the call and one slice of each vertebra.

Lengths are inches on paper and millimetres in the body. A millimetre along the spine has the same height in the
sagittal view, the coronal view and the column of calls, so a vertebra is one row across the page.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from spinemet.display import palette
from spinemet.display.study_json import flag_lines
from spinemet.errors import BadInput, plain_cause
from spinemet.reading import Screened, VertebraCall
from spinemet.types import Completeness, Method, SliceStack, Spine, StraightenedViews, Vertebra

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BACKGROUND, PANEL, INK, QUIET, FAINT = palette.DARK_PAGE

# Inches. The views are 4.6 to 11 high: 24 vertebrae can be printed on A3 and read on a screen. A spine shorter than
# 120 mm keeps its scale and leaves the rest of the page empty.
INCH_PER_MM = 0.024
MIN_HEIGHT, MAX_HEIGHT = 4.6, 11.0
MIN_LENGTH_MM = 120
MARGIN, AXIS, TOP, BOTTOM = 0.3, 0.5, 1.05, 0.62
LINE, LETTERS_PER_INCH = 0.18, 13  # of small text
NAMES, CALLS, CALLS_WITHOUT_MODEL, GAP, TILE_GAP = 0.78, 3.85, 1.9, 0.3, 0.09
WORDS_AT, SIDE_AT = 1.2, 2.5  # within the column of calls: "unsure (normal)" fits between them

SLICE_WINDOW_HU = (-180, 780)
"""Wide enough to tell sclerosis from cortex, narrow enough that a lytic defect (40 HU) is dark in bone (150 HU)."""

BAR_MM = 20
"""Length of the bar in each slice."""

SIDES = {"sagittal": "AP", "coronal": "RL"}

METHODS = {
    Method.MASKS: "the segmentation",
    Method.GEOMETRIC: "the geometric localizer",
    Method.TOTALSEGMENTATOR: "TotalSegmentator",
}


@dataclass(frozen=True)
class _Row:
    """One vertebra and its call, as they are drawn."""

    vertebra: Vertebra
    call: VertebraCall | None

    @property
    def quality(self) -> tuple[str, float] | None:
        return palette.bone_quality(self.call)

    @property
    def colour(self) -> str:
        return palette.DARK[self.quality[0]] if self.quality and not self.is_unsure else palette.UNCALLED["dark"]

    @property
    def is_unsure(self) -> bool:
        return self.call is not None and self.call.doubt is not None

    @property
    def is_cut(self) -> bool:
        return self.vertebra.completeness is Completeness.CUT

    @property
    def name(self) -> str:
        level = self.vertebra.level
        return level if level[0] == "?" else level + palette.unsure(self.vertebra.level_confidence)

    @property
    def words(self) -> str:
        if self.quality is None:
            return "cut" if self.is_cut else ""
        label, probability = self.quality
        if self.is_unsure:
            return f"unsure ({label})"
        return f"{label}{palette.question(self.call, 'bone_quality') if self.call else ''} {probability:.2f}"

    @property
    def side(self) -> str:
        """The posterolateral involvement in words; empty without a call for it."""
        label = self.call and self.call.label("posterolateral")
        if self.call is None or not label:
            return ""
        return f"{palette.POSTEROLATERAL_MARKS[label]} {label}{palette.question(self.call, 'posterolateral')}".strip()


def study_figure(
    reading: Screened, calls: Sequence[VertebraCall | None] | None, path: str | Path, notice: str = ""
) -> None:
    """Write the picture of one screened study to `path` (PNG, SVG or PDF, by its suffix).

    reading: with `views`. calls: one per vertebra of the spine in the same order, or None without a model; then the
    column of calls shows trabecular HU. notice: a sentence on the model. Raises BadInput if `path` cannot be written.
    """
    if reading.views is None:
        raise ValueError("expected a reading with views")
    rows = [_Row(vertebra, call) for vertebra, _, call in reading.with_calls(calls)]
    figure = _compose(reading, reading.views, rows, notice)
    try:
        figure.savefig(path, dpi=150, facecolor=BACKGROUND)
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot write the picture {path} ({plain_cause(error)}).") from error


def _compose(reading: Screened, views: StraightenedViews, rows: list[_Row], notice: str) -> Figure:
    from matplotlib.figure import Figure

    length_mm = max(views.sagittal.shape[0], MIN_LENGTH_MM)
    height = min(max(length_mm * INCH_PER_MM, MIN_HEIGHT), MAX_HEIGHT)
    scale = height / length_mm
    sagittal_width, coronal_width = views.sagittal.shape[1] * scale, views.coronal.shape[1] * scale
    calls_width = CALLS if any(row.quality for row in rows) else CALLS_WITHOUT_MODEL
    columns, tile = _grid(len(reading.stacks), height)
    tiles_width = columns * (tile + TILE_GAP)
    width = 2 * MARGIN + AXIS + sagittal_width + NAMES + coronal_width + GAP + calls_width + GAP + tiles_width
    sentences = [notice if calls_width == CALLS else "", *flag_lines(reading, [row.call for row in rows])]
    warnings = [line for words in sentences for line in textwrap.wrap(words, int(width * LETTERS_PER_INCH))]
    total = height + TOP + LINE * len(warnings) + BOTTOM
    figure = Figure(figsize=(width, total), facecolor=BACKGROUND)

    def place(left: float, panel_width: float) -> Axes:
        return figure.add_axes((left / width, BOTTOM / total, panel_width / width, height / total))

    x = MARGIN + AXIS
    offsets = [_in_frame(reading.spine, row.vertebra) for row in rows]
    sagittal = place(x, sagittal_width)
    _draw_view(sagittal, "sagittal", views.sagittal, rows, [views.canal_column + y for _, y in offsets], length_mm)
    _draw_scale(sagittal, views)
    x += sagittal_width
    _draw_names(place(x, NAMES), rows, length_mm)
    x += NAMES
    middle = views.coronal.shape[1] / 2
    coronal = place(x, coronal_width)
    _draw_view(coronal, "coronal", views.coronal, rows, [middle + left for left, _ in offsets], length_mm)
    x += coronal_width + GAP
    _draw_calls(place(x, calls_width), rows, length_mm, calls_width)
    x += calls_width + GAP
    for n, (row, stack) in enumerate(zip(rows, reading.stacks, strict=True)):
        left = x + (n % columns) * (tile + TILE_GAP)
        bottom = BOTTOM + height - (n // columns) * (tile + TILE_GAP) - tile
        _draw_slice(figure.add_axes((left / width, bottom / total, tile / width, tile / total)), row, stack, tile)
    _draw_title(figure, reading, rows, MARGIN / width, total)
    figure.text(MARGIN / width, 1 - 0.72 / total, "\n".join(warnings), color=palette.WARNING, fontsize=9, va="top")
    _draw_legend(figure, rows, MARGIN / width, total)
    low, high = SLICE_WINDOW_HU
    slices = f"slices: bar {BAR_MM} mm, window {low} to {high} HU" if reading.stacks else ""
    feet = ["for research, not for diagnosis", slices]
    figure.text(
        1 - MARGIN / width, 0.1 / total, "  ·  ".join(filter(None, reversed(feet))), color=QUIET, fontsize=8, ha="right"
    )
    return figure


def _grid(count: int, height: float) -> tuple[int, float]:
    """Number of columns and tile size (inches, at most 2.1) with which `count` square tiles fill `height` best."""
    best = (1, 0.0)
    for columns in range(1, max(count, 1) + 1):
        lines = math.ceil(count / columns)
        tile = min((height + TILE_GAP) / lines - TILE_GAP, 2.1)
        if tile > best[1] and columns * tile <= max(4.4, height * 0.8):
            best = (columns, tile)
    return best


def _prepare(axes: Axes, length_mm: float) -> None:
    axes.set_facecolor(BACKGROUND)
    axes.set_ylim(length_mm, 0)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _in_frame(spine: Spine, vertebra: Vertebra) -> tuple[float, float]:
    """Distances (mm) of the body centre to the left of the spine curve and behind it."""
    row = int(np.clip(round(vertebra.canal_mm), 0, len(spine.curve.points_mm) - 1))
    offset = np.asarray(vertebra.center_mm) - spine.curve.points_mm[row]
    left, posterior, _ = spine.curve.frames[row]
    return float(offset @ left), float(offset @ posterior)


def _draw_view(
    axes: Axes, title: str, image: npt.NDArray[np.uint8], rows: list[_Row], columns: list[float], length_mm: float
) -> None:
    """A straightened view with a ring at each body centre, dashed if the field of view cuts the body."""
    image_mm, width_mm = image.shape
    _prepare(axes, length_mm)
    axes.imshow(image, cmap="gray", vmin=0, vmax=255, aspect="auto", extent=(0, width_mm, image_mm, 0))
    axes.set_ylim(length_mm, 0)
    for row, column in zip(rows, columns, strict=True):
        style = (0, (2, 1.5)) if row.is_cut else "-"
        for colour, width, line in (("#000000", 2.8, "-"), (row.colour, 1.4, style)):
            axes.scatter([column], [row.vertebra.canal_mm], s=44, facecolors="none", edgecolors=colour,
                         linewidths=width, linestyles=[line])  # fmt: skip
    axes.set_title(title, color=QUIET, fontsize=8.5, pad=6)
    for x, letter, side in zip((0.03, 0.97), SIDES[title], ("left", "right"), strict=True):
        axes.text(x, image_mm - 2, letter, transform=axes.get_yaxis_transform(), color=INK, alpha=0.75, fontsize=8,
                  ha=side, va="bottom")  # fmt: skip


def _draw_scale(axes: Axes, views: StraightenedViews) -> None:
    """Draw millimetres along the spine beside the sagittal view, and the canal in it."""
    column = views.canal_column
    axes.plot([column] * 2, [0, len(views.sagittal)], color=INK, lw=0.6, alpha=0.28, ls=(0, (1, 4)))
    ticks = np.arange(0, len(views.sagittal), 50)
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks], color=QUIET, fontsize=7)
    axes.tick_params(axis="y", length=3, color=QUIET, width=0.6)
    axes.set_ylabel("mm along the spine", color=QUIET, fontsize=7.5, labelpad=4)


def _draw_names(axes: Axes, rows: list[_Row], length_mm: float) -> None:
    """Level names between the two views, with bars on both sides as high as the body."""
    _prepare(axes, length_mm)
    axes.set_xlim(0, 1)
    for row in rows:
        middle, half = row.vertebra.canal_mm, max(row.vertebra.height_mm / 2 - 1.0, 2.0)
        for x in (0.09, 0.91):
            axes.plot([x, x], [middle - half, middle + half], color=row.colour, lw=2.6, solid_capstyle="butt",
                      ls=(0, (1.2, 0.7)) if row.is_cut else "-")  # fmt: skip
        axes.text(0.5, middle, row.name, color=INK if not row.is_cut else QUIET, fontsize=9.5, weight="bold",
                  ha="center", va="center")  # fmt: skip


def _draw_calls(axes: Axes, rows: list[_Row], length_mm: float, width: float) -> None:
    """For each vertebra a bar of the four probabilities (of HU without a model), the call in words, and HU."""
    _prepare(axes, length_mm)
    axes.set_xlim(0, width)
    called = any(row.quality for row in rows)
    pitch = np.median(np.diff([row.vertebra.canal_mm for row in rows])) if len(rows) > 1 else 20.0
    bar = float(np.clip(pitch * 0.34, 2.5, 7.0))
    for row in rows:
        y = row.vertebra.canal_mm
        _draw_bar(axes, row, y, bar) if called else _draw_hu(axes, row, y, bar)
        words = row.words if called else ""
        weight, alpha = "bold" if called else "normal", 0.65 if row.is_cut else 1.0
        axes.text(WORDS_AT, y, words, color=row.colour, fontsize=8.5, va="center", weight=weight, alpha=alpha)
        hu = row.vertebra.measures.get("trabecular_hu")
        hu_words = f"{hu:.0f}" if hu is not None else ("cut" if row.is_cut else "–")
        axes.text(width, y, hu_words, color=QUIET, fontsize=8, ha="right", va="center")
        is_involved = row.side[:1] in ("◐", "●")
        axes.text(SIDE_AT, y, row.side, color=INK if is_involved else QUIET, fontsize=8.5, va="center", alpha=alpha)
    heads = [(0.0, "probability" if called else "trabecular, 0–300", "left"), (width, "HU", "right")]
    if called:
        heads += [(WORDS_AT, "call", "left"), (SIDE_AT, "posterolateral", "left")]
    for x, text, side in heads:
        axes.annotate(text, (x, 1), xycoords=("data", "axes fraction"), xytext=(0, 9), textcoords="offset points",
                      color=QUIET, fontsize=8.5, ha=side)  # fmt: skip


def _draw_bar(axes: Axes, row: _Row, y: float, bar: float) -> None:
    left = 0.0
    shade = 0.45 if row.is_cut else 1.0
    for name, probability in (row.call.probabilities.get("bone_quality", {}) if row.call else {}).items():
        axes.barh(y, probability * 1.05, bar, left, color=palette.DARK[name], alpha=shade, lw=0)
        left += probability * 1.05


def _draw_hu(axes: Axes, row: _Row, y: float, bar: float) -> None:
    axes.barh(y, 1.05, bar, color=FAINT, lw=0)
    hu = row.vertebra.measures.get("trabecular_hu")
    if hu is not None:
        axes.barh(y, float(np.clip(hu / 300, 0, 1)) * 1.05, bar, color=row.colour, lw=0)


def _draw_slice(axes: Axes, row: _Row, stack: SliceStack, tile: float) -> None:
    """The slice nearest to the middle of the body, in the orientation that radiologists use."""
    middle = int(np.argmin(np.abs(stack.offsets_mm))) if len(stack.offsets_mm) else None
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_facecolor(PANEL)
    for edge in axes.spines.values():
        stands_out = row.is_unsure or (row.quality is not None and row.quality[0] != "normal")
        edge.set(color=row.colour if stands_out else FAINT, linewidth=1.5)
    if middle is not None:
        low, high = SLICE_WINDOW_HU
        axes.imshow(stack.hu_NHW[middle], cmap="gray", vmin=low, vmax=high, interpolation="bilinear")
        axes.text(0.03, 0.5, "R", transform=axes.transAxes, color=INK, alpha=0.75, fontsize=7, va="center")
        pixels = BAR_MM / stack.pixel_mm
        right, bottom = stack.hu_NHW.shape[2] * 0.95, stack.hu_NHW.shape[1] * 0.95
        axes.plot([right - pixels, right], [bottom, bottom], color=INK, lw=1.1, alpha=0.8, solid_capstyle="butt")
    size = float(np.clip(tile * 5.2, 6.5, 9.5))
    halo = {"facecolor": BACKGROUND, "alpha": 0.62, "pad": 1.6, "lw": 0}
    axes.text(0.045, 0.955, row.name, transform=axes.transAxes, color=INK, fontsize=size + 1, weight="bold", va="top",
              bbox=halo)  # fmt: skip
    if row.words:
        axes.text(0.045, 0.05, row.words, transform=axes.transAxes, color=row.colour, fontsize=size, va="bottom",
                  weight="bold", bbox=halo)  # fmt: skip


def _draw_title(figure: Figure, reading: Screened, rows: list[_Row], left: float, total: float) -> None:
    whole = sum(not row.is_cut for row in rows)
    first, last = rows[0].vertebra.level, rows[-1].vertebra.level
    if first.startswith("?") and last.startswith("?"):
        span = "levels not named" if len(rows) > 1 else "level not named"
    else:
        span = f"{first} to {last}" if len(rows) > 1 else first
    title = f"{len(rows)} {'vertebrae' if len(rows) > 1 else 'vertebra'}, {span}"
    counts = {"whole": whole, "cut by the field of view": len(rows) - whole}
    facts = [", ".join(f"{count} {words}" for words, count in counts.items() if count)]
    depth, height, width = reading.spacing_mm
    facts.append(f"{reading.slice_count} slices of {height:.2f} × {width:.2f} × {depth:.2f} mm")
    facts.append(f"vertebrae by {METHODS[reading.localizer]}")

    figure.text(left, 1 - 0.2 / total, title, color=INK, fontsize=15, weight="bold", va="top")
    figure.text(left, 1 - 0.51 / total, "  ·  ".join(facts), color=QUIET, fontsize=9, va="top")


def _draw_legend(figure: Figure, rows: list[_Row], left: float, total: float) -> None:
    from matplotlib.lines import Line2D

    keys = [Line2D([], [], marker="o", ls="", mfc="none", mec=QUIET, mew=1.3, ms=6, label="body centre (dashed: cut)")]
    if any(row.quality for row in rows):
        bars = [Line2D([], [], marker="s", ls="", color=colour, ms=7, label=name)
                for name, colour in palette.DARK.items()]  # fmt: skip
        keys = [*bars, *keys]
    if any("?" in row.words + row.side for row in rows):
        keys.append(Line2D([], [], ls="", label=palette.QUESTION))
    figure.legend(handles=keys, loc="lower left", bbox_to_anchor=(left, 0.29 / total), ncols=len(keys), frameon=False,
                  labelcolor=QUIET, fontsize=8.5, handletextpad=0.4, columnspacing=1.4, borderaxespad=0)  # fmt: skip
