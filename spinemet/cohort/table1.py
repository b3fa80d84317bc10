"""The characteristics of the patients or studies of a population, and what is missing: the first table of a paper."""

from __future__ import annotations

import math

import duckdb
import pandas as pd

from spinemet.cohort.grouping import check_groups, with_source
from spinemet.cohort.prevalence import GROUPS, group_order
from spinemet.cohort.views import asked, held, records
from spinemet.errors import BadInput
from spinemet.results.schemas import Row
from spinemet.statistics import standardised

UNITS = {"patient": "person", "study": "place"}
OF_STUDIES = tuple(name for name in GROUPS if name not in {"level", "region"})
"""The columns that a table can be grouped by."""

NUMBERS: dict[str, str] = {
    "age": "age",
    "slice_spacing_mm": "slice_spacing_mm",
    "kvp": "kvp",
    "levels_imaged": "levels_imaged",
    "levels_evaluable": "levels_evaluable",
    "studies": "of_person.studies",
    "years_followed": "of_person.years",
}
CATEGORIES: dict[str, str] = {
    **{name: GROUPS[name] for name in ("sex", "age_group", "year", "manufacturer", "contrast", "localizer")},
    "lesion": "case when not is_evaluable then null when has_lesion then 'called' else 'not called' end",
}
"""What is described: name -> its words in SQL. `studies` and `years_followed` are of patients only."""

_ORDER = (
    "all",
    "sex",
    "age",
    *(name for name in CATEGORIES if name != "sex"),
    *(name for name in NUMBERS if name != "age"),
)

COLUMNS = ("variable", "category", "n", "share", "mean", "sd", "median", "q25", "q75", "n_missing", "smd")


def table1(connection: duckdb.DuckDBPyConnection, by: str = "", unit: str = "patient") -> pd.DataFrame:
    """One row per characteristic and category: counts and shares, or mean, SD and quartiles, and how many are missing.

    connection: from `open_cohort`. unit: `patient`, described by the study of the population that counts first (the
    latest, or the first, as the population says), or `study`. by: a column of OF_STUDIES; each of its values is then
    described apart, and with two known values `smd` is their standardised mean difference.

    Columns: `group` if grouped, `variable`, `category` (empty for a number), `n` (units with the category or a number),
    `share` (of the units of which the variable is known), `mean`, `sd`, `median`, `q25`, `q75`, `n_missing`, `smd`, and
    SOURCE. The variable `all` counts the units. `lesion`: whether a counted vertebra of the unit is called positive.
    The calendar year is left out if the dates are shifted, the years followed up if they keep the year only.
    """
    if by and by not in OF_STUDIES:
        raise BadInput(f"expected one column out of {', '.join(OF_STUDIES)} to group by, found {by}.")
    if unit not in UNITS:
        raise BadInput(f"expected one of {', '.join(UNITS)} as unit, found {unit}.")
    check_groups(connection, [by] if by else [])
    policy = asked(connection)["date_policy"]
    left_out = {by, "year" if policy == "shifted" else "", "years_followed" if policy == "year" else ""}
    left_out |= set() if unit == "patient" else {"studies", "years_followed"}
    numbers = [name for name in NUMBERS if name not in left_out]
    categories = [name for name in CATEGORIES if name not in left_out]
    _describe(connection, by, unit)
    parts = [_query("all", "'' as category, count(*) as n, 1.0 as share, 0 as n_missing", "unit group by all")]
    parts += [_of_number(name) for name in numbers] + [_of_category(name) for name in categories]
    found = records(connection, " union all by name ".join(parts))
    groups = group_order(by, {row["group"] for row in found}) if by else ["all"]
    found.sort(key=lambda row: (groups.index(row["group"]), _ORDER.index(row["variable"]), _rank(row)))
    table = pd.DataFrame(found, columns=["group", *COLUMNS])
    table["smd"] = table["variable"].map(_differences(found, [g for g in groups if g != "unknown"]))
    return with_source(connection, table if by else table.drop(columns="group"))


def _describe(connection: duckdb.DuckDBPyConnection, by: str, unit: str) -> None:
    """Make the table `unit`: one row per unit, with its group and every characteristic."""
    key = UNITS[unit]
    seen = held(connection, "seen_in_study" if unit == "study" else "seen")
    columns = ", ".join(f"{words} as {name}" for name, words in (NUMBERS | CATEGORIES).items())
    connection.execute(
        f"""create or replace temp table unit as
        with counting as (
            select * from placed where left_as is null
            {"qualify row_number() over (partition by person order by place) = 1" if unit == "patient" else ""}
        ), of_person as (
            select person, count(*) as studies, date_diff('day', min(study_date), max(study_date)) / 365.25 as years
            from placed where left_as is null group by person
        ), judged as (
            select {key}, bool_or(evaluable) as is_evaluable, bool_or(evaluable and called <> 'normal') as has_lesion
            from {seen} group by {key}
        )
        select {f"coalesce(nullif(({GROUPS[by]})::varchar, ''), 'unknown')" if by else "'all'"} as "group", {columns}
        from counting
        join (select source_key, wave, slice_spacing_mm, kvp, levels_imaged, levels_evaluable from studies) s
        using (source_key, wave)
        join of_person using (person) left join judged using ({key})"""
    )


def _query(variable: str, columns: str, rest: str) -> str:
    return f"""select "group", '{variable}' as variable, {columns} from {rest}"""


def _of_number(name: str) -> str:
    return _query(
        name,
        f"'' as category, count({name}) as n, avg({name}) as mean, stddev_samp({name}) as sd, "
        f"quantile_cont({name}, 0.5) as median, quantile_cont({name}, 0.25) as q25, "
        f"quantile_cont({name}, 0.75) as q75, count(*) - count({name}) as n_missing",
        "unit group by all",
    )


def _of_category(name: str) -> str:
    known = 'sum(n) filter (category is not null) over (partition by "group")'
    missing = 'coalesce(sum(n) filter (category is null) over (partition by "group"), 0)'
    counts = f"(select \"group\", nullif({name}, '') as category, count(*) as n from unit group by all)"
    rows = f"(select *, {known} as known, {missing} as missing from {counts})"
    return _query(
        name,
        "coalesce(category, '') as category, if(category is null, 0, n) as n, n / known as share, missing as n_missing",
        f"{rows} where category is not null or known is null",
    )


def _rank(row: Row) -> tuple[int, str]:
    """Categories by number (`0-9` before `10-19`), others by name."""
    start = row["category"].partition("-")[0].rstrip("+")
    return (int(start) if start.isdecimal() else 0, row["category"])


def _differences(rows: list[Row], groups: list[str]) -> dict[str, float]:
    """Variable -> the standardised difference of two groups; of more or fewer nothing."""
    groups = [group for group in groups if any(row["group"] == group for row in rows)]
    if len(groups) != 2:
        return {}
    found: dict[str, float] = {}
    for name in {row["variable"] for row in rows} - {"all"}:
        of = [row for row in rows if row["variable"] == name]
        if name in NUMBERS:
            one, two = (next(row for row in of if row["group"] == group) for group in groups)
            known = all(row["sd"] is not None for row in (one, two))
            found[name] = (
                standardised.of_means((one["mean"], two["mean"]), (one["sd"], two["sd"])) if known else math.nan
            )
        else:
            names = sorted({row["category"] for row in of} - {""})
            counts = {(row["group"], row["category"]): row["n"] for row in of}
            found[name] = standardised.of_shares([[counts.get((group, one), 0) for one in names] for group in groups])
    return found
