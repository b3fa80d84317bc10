"""Figures of evaluation and ablation, as PNG: confusion matrices, reliability diagrams, gains, learning curves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spinemet.display.palette import BLUE, CURVES, FAINT, INK, as_png, remove_frame
from spinemet.evaluation.gains import PAPER, PRIMARY, SHOWN, by_recipe
from spinemet.evaluation.pages import TASK, confusion_of
from spinemet.evaluation.predictions import UNITS
from spinemet.statistics.measures import calibration_error, reliability

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def confusion_figure(confusions: pd.DataFrame) -> bytes:
    """One matrix per task (columns) and unit (rows); shade and percentage are shares of the truth."""
    tasks = list(confusions["task"].unique())
    sizes = [confusions.loc[confusions["task"] == task, "truth"].nunique() for task in tasks]
    figure = _figure(0.9 + sum(0.78 * size + 1.05 for size in sizes), 7.2)
    grid = figure.subplots(len(UNITS), len(tasks), width_ratios=sizes, squeeze=False)
    for axes_row, (unit, words) in zip(grid, UNITS.items(), strict=True):
        for axes, task in zip(axes_row, tasks, strict=True):
            rows = confusions[(confusions["task"] == task) & (confusions["unit"] == unit)]
            _draw_matrix(axes, confusion_of(rows), f"{task.replace('_', ' ')}\n{words}")
        axes_row[0].set_ylabel("truth")
    for axes in grid[-1]:
        axes.set_xlabel("call")
    return as_png(figure)


def _draw_matrix(axes: Axes, matrix: pd.DataFrame, title: str) -> None:
    counts = matrix.to_numpy(float)
    totals = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="equal")
    for (row, column), count in np.ndenumerate(counts):
        text = f"{count:.0f}" if count == 0 else f"{count:.0f}\n{share[row, column]:.0%}"
        ink = "white" if share[row, column] > 0.55 else INK
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color=ink, linespacing=1.25)
    labels = [str(label) for label in matrix.columns]
    axes.set_xticks(range(len(labels)), labels, fontsize=8, rotation=30, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.set_title(title, fontsize=9.5, color=INK)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def reliability_figure(vertebrae: pd.DataFrame) -> bytes:
    """Per task, the share called right against the confidence; each point holds its number of vertebrae.

    vertebrae: a table of `predictions`.
    """
    tasks = [name.removesuffix("_true") for name in vertebrae.columns if name.endswith("_true")]
    tasks = [task for task in tasks if vertebrae[f"{task}_true"].notna().any()]
    figure = _figure(2.9 * max(len(tasks), 1) + 0.4, 3.5)
    for axes, task in zip(figure.subplots(1, max(len(tasks), 1), squeeze=False)[0], tasks, strict=False):
        _draw_reliability(axes, vertebrae[vertebrae[f"{task}_true"].notna()], task)
    figure.axes[0].set_ylabel("share called right", fontsize=8)
    return as_png(figure)


def _draw_reliability(axes: Axes, known: pd.DataFrame, task: str) -> None:
    from matplotlib.patheffects import withStroke

    columns = [name for name in known.columns if name.startswith(f"{task}_p_")]
    classes = [name.removeprefix(f"{task}_p_") for name in columns]
    true_N, prob_NC = known[f"{task}_true"].map(classes.index).to_numpy(np.int64), known[columns].to_numpy(np.float64)
    confidence, right, count = reliability(true_N, prob_NC)
    full = count > 0
    confidence, right, count = confidence[full], right[full], count[full]
    axes.plot([0, 1], [0, 1], color=FAINT, lw=1, ls="--")
    axes.plot(confidence, right, color=BLUE, lw=1.2)
    axes.scatter(confidence, right, s=14 + 160 * count / count.sum(), color=BLUE, zorder=3, clip_on=False)
    for x, y, number in zip(confidence, right, count, strict=True):
        place = (7, -11 if y > x else 7)
        label = axes.annotate(str(number), (x, y), place, textcoords="offset points", fontsize=7, color="#55606b")
        label.set(path_effects=[withStroke(linewidth=2.5, foreground="white")], zorder=4)
    error = calibration_error(true_N, prob_NC)
    axes.set_title(f"{task.replace('_', ' ')}\ncalibration error {error:.3f}", fontsize=9, color=INK)
    axes.set(xlim=(0, 1.04), ylim=(0, 1.04), aspect="equal")
    axes.set_xlabel("confidence (at the points: vertebrae)", fontsize=8)
    remove_frame(axes, 7.5)


def gains_figure(table: pd.DataFrame, baseline: str) -> bytes:
    """Per unit, each recipe's gain over the recipe `baseline`; table: of `ablation.summarize`."""
    recipes = [recipe for recipe in by_recipe(table, "vertebra")[0] if recipe != baseline]
    figure = _figure(9.5, 1.6 + 0.42 * len(recipes) * len(SHOWN) / 2.2)
    for axes, (unit, words) in zip(figure.subplots(1, 2, sharey=True), UNITS.items(), strict=True):
        _draw_gains(axes, table, recipes, unit)
        axes.set_title(words.capitalize(), fontsize=10, loc="left")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4), fontsize=8, frameon=False)
    return as_png(figure)


