"""A model's measures for readers: at the terminal, as Markdown, as a picture.

All take the tables of an evaluation: measures (task, unit, measure, label, value, low, high, n, patients) and
confusions (task, unit, truth, predicted, count).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spinemet.evaluation.comparison_tables import differences_markdown, operating_markdown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.console import RenderableType

PER_CLASS = ("sensitivity", "specificity", "auc")
TITLES = {
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "auc": "AUC",
    "macro_sensitivity": "Macro sensitivity",
}
UNITS = {"vertebra": "Per vertebra", "slice": "Per slice"}
NOTE = "In brackets the 95 % interval; patients resampled whole. Classes are one against the rest."


def headline(facts: Mapping[str, str | int]) -> str:
    """What was measured, in one line."""
    return (
        f"Model {facts['model']} on {facts['vertebrae']} vertebrae ({facts['slices']} slices) of {facts['patients']} "
        f"patients ({'kept for testing' if facts['split'] == 'test' else 'all of the crops'})"
    )


def render(
    facts: Mapping[str, str | int],
    measures: pd.DataFrame,
    confusions: pd.DataFrame,
    operating: pd.DataFrame | None = None,
    differences: pd.DataFrame | None = None,
) -> RenderableType:
    """The measures per vertebra and per slice, the confusion matrix of bone quality, and operating points and
    differences where there are some, for a terminal."""
    from rich import box
    from rich.console import Group
    from rich.markdown import Markdown
    from rich.table import Table
    from rich.text import Text

    parts: list[RenderableType] = [Text(headline(facts), style="bold")]
    for unit, title in UNITS.items():
        table = Table(title=title, title_justify="left", title_style="bold cyan", box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("Task", style="bold", no_wrap=True)
        table.add_column("Class", no_wrap=True)
        table.add_column("n (patients)", justify="right", no_wrap=True)
        for name in PER_CLASS:
            table.add_column(TITLES[name], no_wrap=True)
        for task, rows in _by_task(measures, unit):
            for n, (label, count, patients, *figures, area) in enumerate(_class_rows(rows)):
                figures.append(area.partition(" ")[0])  # its interval is in the Markdown; here the width is scarce
                table.add_row(task if n == 0 else "", label, f"{count} ({patients})", *figures)
            macro = _one(rows, "macro_sensitivity", "")
            table.add_row("", "[dim]macro", "", f"[bold]{_figure(macro)}", "", "", end_section=True)
        parts.append(table)
    quality = confusions[(confusions["task"] == "bone_quality") & (confusions["unit"] == "vertebra")]
    if len(quality):
        parts.append(_confusion_table(quality))
    parts.append(Text(NOTE, style="dim"))
    for found, section in ((operating, operating_markdown), (differences, differences_markdown)):
        if found is not None and not found.empty:
            parts.append(Markdown(section(found)))
    return Group(*parts)


def markdown(facts: Mapping[str, str | int], measures: pd.DataFrame, confusions: pd.DataFrame) -> str:
    """The same as a Markdown page, with the confusion matrices of every task."""
    lines = [
        "# Evaluation",
        "",
        f"{headline(facts)}. Crops {facts['crops']}, SpineMet {facts['software_version']}.",
        "",
        NOTE,
    ]
    for unit, title in UNITS.items():
        lines += ["", f"## {title}", "", "| task | class | n | patients | sensitivity | specificity | AUC |"]
        lines += ["|---|---|---:|---:|---|---|---|"]
        for task, rows in _by_task(measures, unit):
            lines += [f"| {task} | {' | '.join(row)} |" for row in _class_rows(rows)]
            lines += [f"| {task} | *macro* | | | **{_figure(_one(rows, 'macro_sensitivity', ''))}** | | |"]
        errors = [f"{task} {_figure(_one(rows, 'ece', ''))}" for task, rows in _by_task(measures, unit)]
        lines += ["", f"Expected calibration error: {', '.join(errors)}."]
    lines += ["", "## Confusion", "", "Rows are the truth, columns the call."]
    for key, rows in confusions.groupby(["unit", "task"], sort=False):
        unit, task = map(str, key)
        matrix = _matrix(rows)
        lines += ["", f"{task}, {UNITS[unit].lower()}:", "", f"| | {' | '.join(matrix.columns)} |"]
        lines += ["|---" + "|---:" * len(matrix.columns) + "|"]
        lines += [
            f"| {truth} | {' | '.join(map(str, row))} |"
            for truth, row in zip(matrix.index, matrix.to_numpy(), strict=True)
        ]
    return "\n".join(lines) + "\n"


def confusion_figure(confusions: pd.DataFrame) -> bytes:
    """PNG: one matrix per task (columns) and unit (rows); shade and percentage are shares of the truth."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(confusions["task"]))
    sizes = [confusions.loc[confusions["task"] == task, "truth"].nunique() for task in tasks]
    figure = Figure(figsize=(0.9 + sum(0.78 * size + 1.05 for size in sizes), 7.2), dpi=150, layout="constrained")
    grid = figure.subplots(len(UNITS), len(tasks), width_ratios=sizes, squeeze=False)
    for axes_row, (unit, title) in zip(grid, UNITS.items(), strict=True):
        for axes, task in zip(axes_row, tasks, strict=True):
            rows = confusions[(confusions["task"] == task) & (confusions["unit"] == unit)]
            _draw_matrix(axes, _matrix(rows), f"{task.replace('_', ' ')}\n{title.lower()}")
        axes_row[0].set_ylabel("truth")
    for axes in grid[-1]:
        axes.set_xlabel("call")
    buffer = BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def _draw_matrix(axes: Axes, matrix: pd.DataFrame, title: str) -> None:
    counts = matrix.to_numpy(float)
    totals = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="equal")
    for (row, column), count in np.ndenumerate(counts):
        text = f"{count:.0f}" if count == 0 else f"{count:.0f}\n{share[row, column]:.0%}"
        ink = "white" if share[row, column] > 0.55 else "#1d2733"
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color=ink, linespacing=1.25)
    labels = [str(label) for label in matrix.columns]
    axes.set_xticks(range(len(labels)), labels, fontsize=8, rotation=30, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.set_title(title, fontsize=9.5, color="#1d2733")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _confusion_table(rows: pd.DataFrame) -> RenderableType:
    from rich import box
    from rich.table import Table

    matrix = _matrix(rows)
    table = Table(
        title="Bone quality per vertebra",
        title_justify="left",
        title_style="bold cyan",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("truth \\ call")
    for label in matrix.columns:
        table.add_column(str(label), justify="right")
    for truth, row in zip(matrix.index, matrix.to_numpy(), strict=True):
        cells = [
            f"[green]{n}" if label == truth else f"{n}" if n else "[dim]·" for label, n in zip(matrix, row, strict=True)
        ]
        table.add_row(str(truth), *cells)
    return table


def _matrix(rows: pd.DataFrame) -> pd.DataFrame:
    """Truth in rows, call in columns, in the order of the classes."""
    order = list(dict.fromkeys(rows["truth"]))
    return rows.pivot(index="truth", columns="predicted", values="count").loc[order, order]


def _by_task(measures: pd.DataFrame, unit: str) -> Iterator[tuple[str, pd.DataFrame]]:
    for task, rows in measures[measures["unit"] == unit].groupby("task", sort=False):
        yield str(task), rows


def _class_rows(rows: pd.DataFrame) -> Iterator[list[str]]:
    """Per class: its name, samples, patients, and its figures."""
    for label in dict.fromkeys(rows.loc[rows["measure"] == "sensitivity", "label"]):
        counted = _one(rows, "sensitivity", label)
        yield [
            str(label),
            str(counted["n"]),
            str(counted["patients"]),
            *(_figure(_one(rows, name, label)) for name in PER_CLASS),
        ]


def _one(rows: pd.DataFrame, measure: str, label: str) -> pd.Series:
    return rows[(rows["measure"] == measure) & (rows["label"] == label)].iloc[0]


def _figure(row: pd.Series) -> str:
    """`0.83 [0.71, 0.92]`, `0.83` where the interval is not known, `–` where the value is not."""
    if math.isnan(row["value"]):
        return "–"
    if math.isnan(row["low"]):
        return f"{row['value']:.2f}"
    return f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
