"""Prevalences standardised directly: as if every group had the ages of one standard population."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import duckdb
import numpy as np
import pandas as pd

from spinemet.errors import BadInput
from spinemet.files import read_bytes
from spinemet.results.schemas import Row
from spinemet.statistics.standardisation import StandardSums, worst_variance

_DECADES = (*(f"{age}-{age + 9}" for age in range(0, 90, 10)), "90+")
BUILT_IN: dict[str, tuple[float, ...]] = {
    "world": (17.55, 17.07, 16.15, 14.76, 12.63, 9.92, 6.68, 3.73, 1.35, 0.195),
    "europe": (10.5, 11.0, 12.0, 13.5, 14.0, 13.5, 11.5, 9.0, 4.0, 1.0),
}
"""Percent in each decade of age, sums of the published groups of five years. world: WHO World Standard 2000-2025 (Ahmad
et al. 2001, GPE Discussion Paper 31). europe: European Standard Population 2013 (Eurostat 2013, KS-RA-13-028)."""
STANDARDISED: tuple[str, ...] = ("standardised", "standardised_low", "standardised_high", "standardisation")
"""The columns that a standardisation adds; `standardisation` names the standard and the strata that were used."""
Key = tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Standard:
    """A standard population: `table` with one row per stratum, `age_group` (and `sex`) and `weight`.

    A built-in one covers all ages: strata without an evaluable unit are left out and said. An own one must fit.
    """

    name: str
    table: pd.DataFrame
    is_built_in: bool

    @property
    def strata(self) -> list[str]:
        """The columns that make a stratum."""
        return [name for name in self.table.columns if name != "weight"]

    def notes(self, table: pd.DataFrame) -> list[str]:
        """Sentences that a reader of the standardised `table` has to know."""
        words = next(iter(table["standardisation"]), "")
        left_out = len(self.table) - words.count(",") - 1
        more = f" {left_out} strata of the standard have no evaluable unit in some group: they are left out."
        return [f"Standardised to {words}.{more if words and left_out else ''}"]


def read_standard(name: str) -> Standard:
    """The built-in standard of that name, or the one in the CSV file `name` with age_group, weight, and perhaps sex.

    Raises BadInput if the file is missing or wrong.
    """
    if name in BUILT_IN:
        return Standard(name, pd.DataFrame({"age_group": _DECADES, "weight": BUILT_IN[name]}), True)
    wanted = "expected world, europe or a CSV file with the columns age_group, weight and perhaps sex"
    try:
        table = pd.read_csv(BytesIO(read_bytes(name)), dtype={"age_group": str, "sex": str})
        weights = table["weight"].astype(float)
    except (ValueError, KeyError) as error:
        raise BadInput(f"{wanted}, found {name}.") from error
    if {"age_group", "weight"} - set(table.columns) or set(table.columns) - {"age_group", "sex", "weight"}:
        raise BadInput(f"{wanted}, found {name} with {', '.join(map(str, table.columns))}.")
    standard = Standard(name, table.assign(weight=weights)[weights != 0], False)
    if table[standard.strata].isna().any(axis=None) or table.duplicated(standard.strata).any():
        raise BadInput(f"{name}: expected each stratum once and none empty.")
    if not np.isfinite(weights).all() or (weights < 0).any() or not weights.any():
        raise BadInput(f"{name}: expected weights of 0 or more, and one above 0.")
    if unknown := sorted(set(table["age_group"]) - set(_DECADES)):
        raise BadInput(f"{name}: expected age groups out of {', '.join(_DECADES)}, found {', '.join(unknown)}.")
    return standard


def standard_sums(
    connection: duckdb.DuckDBPyConnection, patients: str, groups: Sequence[str], findings: int, standard: Standard
) -> tuple[dict[Key, list[StandardSums]], str]:
    """Group -> the sums of each finding, and the words of the standard with its strata.

    patients: a query for one row per group, stratum and `person`, with `n` evaluable units and x0, x1, … positive ones.
    Raises BadInput if a group is a stratum too, or if strata of an own standard (or all) have no evaluable unit.
    """
    if both := sorted(set(groups) & set(standard.strata)):
        raise BadInput(f"a prevalence standardised for {', '.join(both)} cannot be grouped by it.")
    connection.execute(f"create or replace temp table strata_patients as select * from ({patients}) where n > 0")
    by = [*groups, *standard.strata]
    sums = ", ".join(f"sum(x{n})::double as x{n}" for n in range(findings))
    totals = connection.execute(
        f"select {', '.join(by)}, sum(n)::double as n, sum(n * n)::double as squares, {sums} "
        "from strata_patients group by all"
    ).df()
    used = _used(totals, groups, standard)
    joined = totals.merge(used, on=standard.strata)
    # Each unit counts its stratum's weight over the units there.
    joined["counts"] = joined["weight"] / joined["n"]
    for place in range(findings):
        joined[f"r{place}"] = joined[f"x{place}"] / joined["n"]
    words = ", ".join(" ".join(row) for row in used[standard.strata].itertuples(index=False))
    return _group_sums(connection, joined, groups, findings, standard.strata), f"{standard.name}: {words}"


def _used(totals: pd.DataFrame, groups: Sequence[str], standard: Standard) -> pd.DataFrame:
    """The strata of the standard with a unit in every group, with weights that add up to 1."""
    count = len(totals[list(groups)].drop_duplicates()) if groups else min(len(totals), 1)
    here = totals.groupby(standard.strata).size().rename("groups").reset_index()
    table = standard.table.merge(here, on=standard.strata, how="left")
    is_there = (table["groups"].fillna(0) == count) & (count > 0)
    missing = ", ".join(" ".join(row) for row in table.loc[~is_there, standard.strata].itertuples(index=False))
    if not is_there.any() or (missing and not standard.is_built_in):
        raise BadInput(
            f"the standard {standard.name} cannot be used: without an evaluable unit in one group at least: {missing}. "
            "Group by fewer columns, or leave these strata out of a CSV of your own."
        )
    used = table[is_there].drop(columns="groups")
    return used.assign(weight=used["weight"] / used["weight"].sum())


def _group_sums(
    connection: duckdb.DuckDBPyConnection, joined: pd.DataFrame, groups: Sequence[str], findings: int, strata: list[str]
) -> dict[Key, list[StandardSums]]:
    """The sums of each group; joined: one row per group and stratum."""
    connection.register("strata_weights", joined)
    places, by = range(findings), "".join(f"{name}, " for name in groups)
    each = ", ".join(
        f"sum(w.counts * (p.x{n} - w.r{n} * p.n)) as e{n}, sum(w.counts * p.x{n}) as c{n}, "
        f"bool_or(p.x{n} < p.n) as other{n}"
        for n in places
    )
    total = ", ".join(
        f"sum(e{n} * e{n}) as residuals{n}, sum(c{n} * c{n}) as positive_squares{n}, "
        f"count(*) filter (other{n}) as negative{n}"
        for n in places
    )
    rows = connection.execute(
        f"with people as (select {by}person, sum(w.counts * p.n) as part, {each} from strata_patients p "
        f"join strata_weights w using ({', '.join([*groups, *strata])}) group by all) "
        f"select {by}count(*) as clusters, sum(part * part) as squares, {total} from people group by all"
    ).df()
    connection.unregister("strata_weights")
    parts: dict[Key, pd.DataFrame] = {(): joined}
    if groups:
        parts = {tuple(map(str, key)): part for key, part in joined.groupby(list(groups))}
    found: dict[Key, list[StandardSums]] = {}
    for row in rows.to_dict("records"):
        key = tuple(str(row[name]) for name in groups)
        found[key] = [_sums({str(k): v for k, v in row.items()}, parts[key], n) for n in places]
    return found


def _sums(row: Row, part: pd.DataFrame, place: int) -> StandardSums:
    rate, counts = part[f"r{place}"].to_numpy(), part["counts"].to_numpy()
    return StandardSums(
        float(part["weight"].to_numpy() @ rate),
        row["squares"],
        row[f"residuals{place}"],
        float(counts**2 @ part["n"].to_numpy()),
        worst_variance(rate, counts, part["squares"].to_numpy()),
        row[f"positive_squares{place}"],
        row["clusters"],
        row[f"negative{place}"],
    )


def standard_columns(sums: Sequence[StandardSums] | None, words: str, findings: int) -> list[Row]:
    """The columns STANDARDISED of each finding of a group; NaN for a group without evaluable units (None)."""
    if sums is None:
        return [dict(zip(STANDARDISED, (math.nan, math.nan, math.nan, words), strict=True))] * findings
    ends = [(one.share, one.interval.low, one.interval.high, words) for one in sums]
    return [dict(zip(STANDARDISED, row, strict=True)) for row in ends]
