"""Tables of groups and readers for a person at a terminal: characteristics, density, comparison, agreement."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from spinemet.display import palette
from spinemet.statistics.intervals import format_interval

if TYPE_CHECKING:
    import pandas as pd


def render_table1(table: pd.DataFrame) -> Table:
    """The result of `cohort.table1`: a line per characteristic or category, a column per group."""
    groups = list(dict.fromkeys(table["group"])) if "group" in table else [""]
    smd_words = " SMD: standardised mean difference." if len(groups) > 1 else ""
    out = _table(f"Number (%), or mean ± SD and median with quartiles.{smd_words}")
    out.add_column("")
    for group in groups:
        out.add_column(str(group), justify="right", no_wrap=True)
    if has_smd := len(groups) > 1 and table["smd"].notna().any():
        out.add_column("SMD", justify="right", no_wrap=True)
    rows: dict[tuple[str, str], dict[str, Mapping[Any, Any]]] = {}
    for row in table.to_dict("records"):
        rows.setdefault((row["variable"], row["category"]), {})[str(row.get("group", ""))] = row
    last = ""
    for (variable, category), found in rows.items():
        first = next(iter(found.values()))
        smd = [_number(first["smd"])] if has_smd else []
        if category and variable != last:
            out.add_row(words_of(variable), *[""] * len(groups), *smd)
        cells = [characteristic(found.get(str(group))) for group in groups]
        out.add_row(
            f"  {category}" if category else words_of(variable), *cells, *([""] if category and has_smd else smd)
        )
        last = variable
    for variable in dict.fromkeys(table["variable"]):
        missing = table[table["variable"] == variable]
        if missing["n_missing"].any():
            of = {str(row.get("group", "")): row["n_missing"] for row in missing.to_dict("records")}
            out.add_row(
                f"{words_of(variable)} unknown", *(str(of.get(str(g), 0)) for g in groups), *([""] if has_smd else []),
                style="dim",
            )  # fmt: skip
    return out


def render_density(table: pd.DataFrame) -> Table:
    """The result of `cohort.density`, one line per group."""
    groups = list(table.columns[: list(table.columns).index("n_patients")])
    out = _table("Vertebrae called positive, cut or unsure are left out. Intervals count patients. Contrast raises HU.")
    for name in groups:
        out.add_column(words_of(name), overflow="fold")
    for name in ("patients", "vertebrae", "HU [95 % interval]", "SD", "HU per 10 years [95 % interval]"):
        out.add_column(name, justify="right", no_wrap=True)
    for row in table.to_dict("records"):
        out.add_row(
            *(str(row[name]) for name in groups),
            str(row["n_patients"]),
            str(row["n_vertebrae"]),
            _bounded(row["mean_hu"], row["ci_low"], row["ci_high"], "{:.0f}"),
            _number(row["sd_hu"], "{:.0f}"),
            _bounded(row["hu_per_decade"], row["decade_low"], row["decade_high"], "{:+.1f}"),
        )
    return out


def render_comparison(table: pd.DataFrame) -> Table:
    """The result of `cohort.compare`, one line per finding."""
    out = _table("Difference: second less first, in percentage points. Ratio: second over first. Intervals: 95 %.")
    out.add_column("")
    for side in ("first", "second"):
        out.add_column(str(table[side].iloc[0]), justify="right", no_wrap=True)
    for name in ("difference", "ratio"):
        out.add_column(name, justify="right", no_wrap=True)
    for row in table.to_dict("records"):
        sides = (
            f"{row[f'n_positive_{side}']}/{row[f'n_evaluable_{side}']} {100 * row[f'prevalence_{side}']:.1f} %"
            for side in ("first", "second")
        )
        few = " too few" if row["interval"] == "too_few" else ""
        value, low, high = (100 * row[name] for name in ("difference", "difference_low", "difference_high"))
        out.add_row(
            row["finding"],
            *sides,
            _bounded(value, low, high, "{:+.1f}") + few,
            _bounded(row["ratio"], row["ratio_low"], row["ratio_high"]),
            style=palette.TERMINAL.get(row["finding"], ""),
        )
    return out


def render_agreement(table: pd.DataFrame) -> RenderableType:
    """The result of `cohort.agreement`: a line per call of the first reader, a column per call of the second."""
    one = table.iloc[0]
    share = "–" if math.isnan(one["agreement"]) else f"{100 * one['agreement']:.1f} %"
    kappa = format_interval(one["kappa"], one["kappa_low"], one["kappa_high"])
    out = _table("")
    out.add_column("")
    names = list(dict.fromkeys(table["second"]))
    for name in names:
        out.add_column(name, justify="right", header_style=f"bold {palette.TERMINAL.get(name, '')}".strip())
    for first, part in table.groupby("first", sort=False):
        out.add_row(str(first), *(str(n) for n in part["n_vertebrae"]))
    words = (
        f"{one['n_compared']} vertebrae evaluable for both; equal: {share}; Cohen's kappa {kappa}.",
        f"Lines: model {one['model']}, configuration {one['configuration']}.",
        f"Columns: model {one['second_model']}, configuration {one['second_configuration']}.",
    )
    return Group(out, *(Text(line, style="dim") for line in words))


def characteristic(row: Mapping[Any, Any] | None) -> str:
    """A row of `cohort.table1` in words: `12 (25.0)` of a category, `66.5 ± 9.3; 66.0 [61.8, 73.0]` of a number."""
    if row is None:
        return "0 (0.0)"
    if row["variable"] == "all":
        return str(row["n"])
    if row["category"]:
        return f"{row['n']} ({100 * row['share']:.1f})"
    if not row["n"]:
        return "–"
    values = [_number(row[name], "{:.1f}") for name in ("mean", "sd", "median", "q25", "q75")]
    return "{} ± {}; {} [{}, {}]".format(*values)


def _bounded(value: float, low: float, high: float, form: str = "{:.2f}") -> str:
    if math.isnan(low) or math.isnan(high):
        return _number(value, form)
    return f"{form.format(value)} [{form.format(low)}, {form.format(high)}]"


def _number(value: float | None, form: str = "{:.2f}") -> str:
    return "–" if value is None or math.isnan(value) else form.format(value)


def words_of(name: str) -> str:
    """A column's name as words."""
    return name.replace("_", " ")


def _table(caption: str) -> Table:
    return Table(
        box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, collapse_padding=True, caption=caption or None,
        caption_justify="left",
    )  # fmt: skip
