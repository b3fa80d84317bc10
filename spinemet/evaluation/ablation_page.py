"""An ablation for readers: the paper's table for our data, beside the paper's own values.

Every function takes the table of `ablation.summarize`. Shares are between 0 and 1; pages show percent and points.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from spinemet.evaluation.page import Page, Table, format_gain, format_value, look_up, title
from spinemet.evaluation.predictions import UNITS
from spinemet.types import BONE_QUALITY

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
NOTE = (
    "Brackets hold 95 % intervals over resampled patients and, with several seeds, resampled trainings. Every patient "
    "is called by models that never saw them. Differences are paired: the same resampled patients."
)


def ablation_page(table: pd.DataFrame, facts: Mapping[str, str | int], baseline: str) -> Page:
    """The page of an ablation whose baseline is the recipe `baseline`."""
    tables = [_gains(table, baseline), *(_shares(table, unit) for unit in UNITS)]
    others = table[~table["measure"].str.contains("sensitivity|specificity")]
    if len(others):
        tables.append(_others(others))
    return Page("Ablation", ["\n".join(f"- {name}: {value}" for name, value in facts.items()), NOTE], tables)


def by_recipe(table: pd.DataFrame, unit: str) -> tuple[list[str], dict[Any, Any]]:
    """The recipes with bone quality, and their rows by (recipe, measure, label)."""
    rows = look_up(table[(table["task"] == TASK) & (table["unit"] == unit)], "recipe", "measure", "label")
    return list(dict.fromkeys(recipe for recipe, *_ in rows)), rows


def _gains(table: pd.DataFrame, baseline: str) -> Table:
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
