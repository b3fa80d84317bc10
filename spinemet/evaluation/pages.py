"""The page of an evaluation, described once (`page.py`), and the words of measures, values and gains.

Shares are between 0 and 1; pages show percent and points.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from spinemet.evaluation.page import Page, Table
from spinemet.evaluation.patients import PATIENT
from spinemet.evaluation.predictions import CERTAINTY, UNITS
from spinemet.statistics.intervals import format_interval

if TYPE_CHECKING:
    from spinemet.evaluation.evaluate import Evaluation

EVALUATION_NOTE = "Brackets hold 95 % intervals over resampled patients. Each class is measured against all others."
TASK = "bone_quality"
"""The task that a terminal shows."""


def look_up(table: pd.DataFrame, *keys: str) -> dict[Any, Any]:
    """The rows of a table, as named tuples in its order, by their values in the columns `keys`."""
    return {tuple(getattr(row, name) for name in keys): row for row in table.itertuples()} if len(table) else {}


def title(measure: str) -> str:
    """The words for a measure's name."""
    return "Expected calibration error" if measure == "ece" else measure.replace("_", " ").capitalize()


def format_value(row: Any, *, percent: bool = False) -> str:
    """The value of a row with columns value, low and high."""
    return format_interval(row.value, row.low, row.high, percent=percent)


def format_gain(row: Any) -> str:
    """The difference of a row of `statistics.comparison.Compared`, in points; bold if the interval excludes zero."""
    low, high = row.difference_low, row.difference_high
    text = format_interval(row.difference, low, high, percent=True, signed=True)
    return f"**{text}**" if low > 0 or high < 0 else text


# ---- evaluation ----------------------------------------------------------------------------------------------


def evaluation_page(found: Evaluation) -> Page:
    """The page of an evaluation."""
    facts = found.facts
    who = "kept for testing" if facts["split"] == "test" else "all of the labels"
    summary = (
        f"Model {facts['model']} on {facts['vertebrae']} vertebrae ({facts['slices']} slices) of {facts['patients']} "
        f"patients ({who}). {_source(facts)}{_unknown(facts)} SpineMet {facts['software_version']}."
    )
    tables = [
        *([_unmatched(found.unmatched)] if len(found.unmatched) else []),
        *(_measures(found.measures[found.measures["unit"] == unit], words) for unit, words in UNITS.items()),
        _patients(found.measures[found.measures["unit"] == PATIENT]),
        *_confusions(found.confusions),
        *_groups(found.groups),
        *([_operating(found.operating)] if len(found.operating) else []),
        *([_gains(found.differences)] if len(found.differences) else []),
    ]
    return Page("Evaluation", [summary, EVALUATION_NOTE], tables)


def _source(facts: Mapping[str, str | int]) -> str:
    """Where the slices come from, and what of the source was not used."""
    if "labels" not in facts:
        return f"Crops {facts['crops']}."
    missing = f" Not listed: {facts['not_listed']}." if "not_listed" in facts else ""
    return (
        f"Read from the archive: {facts['labels_matched']} of {facts['labels']} labels have a vertebra; "
        f"{facts['unlabelled']} whole vertebrae of these studies have no label; {facts['studies_not_read']} studies "
        f"could not be read.{missing}"
    )


def _unknown(facts: Mapping[str, str | int]) -> str:
    return f" Nobody can tell {facts['cannot_tell']}." if "cannot_tell" in facts else ""


def _unmatched(table: pd.DataFrame) -> Table:
    rows = [[str(reason), str(count)] for reason, count in table.itertuples(index=False)]
    return Table("Labels without a vertebra", ("reason", "labels"), rows, right=("labels",))


def _groups(groups: pd.DataFrame) -> Iterator[Table]:
    """Of each task, the measures of sure and unsure calls, and those in each group of scans."""
    for task, table in groups.groupby("task", sort=False) if len(groups) else ():
        is_scan = table["group"] != CERTAINTY
        for part, title, more in (
            (table[~is_scan], "Sure and unsure calls", ""),
            (table[is_scan], "By kind of scan", " Bone density: median trabecular HU of the study's vertebrae."),
        ):
            if len(part):
                yield _group_table(part, str(task), title, more)


def _group_table(table: pd.DataFrame, task: str, title: str, more: str) -> Table:
    rows, cells = look_up(table, "group", "value_of_group", "measure"), []
    for group, value in dict.fromkeys((group, value) for group, value, _ in rows):
        one = {name: rows[group, value, name] for name in table["measure"].unique()}
        shown = [
            "few" if one[name].few else format_value(one[name])
            for name in ("sensitivity", "specificity", "auc", "expected_share", "observed_share", "ece")
        ]
        cells.append([group.replace("_", " "), value, str(one["ece"].n), str(one["ece"].patients), *shown])
    return Table(
        f"{title}: {task} per vertebra",
        ("by", "group", "n", "patients", "sens.", "spec.", "AUC", "said", "found", "ECE"),
        cells,
        above="All classes but the negative one are taken together. Sens. and spec.: sensitivity and specificity; ECE: "
        f"expected calibration error. Said: the share of positive vertebrae that the probabilities expect; found: the "
        f"labelled share.{more}",
        below="Few: too few to say, under 10 vertebrae or 5 patients; for AUC and ECE, of one of the two kinds.",
        right=("n", "patients"),
        narrow=("sens.", "spec.", "AUC"),
        terminal=task == TASK,
    )


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


def _patients(table: pd.DataFrame) -> Table:
    rows, cells = look_up(table, "task", "label", "measure"), []
    for task, label in dict.fromkeys((task, label) for task, label, _ in rows):
        sensitivity, specificity = (rows[task, label, name] for name in ("sensitivity", "specificity"))
        counts = (str(sensitivity.n), str(specificity.n))
        cells.append([task, label, *counts, format_value(sensitivity), format_value(specificity)])
    return Table(
        "Per patient",
        ("task", "finding", "with it", "without", "sensitivity", "specificity"),
        cells,
        above="A patient has a finding that one of the labelled vertebrae has; unsure calls are left out.",
        right=("with it", "without"),
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
