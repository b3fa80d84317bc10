"""Two groups, or two populations, side by side: how far a finding's proportions differ."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import numpy as np
import pandas as pd

from spinemet.cohort.evaluated import ANY
from spinemet.cohort.grouping import check_groups, counted_in, with_source, words
from spinemet.cohort.prevalence import findings
from spinemet.cohort.views import asked
from spinemet.errors import BadInput
from spinemet.results.schemas import Row
from spinemet.statistics.clusters import difference, ratio
from spinemet.statistics.intervals import proportion_interval
from spinemet.types import BONE_QUALITY

UNITS = ("vertebra", "patient")


def compare(
    connection: duckdb.DuckDBPyConnection,
    column: str,
    values: Sequence[str],
    unit: str = "patient",
) -> pd.DataFrame:
    """One row per finding of bone quality: its proportion where `column` has the first value and the second, compared.

    connection: from `open_cohort`. column: one of GROUPS. values: two of its values. unit: `vertebra`, or `patient`
    (positive with at least one positive vertebra in the group). A patient may have vertebrae in both groups.

    Columns: `finding`; for `first` and `second` the value, `n_patients_…`, `n_evaluable_…`, `n_positive_…`,
    `prevalence_…`, `low_…`, `high_…`; `difference` (second less first) and `ratio` (second over first), each with
    `…_low` and `…_high`; `interval`: `clustered_t`, or `too_few` if fewer than five patients have, or lack, the
    finding on one side; and SOURCE. Raises BadInput for an unknown column, value or unit, and for years if the dates
    are shifted.
    """
    check_groups(connection, [column])
    if len(values) != 2 or values[0] == values[1]:
        raise BadInput(f"expected two different values of {column}, found {', '.join(values)}.")
    counts = _counts(connection, [column], unit)
    known = sorted(set(counts[column]))
    missing = [value for value in values if value not in known]
    if missing:
        raise BadInput(f"expected values of {column} out of {', '.join(known)}, found {', '.join(missing)}.")
    sides = [counts[counts[column] == value] for value in values]
    return with_source(connection, _compared(sides, values, findings(connection)))


def compare_populations(
    first: duckdb.DuckDBPyConnection, second: duckdb.DuckDBPyConnection, unit: str = "patient"
) -> pd.DataFrame:
    """The columns of `compare` for two populations of the same tables, named by their digests.

    SOURCE is that of the first. A patient in both is one patient. Raises BadInput if their models or rules differ: then
    the difference would be one of the readers, which `agreement` shows.
    """
    one, other = asked(first), asked(second)
    if any(one[name] != other[name] for name in ("model", "configuration", "rule")):
        raise BadInput(
            "expected two populations with the same model, configuration and rule; `agreement` compares readers."
        )
    sides = [_counts(connection, [], unit, by_key=True) for connection in (first, second)]
    return with_source(first, _compared(sides, (one["population"], other["population"]), findings(first)))


def _counts(
    connection: duckdb.DuckDBPyConnection, by: Sequence[str], unit: str, *, by_key: bool = False
) -> pd.DataFrame:
    """One row per group and patient with evaluable units: `patient`, `n`, and the positives of each finding.

    by_key: `patient` is the key, which two connections share, not this one's number.
    """
    if unit not in UNITS:
        raise BadInput(f"expected one of {', '.join(UNITS)} as unit, found {unit}.")
    names = ", ".join(
        f"count(*) filter (called {f'<> {BONE_QUALITY[0]!r}' if name == ANY else f'= {name!r}'}) as {name}"
        for name in (ANY, *BONE_QUALITY[1:])
    )
    distinct = "and is_distinct" if unit == "vertebra" else ""
    query = f"""
        select {words(by)}person as patient, count(*) as n, {names}
        from {counted_in(connection, by)} where evaluable {distinct} group by all
    """
    if by_key:
        query = f"""with counted as ({query}), keys as (
            select person, any_value(patient_key) as key from placed join studies using (source_key, wave)
            where left_as is null group by person
        )
        select counted.* replace (key as patient) from counted join keys on person = patient"""
    counts = connection.execute(query).df()
    if unit == "patient":
        numbers = ["n", ANY, *BONE_QUALITY[1:]]
        counts[numbers] = counts[numbers].clip(upper=1)
    return counts


def _compared(sides: Sequence[pd.DataFrame], values: Sequence[str], names: Sequence[str]) -> pd.DataFrame:
    joined = sides[0].merge(sides[1], "outer", on="patient", suffixes=("_1", "_2"))
    n_P2 = joined[["n_1", "n_2"]].fillna(0).to_numpy(np.float64)
    rows: list[Row] = []
    for finding in names:
        x_P2 = joined[[f"{finding}_1", f"{finding}_2"]].fillna(0).to_numpy(np.float64)
        row: Row = {"finding": finding}
        for place, side in enumerate(("first", "second")):
            n, x = n_P2[:, place], x_P2[:, place]
            alone = proportion_interval(x, n)
            row |= {
                side: values[place],
                f"n_patients_{side}": int((n > 0).sum()),
                f"n_evaluable_{side}": int(n.sum()),
                f"n_positive_{side}": int(x.sum()),
                f"prevalence_{side}": x.sum() / n.sum() if n.sum() else np.nan,
                f"low_{side}": alone.low,
                f"high_{side}": alone.high,
            }
        for name, found in (("difference", difference(x_P2, n_P2)), ("ratio", ratio(x_P2, n_P2))):
            row |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
        rows.append(row | {"interval": "too_few" if np.isnan(row["difference_low"]) else "clustered_t"})
    return pd.DataFrame(rows)
