"""Measures over time at a terminal: counts, and each value with its interval in one column."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import pandas as pd
from rich import box
from rich.table import Table

from spinemet.cohort.prevalence import SOURCE

_HIDDEN = {*SOURCE, "interval", "events", "person_days"}
_ENDS = {
    "incidence": ("ci_low", "ci_high"),
    "free": ("ci_low", "ci_high"),
    "share": ("ci_low", "ci_high"),
    "corrected": ("corrected_low", "corrected_high"),
}
_WORDS = {
    "incidence": "per 100,000 years",
    "free": "% free",
    "share": "%",
    "n_newly_in_view": "newly in view",
    "n_by_error": "by error alone",
}


def render_over_time(table: pd.DataFrame) -> Table:
    """The result of `cohort.incidence`, `survival` or `transitions`; too few to tell if there is no interval."""
    ends = {end for pair in _ENDS.values() for end in pair}
    names = [name for name in table.columns if name not in _HIDDEN | ends and not table[name].isna().all()]
    out = Table(
        box=box.SIMPLE_HEAD,
        header_style="bold",
        pad_edge=False,
        collapse_padding=True,
        caption=str(table["events"].iloc[0]).capitalize() + "." if len(table) else None,
        caption_justify="left",
    )
    percent = "incidence" not in table.columns
    cells = [[_cell(name, row, percent) for name in names] for row in table.to_dict("records")]
    for n, name in enumerate(names):
        words = _WORDS.get(name, name.removeprefix("n_").replace("_", " ")).replace(" ", "\n", 1)
        widest = max((len(row[n]) for row in cells), default=0)
        justify: Literal["right", "left"] = "right" if table[name].dtype.kind in "iuf" else "left"
        out.add_column(words, justify=justify, min_width=widest, no_wrap=True)
    for row in cells:
        out.add_row(*row)
    return out


def _cell(name: str, row: Mapping[Any, Any], percent: bool) -> str:
    value = row[name]
    if name not in _ENDS:
        return str(value) if isinstance(value, str) else "" if math.isnan(value) else _number(float(value))
    if math.isnan(value):
        return "–"
    text, *ends = (f"{100 * one:.1f}" if percent else f"{one:,.0f}" for one in (value, *(row[e] for e in _ENDS[name])))
    return f"{text} (too few)" if math.isnan(row[_ENDS[name][0]]) else f"{text} [{ends[0]}, {ends[1]}]"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"
