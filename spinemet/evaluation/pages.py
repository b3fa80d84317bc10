"""The pages of an evaluation and of an ablation, described once: Markdown for a file, colours for a terminal.

An ablation's page shows the paper's table for our data, beside the paper's own values. Its functions take the table of
`ablation.summarize`. Shares are between 0 and 1; pages show percent and points.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from spinemet.evaluation.page import Page, Table
from spinemet.evaluation.predictions import UNITS
from spinemet.statistics.intervals import format_interval
from spinemet.types import BONE_QUALITY

if TYPE_CHECKING:
    from spinemet.evaluation.evaluate import Evaluation

EVALUATION_NOTE = "Brackets hold 95 % intervals over resampled patients. Each class is measured against all others."
TASK = "bone_quality"
LESIONS = BONE_QUALITY[1:]
PAPER = {
    ("slice", "blastic"): 12.54,
    ("slice", "mixed"): 7.23,
    ("slice", "lytic"): 29.06,
    ("vertebra", "blastic"): 12.33,
    ("vertebra", "mixed"): 23.21,
    ("vertebra", "lytic"): 34.25,
}
"""Points of sensitivity that the paper's final model gained over its plain DenseNet-121 (Peng et al. 2019). Its data
set is private: compare direction and order, not size."""
SHOWN = (*(("sensitivity", label) for label in LESIONS), ("macro_sensitivity", ""), ("macro_specificity", ""))
"""The gains of the main table: (measure, label)."""
ABLATION_NOTE = (
    "Brackets hold 95 % intervals over resampled patients and, with several seeds, resampled trainings. Every patient "
    "is called by models that never saw them. Differences are paired: the same resampled patients."
)


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
        f"patients ({who}). {_source(facts)} SpineMet {facts['software_version']}."
    )
    tables = [
        *([_unmatched(found.unmatched)] if len(found.unmatched) else []),
        *(_measures(found.measures[found.measures["unit"] == unit], words) for unit, words in UNITS.items()),
        *_confusions(found.confusions),
        *(_groups(part, str(task)) for task, part in _by_task(found.groups)),
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


def _unmatched(table: pd.DataFrame) -> Table:
    rows = [[str(reason), str(count)] for reason, count in table.itertuples(index=False)]
    return Table("Labels without a vertebra", ("reason", "labels"), rows, right=("labels",))


def _by_task(groups: pd.DataFrame) -> Iterator[tuple[Any, pd.DataFrame]]:
    yield from groups.groupby("task", sort=False) if len(groups) else ()


def _groups(table: pd.DataFrame, task: str) -> Table:
    """The measures of one task in each group of scans."""
    rows, cells = look_up(table, "group", "value_of_group", "measure"), []
    for group, value in dict.fromkeys((group, value) for group, value, _ in rows):
        one = {name: rows[group, value, name] for name in table["measure"].unique()}
        shown = [
            "few" if one[name].few else format_value(one[name])
            for name in ("sensitivity", "specificity", "auc", "expected_share", "observed_share", "ece")
        ]
        cells.append([group.replace("_", " "), value, str(one["ece"].n), str(one["ece"].patients), *shown])
    return Table(
        f"By kind of scan: {task} per vertebra",
        ("by", "group", "n", "patients", "sens.", "spec.", "AUC", "said", "found", "ECE"),
        cells,
        above="All classes but the negative one are taken together. Sens. and spec.: sensitivity and specificity; ECE: "
        "expected calibration error. Said: the share of positive vertebrae that the probabilities expect; found: the "
        "labelled share. Bone density: median trabecular HU of the study's vertebrae.",
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


# ---- ablation ------------------------------------------------------------------------------------------------


def ablation_page(table: pd.DataFrame, facts: Mapping[str, str | int], baseline: str) -> Page:
    """The page of an ablation whose baseline is the recipe `baseline`."""
    tables = [_gains_over(table, baseline), *(_shares(table, unit) for unit in UNITS)]
    others = table[~table["measure"].str.contains("sensitivity|specificity")]
    if len(others):
        tables.append(_others(others))
    return Page("Ablation", ["\n".join(f"- {name}: {value}" for name, value in facts.items()), ABLATION_NOTE], tables)


def by_recipe(table: pd.DataFrame, unit: str) -> tuple[list[str], dict[Any, Any]]:
    """The recipes with bone quality, and their rows by (recipe, measure, label)."""
    rows = look_up(table[(table["task"] == TASK) & (table["unit"] == unit)], "recipe", "measure", "label")
    return list(dict.fromkeys(recipe for recipe, *_ in rows)), rows


def _gains_over(table: pd.DataFrame, baseline: str) -> Table:
    cells = []
    for unit, words in UNITS.items():
        paper = [f"{PAPER[unit, label]:+.2f}" for label in LESIONS]
        cells.append(["*the paper's final model*", "", words, *paper, "", ""])
        recipes, rows = by_recipe(table, unit)
        for recipe in recipes:
            gains = [rows[recipe, *key] for key in SHOWN]
            if recipe != baseline:
                cells.append([recipe, str(gains[0].seeds), words, *map(format_gain, gains)])
    return Table(
        f"Gain in sensitivity over `{baseline}`, in points",
        ("recipe", "seeds", "unit", *LESIONS, "macro sensitivity", "macro specificity"),
        cells,
        right=("seeds",),
    )


def _shares(table: pd.DataFrame, unit: str) -> Table:
    recipes, rows = by_recipe(table, unit)
    columns = {
        name: [*((name, label) for label in BONE_QUALITY), (f"macro_{name}", "")]
        for name in ("sensitivity", "specificity")
    }
    cells = [
        [recipe, measure, *(format_value(rows[recipe, *key], percent=True) for key in keys)]
        for recipe in recipes
        for measure, keys in columns.items()
    ]
    return Table(f"{UNITS[unit].capitalize()}, in percent", ("recipe", "measure", *BONE_QUALITY, "macro"), cells)


def _others(table: pd.DataFrame) -> Table:
    """The measures that tasks name themselves."""
    rows = look_up(table, "recipe", "task", "unit", "measure")
    cells = [
        [recipe, task, UNITS[unit], title(measure), format_value(row), format_gain(row)]
        for (recipe, task, unit, measure), row in rows.items()
    ]
    return Table("Further measures", ("recipe", "task", "unit", "measure", "value", "gain, in points"), cells)