def _draw_gains(axes: Axes, table: pd.DataFrame, recipes: list[str], unit: str) -> None:
    rows, step = by_recipe(table, unit)[1], 0.7 / max(len(recipes), 1)
    for n, recipe in enumerate(recipes):
        places = np.arange(len(SHOWN)) + step * (n - (len(recipes) - 1) / 2)
        found, colour = [rows[recipe, *key] for key in SHOWN], CURVES[n % len(CURVES)]
        low, high = ([100 * getattr(row, f"difference_{end}") for row in found] for end in ("low", "high"))
        axes.hlines(places, low, high, color=colour, lw=1.6)
        axes.plot([100 * row.difference for row in found], places, "o", color=colour, ms=4.5, label=recipe)
    paper = [(PAPER[unit, label], m) for m, (_, label) in enumerate(SHOWN) if (unit, label) in PAPER]
    axes.plot(*zip(*paper, strict=True), "D", mfc="none", color=FAINT, ms=6, label="the paper's final model")
    axes.axvline(0, color=INK, lw=0.8)
    axes.set_yticks(range(len(SHOWN)), [label or name.replace("_", " ") for name, label in SHOWN], fontsize=8.5)
    axes.set_ylim(len(SHOWN) - 0.5, -0.5)
    axes.set_xlabel("points over the baseline", fontsize=8.5)
    remove_frame(axes, 8.5, grid="x")


def curve_figure(table: pd.DataFrame) -> bytes:
    """Per primary measure, each recipe's value against the patients that it was trained on; of `ablation.summarize`."""
    sizes = sorted(table["patients"].unique())
    figure = _figure(9.5, 4.2)
    for axes, (measure, words) in zip(figure.subplots(1, len(PRIMARY)), PRIMARY.items(), strict=True):
        recipes = by_recipe(table, "vertebra")[0]
        for n, recipe in enumerate(recipes):
            rows = table[(table["recipe"] == recipe) & (table["measure"] == measure) & (table["task"] == TASK)]
            rows = rows.sort_values("patients")
            # Beside each other, so that the intervals of one size do not overlap.
            places = rows["patients"].to_numpy(float) * 1.03 ** (n - (len(recipes) - 1) / 2)
            colour = CURVES[n % len(CURVES)]
            axes.vlines(places, 100 * rows["low"], 100 * rows["high"], color=colour, lw=1.2)
            axes.plot(places, 100 * rows["value"], "o-", color=colour, ms=4.5, lw=1.4, label=recipe)
        axes.set_xscale("log")
        axes.set_xticks(sizes, [str(size) for size in sizes], fontsize=8.5)
        axes.minorticks_off()
        axes.set_xlabel("patients to train on", fontsize=8.5)
        axes.set_title(f"{words[0].upper()}{words[1:]}, %", fontsize=10, loc="left")
        remove_frame(axes, 8.5)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4), fontsize=8, frameon=False)
    return as_png(figure)


def _figure(width: float, height: float) -> Figure:
    """An empty figure; sizes in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=150, layout="constrained")
