"""The page of an ablation: what each recipe gains over the baseline, beside the paper's own values.

Its functions take the table of `ablation.summarize`. Shares are between 0 and 1; pages show percent and points.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from spinemet.evaluation.lesions import SPECIFICITY
from spinemet.evaluation.page import Page, Table
from spinemet.evaluation.pages import TASK, format_gain, format_value, look_up, title
from spinemet.evaluation.predictions import UNITS
from spinemet.statistics.comparison import LESION_AUC, MACRO_AT_THRESHOLD, SPECIFICITY_AT_THRESHOLD
from spinemet.types import BONE_QUALITY

if TYPE_CHECKING:
    import pandas as pd

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
PRIMARY = {
    LESION_AUC: "lesion AUC",
    MACRO_AT_THRESHOLD: f"macro lesion sensitivity at {100 * SPECIFICITY:.0f} % specificity",
}
"""The measures that decide, fixed before any fit, and their words."""
PRIMARY_NOTE = (
    f"The measures that decide. The threshold reaches {100 * SPECIFICITY:.0f} % specificity on validation patients; "
    "specificity is what it gives on the patients measured. Above the threshold, the most probable lesion is called. "
    "Gains are points over the baseline; bold if the interval excludes zero."
)


def ablation_page(table: pd.DataFrame, facts: Mapping[str, str | int], baseline: str) -> Page:
    """The page of an ablation whose baseline is the recipe `baseline`."""
    tables = [_primary(table, baseline)]
    for patients, rows in table.groupby("patients"):
        where = f"trained on {patients} patients"
        tables += [_gains_over(rows, baseline, where), *(_shares(rows, unit, where) for unit in UNITS)]
    others = table[~table["measure"].str.contains("sensitivity|specificity|auc")]
    if len(others):
        tables.append(_others(others))
    return Page("Ablation", ["\n".join(f"- {name}: {value}" for name, value in facts.items()), ABLATION_NOTE], tables)


def by_recipe(table: pd.DataFrame, unit: str) -> tuple[list[str], dict[Any, Any]]:
    """The recipes with bone quality, and their rows by (recipe, measure, label)."""
    rows = look_up(table[(table["task"] == TASK) & (table["unit"] == unit)], "recipe", "measure", "label")
    return list(dict.fromkeys(recipe for recipe, *_ in rows)), rows


def _primary(table: pd.DataFrame, baseline: str) -> Table:
    cells = []
    for patients, part in table.groupby("patients"):
        recipes, rows = by_recipe(part, "vertebra")
        for recipe in recipes:
            found = [rows[recipe, name, ""] for name in PRIMARY]
            values = [
                cell
                for one in found
                for cell in (format_value(one, percent=True), "" if recipe == baseline else format_gain(one))
            ]
            specificity = format_value(rows[recipe, SPECIFICITY_AT_THRESHOLD, ""], percent=True)
            cells.append([str(patients), recipe, str(found[0].seeds), *values, specificity])
    columns = [name for words in PRIMARY.values() for name in (words, "gain")]
    return Table(
        "Lesions against normal, per vertebra, in percent",
        ("patients", "recipe", "seeds", *columns, "specificity"),
        cells,
        above=PRIMARY_NOTE,
        right=("patients", "seeds"),
    )


def _gains_over(table: pd.DataFrame, baseline: str, where: str) -> Table:
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
        f"Most probable class: gain in sensitivity over `{baseline}`, in points, {where}",
        ("recipe", "seeds", "unit", *LESIONS, "macro sensitivity", "macro specificity"),
        cells,
        right=("seeds",),
    )


def _shares(table: pd.DataFrame, unit: str, where: str) -> Table:
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
    return Table(
        f"Most probable class {UNITS[unit]}, in percent, {where}", ("recipe", "measure", *BONE_QUALITY, "macro"), cells
    )


def _others(table: pd.DataFrame) -> Table:
    """The measures that tasks name themselves."""
    rows = look_up(table, "patients", "recipe", "task", "unit", "measure")
    cells = [
        [str(patients), recipe, task, UNITS[unit], title(measure), format_value(row), format_gain(row)]
        for (patients, recipe, task, unit, measure), row in rows.items()
    ]
    columns = ("patients", "recipe", "task", "unit", "measure", "value", "gain, in points")
    return Table("Further measures", columns, cells, right=("patients",))
