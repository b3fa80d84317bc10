"""A model's evaluation for readers: its measures, confusion matrices, operating points and gains over a baseline."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pandas as pd

from spinemet.evaluation.page import Page, Table, format_gain, format_value, look_up, title
from spinemet.evaluation.predictions import UNITS
from spinemet.statistics.intervals import format_interval

if TYPE_CHECKING:
    from spinemet.evaluation.evaluate import Evaluation

NOTE = "Brackets hold 95 % intervals over resampled patients. Each class is measured against all others."


def evaluation_page(found: Evaluation) -> Page:
    """The page of an evaluation."""
    facts = found.facts
    who = "kept for testing" if facts["split"] == "test" else "all of the crops"
    summary = (
        f"Model {facts['model']} on {facts['vertebrae']} vertebrae ({facts['slices']} slices) of {facts['patients']} "
        f"patients ({who}). Crops {facts['crops']}, SpineMet {facts['software_version']}."
    )
    tables = [
        *(_measures(found.measures[found.measures["unit"] == unit], words) for unit, words in UNITS.items()),
        *_confusions(found.confusions),
        *([_operating(found.operating)] if len(found.operating) else []),
        *([_gains(found.differences)] if len(found.differences) else []),
    ]
    return Page("Evaluation", [summary, NOTE], tables)


def _measures(table: pd.DataFrame, unit: str) -> Table:
    rows, cells = look_up(table, "task", "measure", "label"), []
    of_all_classes: dict[str, list[str]] = {}
    for task in table["task"].unique():
        for label in table.loc[(table["task"] == task) & (table["measure"] == "sensitivity"), "label"]:
            row = rows[task, "sensitivity", label]
            shown = [format_value(rows[task, name, label]) for name in ("sensitivity", "specificity", "auc")]
            cells.append([task, label, str(row.n), str(row.patients), *shown])
        cells.append([task, "*macro*", "", "", f"**{format_value(rows[task, 'macro_sensitivity', ''])}**", "", ""])
    for (task, name, label), row in rows.items():
        if not label and name != "macro_sensitivity":
            of_all_classes.setdefault(name, []).append(f"{task} {format_value(row)}")
    return Table(
        unit.capitalize(),
        ("task", "class", "n", "patients", "sensitivity", "specificity", "AUC"),
        cells,
        below=" ".join(f"{title(name)}: {', '.join(values)}." for name, values in of_all_classes.items()),
        right=("n", "patients"),
        narrow=("AUC",),
    )


def _confusions(table: pd.DataFrame) -> Iterator[Table]:
    for (unit, task), rows in table.groupby(["unit", "task"], sort=False):
        matrix = confusion_of(rows)
        yield Table(
            f"Confusion of {task} {UNITS[str(unit)]}",
            (r"truth \ call", *matrix.columns),
            [
                [str(truth), *(f"**{n}**" if truth == call else str(n) for call, n in row.items())]
                for truth, row in matrix.iterrows()
            ],
            right=tuple(matrix.columns),
            terminal=(unit, task) == ("vertebra", "bone_quality"),
        )


def confusion_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Counts with the truth in rows and the call in columns, in the order of the classes."""
    order = rows["truth"].unique()
    return rows.pivot(index="truth", columns="predicted", values="count").loc[order, order]


def _operating(points: pd.DataFrame) -> Table:
    cells = []
    for row in points.to_dict("records"):
        threshold = "never" if math.isinf(row["threshold"]) else f"{row['threshold']:.3f}"
        shares = (
            format_interval(*(row[f"{name}{end}"] for end in ("", "_low", "_high")))
            for name in ("sensitivity", "specificity")
        )
        cells.append([row["task"], row["label"], f"{row['wanted_specificity']:.2f}", threshold, *shares])
    return Table(
        "Operating points",
        ("task", "class", "least specificity", "threshold", "sensitivity", "specificity"),
        cells,
        above="The threshold is the lowest probability that reached this specificity on the validation patients. "
        "Sensitivity and specificity are of the patients measured here.",
        right=("least specificity", "threshold"),
    )


def _gains(table: pd.DataFrame) -> Table:
    rows = look_up(table, "task", "unit", "measure", "label")
    cells, others = [], []
    for (task, unit, name, label), row in rows.items():
        specificity = name.replace("sensitivity", "specificity")
        if name in ("sensitivity", "macro_sensitivity"):
            gains = [format_gain(row), format_gain(rows[task, unit, specificity, label])]
            cells.append([task, UNITS[unit], label or "*macro*", *gains])
        elif "specificity" not in name:
            others.append(f"{title(name)} of {task} {UNITS[unit]}: {format_gain(row)}.")
    return Table(
        "Against the baseline",
        ("task", "unit", "class", "sensitivity", "specificity"),
        cells,
        above="Points gained over the baseline, both measured on the same resampled patients; bold if the interval "
        "excludes zero.",
        below=" ".join(others),
    )
