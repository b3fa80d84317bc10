"""The ablation for readers: the paper's table for our data beside the paper's figures, as Markdown and as a picture.

All take the table of `ablation.summarize`: recipe, seeds, task, unit, measure, label, value, low, high, difference,
difference_low, difference_high; shares between 0 and 1, shown in percent and points.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING

import pandas as pd

from spinemet.display.palette import bare
from spinemet.evaluation.comparison_tables import gain
from spinemet.types import BONE_QUALITY

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TASK = "bone_quality"
LESIONS = BONE_QUALITY[1:]
UNITS = {"slice": "Per slice", "vertebra": "Per vertebra"}
PAPER = {
    ("slice", "blastic"): 12.54,
    ("slice", "mixed"): 7.23,
    ("slice", "lytic"): 29.06,
    ("vertebra", "blastic"): 12.33,
    ("vertebra", "mixed"): 23.21,
    ("vertebra", "lytic"): 34.25,
}
"""Points of sensitivity that the paper's final model gained over its plain DenseNet-121 (Peng et al. 2019); on other
patients and a private data set, so that direction and order can be compared and size cannot."""
NOTE = (
    "In brackets the 95 % interval: patients resampled whole, trainings resampled too where there are several seeds. "
    "Every patient is called by models that never saw them. Differences are paired: the same resampled patients."
)


def markdown(table: pd.DataFrame, facts: Mapping[str, str | int], baseline: str) -> str:
    """The whole page."""
    lines = ["# Ablation", "", *(f"- {name}: {value}" for name, value in facts.items()), "", NOTE]
    lines += ["", f"## Gain in sensitivity over `{baseline}`, in points", ""]
    lines += ["| recipe | seeds | unit | " + " | ".join(LESIONS) + " | macro sensitivity | macro specificity |"]
    lines += ["|---|---:|---|" + "---|" * (len(LESIONS) + 2)]
    for unit, title in UNITS.items():
        paper = " | ".join(f"{PAPER[unit, label]:+.2f}" for label in LESIONS)
        lines.append(f"| *the paper's final model* | | {title.lower()} | {paper} | | |")
        lines += [_gain_row(rows, recipe, unit, title) for recipe, rows in _recipes(table, unit) if recipe != baseline]
    for unit, title in UNITS.items():
        lines += ["", f"## {title}, in percent", ""]
        lines += ["| recipe | measure | " + " | ".join(BONE_QUALITY) + " | macro |", "|---|---" * 1 + "|---" * 5 + "|"]
        for recipe, rows in _recipes(table, unit):
            for measure in ("sensitivity", "specificity"):
                cells = [_share(_one(rows, measure, label)) for label in BONE_QUALITY]
                macro = _share(_one(rows, f"macro_{measure}", ""))
                lines.append(f"| {recipe} | {measure} | {' | '.join(cells)} | {macro} |")
    return "\n".join(lines) + "\n"


def figure(table: pd.DataFrame, baseline: str) -> bytes:
    """PNG: per unit, the gain of every recipe in each lesion class's sensitivity and in the two macro figures."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    recipes = [recipe for recipe, _ in _recipes(table, "vertebra") if recipe != baseline]
    measures = [*(("sensitivity", label) for label in LESIONS), ("macro_sensitivity", ""), ("macro_specificity", "")]
    picture = Figure(figsize=(9.5, 1.6 + 0.42 * len(recipes) * len(measures) / 2.2), dpi=150, layout="constrained")
    for axes, (unit, title) in zip(picture.subplots(1, 2, sharey=True), UNITS.items(), strict=True):
        _draw_gains(axes, dict(_recipes(table, unit)), recipes, measures, unit)
        axes.set_title(title, fontsize=10, loc="left")
    handles, labels = picture.axes[0].get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4), fontsize=8, frameon=False)
    buffer = BytesIO()
    FigureCanvasAgg(picture).print_png(buffer)
    return buffer.getvalue()


def _draw_gains(
    axes: Axes, rows: Mapping[str, pd.DataFrame], recipes: Sequence[str], measures: Sequence[tuple[str, str]], unit: str
) -> None:
    colours = ["#1f5f8b", "#d1783c", "#5c8a3a", "#8c5a9e", "#b0413e", "#7a7a7a", "#3aa6a0"]
    step = 0.7 / max(len(recipes), 1)
    for n, recipe in enumerate(recipes):
        places = [m + step * (n - (len(recipes) - 1) / 2) for m in range(len(measures))]
        found = [_one(rows[recipe], *measure) for measure in measures] if recipe in rows else []
        for place, row in zip(places, found, strict=False):
            axes.plot(
                [100 * row["difference_low"], 100 * row["difference_high"]],
                [place, place],
                color=colours[n % 7],
                lw=1.6,
            )
        values = [100 * row["difference"] for row in found]
        axes.plot(values, places[: len(values)], "o", color=colours[n % 7], ms=4.5, label=recipe)
    told = [(m, PAPER[unit, label]) for m, (_, label) in enumerate(measures) if (unit, label) in PAPER]
    axes.plot(
        [x for _, x in told], [m for m, _ in told], "D", mfc="none", color="#9aa5b1", ms=6, label="the paper's final"
    )
    axes.axvline(0, color="#1d2733", lw=0.8)
    names = [f"{label or name.replace('_', ' ')}" for name, label in measures]
    axes.set_yticks(range(len(measures)), names, fontsize=8.5)
    axes.set_ylim(len(measures) - 0.5, -0.5)
    axes.set_xlabel("points over the baseline", fontsize=8.5)
    bare(axes, 8.5, grid="x")


def _recipes(table: pd.DataFrame, unit: str) -> list[tuple[str, pd.DataFrame]]:
    chosen = table[(table["task"] == TASK) & (table["unit"] == unit)]
    return [(str(recipe), rows) for recipe, rows in chosen.groupby("recipe", sort=False)]


def _gain_row(rows: pd.DataFrame, recipe: str, unit: str, title: str) -> str:
    cells = [gain(_one(rows, "sensitivity", label)) for label in LESIONS]
    cells += [gain(_one(rows, f"macro_{name}", "")) for name in ("sensitivity", "specificity")]
    return f"| {recipe} | {rows['seeds'].iloc[0]} | {title.lower()} | {' | '.join(cells)} |"


def _one(rows: pd.DataFrame, measure: str, label: str) -> pd.Series:
    return rows[(rows["measure"] == measure) & (rows["label"] == label)].iloc[0]


def _share(row: pd.Series) -> str:
    return "–" if math.isnan(row["value"]) else f"{100 * row['value']:.1f} {_range(row['low'], row['high'])}"


def _range(low: float, high: float) -> str:
    return "" if math.isnan(low) else f"[{100 * low:.1f}, {100 * high:.1f}]"
