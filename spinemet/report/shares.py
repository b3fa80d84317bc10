"""Who was studied and how often a finding was called, as plain values for the report's template."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from spinemet.cohort.correction import Correction
from spinemet.cohort.evaluated import ANY, read_evaluation
from spinemet.cohort.prevalence import TASK, correction_of, prevalence, tasks
from spinemet.cohort.table1 import table1
from spinemet.display.measure_tables import characteristic, words_of
from spinemet.display.palette import axis_top
from spinemet.errors import BadInput
from spinemet.model.tasks import TASKS
from spinemet.results.schemas import Row
from spinemet.statistics.intervals import format_share
from spinemet.types import BONE_QUALITY

if TYPE_CHECKING:
    import duckdb
    import pandas as pd

UNITS = ("vertebra", "patient")
"""The units of the first table."""

PARTS = frozenset(part for task in TASKS for part in task.fuses)
"""Tasks that only serve another one: their classes are in that task's calls already."""

_LEFT_TO_OTHERS = frozenset({"all", "lesion"})
"""Characteristics that other sections of the report show."""


def characteristics(connection: duckdb.DuckDBPyConnection) -> dict[str, Row]:
    """The patients of the population: variable -> its `rows` (category, value in words), and how many are `missing`."""
    groups: dict[str, Row] = {}
    for row in table1(connection).to_dict("records"):
        if row["variable"] not in _LEFT_TO_OTHERS:
            group = groups.setdefault(words_of(row["variable"]), {"rows": [], "missing": int(row["n_missing"])})
            group["rows"].append((row["category"], characteristic(row)))
    return groups


def overall(connection: duckdb.DuckDBPyConnection, evaluation: str | None) -> Row:
    """`overall`: each finding of bone quality, corrected if `evaluation` allows it; `caveats`: what a reader must know.

    A model without this task has no rows.
    """
    if TASK not in tasks(connection):
        return {"overall": [], "caveats": [], "is_corrected": False}
    found, caveats = _corrections(connection, evaluation)
    tables = _by_unit(connection, TASK, found)
    caveats += [sentence for unit, one in found.items() for sentence in one.notes(tables[unit])]
    return {"overall": _rows(TASK, tables), "caveats": caveats, "is_corrected": bool(found)}


def _corrections(
    connection: duckdb.DuckDBPyConnection, evaluation: str | None
) -> tuple[dict[str, Correction], list[str]]:
    """Unit -> the correction for the errors that `evaluation` measured, and a sentence for each unit without one."""
    if evaluation is None:
        return {}, []
    found, reasons = dict[str, Correction](), list[str]()
    for unit in UNITS:
        try:
            found[unit] = correction_of(connection, read_evaluation(connection, evaluation), unit)
        except BadInput as error:
            reasons.append(f"Not corrected: {error}")
    return found, list(dict.fromkeys(reasons))


def _by_unit(
    connection: duckdb.DuckDBPyConnection, task: str, corrections: Mapping[str, Correction]
) -> dict[str, pd.DataFrame]:
    return {unit: prevalence(connection, [], unit, task, corrections.get(unit)) for unit in UNITS}


def _rows(task: str, tables: Mapping[str, pd.DataFrame]) -> list[Row]:
    """Each finding of `task` among all vertebrae and among all patients."""
    sides = {unit: {row["finding"]: row for row in table.to_dict("records")} for unit, table in tables.items()}
    return [
        {"task": task, "finding": finding} | {unit: _rate(side[finding]) for unit, side in sides.items()}
        for finding in sides["vertebra"]
    ]


def prevalence_rows(connection: duckdb.DuckDBPyConnection, by: Sequence[str], unit: str) -> Row:
    """A prevalence of bone quality as chart rows: labels, counts, and positions in percent of the chart's axis."""
    table = prevalence(connection, by, unit)
    groups: dict[tuple[str, ...], dict[str, Row]] = {}
    for row in table.to_dict("records"):
        groups.setdefault(tuple(str(row[name]) for name in by), {})[row["finding"]] = {
            str(k): v for k, v in row.items()
        }
    top = axis_top(row[ANY]["ci_high"] for row in groups.values())
    rows = [{"labels": key, **_rate_row(findings, top)} for key, findings in groups.items()]
    return {"rows": rows, "ticks": [(100 * n / 4, f"{25 * n * top:.3g}") for n in range(5)]}


def further_rows(connection: duckdb.DuckDBPyConnection) -> list[Row]:
    """The same rows of every other task of the model, one task after the other, not corrected."""
    others = [task for task in tasks(connection) if task != TASK and task not in PARTS]
    return [row for task in others for row in _rows(task, _by_unit(connection, task, {}))]


def _rate_row(findings: Mapping[str, Row], top: float) -> Row:
    found = findings[ANY]
    place = {name: 100 * found[name] / top for name in ("prevalence", "ci_low", "ci_high")}
    return _rate(found) | {
        "n_imaged": found["n_imaged"],
        "n_cut": found["n_cut"],
        "n_unsure": found["n_unsure"],
        "dot": place["prevalence"],
        "low": None if math.isnan(place["ci_low"]) else place["ci_low"],
        "width": place["ci_high"] - place["ci_low"],
        "classes": [(name, findings[name]["n_positive"]) for name in BONE_QUALITY[1:]],
    }


def _rate(row: Mapping[Any, Any]) -> Row:
    text = format_share(row["prevalence"], row["ci_low"], row["ci_high"], row["interval"])
    rate, _, interval = text.partition(" ")
    return {
        "known": not math.isnan(row["prevalence"]),
        "rate": rate,
        "interval": interval,
        "n_positive": int(row["n_positive"]),
        "n_evaluable": int(row["n_evaluable"]),
        "corrected": _corrected(row) if "corrected" in row else "",
    }


def _corrected(row: Mapping[Any, Any]) -> str:
    """The corrected share in percent with its interval, or why there is none."""
    if math.isnan(row["corrected"]):
        return str(row["correction"]).replace("_", " ")
    return format_share(row["corrected"], row["corrected_low"], row["corrected_high"], row["correction"])
