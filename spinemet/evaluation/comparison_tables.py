"""What stands beside a model's measures: operating points, differences to a baseline, and the reliability diagram."""

from __future__ import annotations

import math
from io import BytesIO

import numpy as np
import pandas as pd

from spinemet.display.palette import bare
from spinemet.statistics.measures import calibration_error, reliability

UNITS = {"vertebra": "per vertebra", "slice": "per slice"}


def operating_markdown(points: pd.DataFrame) -> str:
    """A section of the Markdown page; empty without operating points."""
    if points.empty:
        return ""
    lines = [
        "",
        "## Operating points",
        "",
        "A class is called from a probability on that gave the wanted specificity on the validation patients; "
        "sensitivity and specificity are those of the patients measured here.",
        "",
        "| task | class | wanted specificity | from probability | sensitivity | specificity |",
        "|---|---|---:|---:|---|---|",
    ]
    for row in points.to_dict("records"):
        threshold = "never" if math.isinf(row["threshold"]) else f"{row['threshold']:.3f}"
        shares = [_share(row[name], row[f"{name}_low"], row[f"{name}_high"]) for name in ("sensitivity", "specificity")]
        lines.append(
            f"| {row['task']} | {row['label']} | {row['wanted_specificity']:.2f} | {threshold} | {' | '.join(shares)} |"
        )
    return "\n".join(lines) + "\n"


def differences_markdown(table: pd.DataFrame) -> str:
    """A section of the Markdown page: points gained over the baseline; empty without one."""
    if table.empty:
        return ""
    lines = [
        "",
        "## Against the baseline",
        "",
        "Points gained over the baseline, both judged on the same resampled patients; bold where the 95 % interval "
        "excludes zero.",
        "",
        "| task | unit | class | sensitivity | specificity |",
        "|---|---|---|---|---|",
    ]
    for key, rows in table.groupby(["task", "unit"], sort=False):
        task, unit = map(str, key)
        found = rows.set_index(["measure", "label"])
        for label in dict.fromkeys(rows["label"]):
            names = ("sensitivity", "specificity") if label else ("macro_sensitivity", "macro_specificity")
            cells = [gain(found.loc[(name, label)]) for name in names]
            lines.append(f"| {task} | {UNITS[unit]} | {label or '*macro*'} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def reliability_figure(vertebrae: pd.DataFrame) -> bytes:
    """PNG: per task, the share called right against the confidence, with the number of vertebrae in each bin.

    vertebrae: the table of an evaluation, with `<task>_true` and `<task>_p_<class>`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patheffects import withStroke

    tasks = [name.removesuffix("_true") for name in vertebrae.columns if name.endswith("_true")]
    tasks = [task for task in tasks if vertebrae[f"{task}_true"].notna().any()]
    figure = Figure(figsize=(2.9 * max(len(tasks), 1) + 0.4, 3.5), dpi=150, layout="constrained")
    for n, (axes, task) in enumerate(
        zip(figure.subplots(1, max(len(tasks), 1), squeeze=False)[0], tasks, strict=False)
    ):
        known = vertebrae[vertebrae[f"{task}_true"].notna()]
        columns = [name for name in vertebrae.columns if name.startswith(f"{task}_p_")]
        classes = [name.removeprefix(f"{task}_p_") for name in columns]
        true_N, prob_NC = (
            known[f"{task}_true"].map(classes.index).to_numpy(np.int64),
            known[columns].to_numpy(np.float64),
        )
        said, was, count = reliability(true_N, prob_NC)
        axes.plot([0, 1], [0, 1], color="#9aa5b1", lw=1, ls="--")
        full = count > 0
        axes.plot(said[full], was[full], color="#1f5f8b", lw=1.2)
        axes.scatter(
            said[full], was[full], s=14 + 160 * count[full] / count.sum(), color="#1f5f8b", zorder=3, clip_on=False
        )
        for x, y, number in zip(said[full], was[full], count[full], strict=True):
            below = y > x
            place, halo = (7, -11 if below else 7), [withStroke(linewidth=2.5, foreground="white")]
            label = axes.annotate(str(number), (x, y), place, textcoords="offset points", fontsize=7, color="#55606b")
            label.set(path_effects=halo, zorder=4)
        error = calibration_error(true_N, prob_NC)
        axes.set_title(f"{task.replace('_', ' ')}\ncalibration error {error:.3f}", fontsize=9, color="#1d2733")
        axes.set(xlim=(0, 1.04), ylim=(0, 1.04), aspect="equal")
        axes.set_xlabel("confidence (at the points: vertebrae)", fontsize=8)
        if n == 0:
            axes.set_ylabel("share called right", fontsize=8)
        bare(axes, 7.5)
    buffer = BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def _share(value: float, low: float, high: float) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:.2f}" if math.isnan(low) else f"{value:.2f} [{low:.2f}, {high:.2f}]"


def gain(row: pd.Series) -> str:
    """A difference in points, `+4.2 [+0.3, +8.1]`, in bold where the interval excludes zero."""
    if math.isnan(row["difference"]):
        return "–"
    low, high = row["difference_low"], row["difference_high"]
    text = f"{100 * row['difference']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
    return f"**{text}**" if low > 0 or high < 0 else text
