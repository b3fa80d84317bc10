"""What measures with groups share: the words of a group in SQL, their order, and the columns at the end."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pandas as pd

from spinemet.cohort.prevalence import GROUPS, SOURCE, group_order
from spinemet.cohort.views import asked, held, refuse_calendar
from spinemet.errors import BadInput


def check_groups(connection: duckdb.DuckDBPyConnection, by: Sequence[str]) -> None:
    """Raise BadInput for an unknown or doubled column to group by, and for years if the dates are shifted."""
    unknown = [name for name in by if name not in GROUPS]
    if unknown:
        raise BadInput(f"expected columns out of {', '.join(GROUPS)} to group by, found {', '.join(unknown)}.")
    if len(set(by)) < len(by):
        raise BadInput(f"expected each column to group by once, found {', '.join(by)}.")
    if "year" in by:
        refuse_calendar(asked(connection)["date_policy"])


def words(by: Sequence[str]) -> str:
    """The columns `by` for a SELECT over `brief_…` and `placed`, each with a comma behind; missing is `unknown`."""
    return "".join(f"coalesce(nullif(({GROUPS[name]})::varchar, ''), 'unknown') as {name}, " for name in by)


def counted_in(connection: duckdb.DuckDBPyConnection, by: Sequence[str]) -> str:
    """The vertebrae that count for groups by `by`, with the facts of their studies; for a FROM."""
    return f"{held(connection, 'seen_in_year' if 'year' in by else 'seen')} join placed using (place, person)"


def in_order(table: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """`table` with its groups in the order in which a reader expects them."""
    for name in by:
        table[name] = pd.Categorical(table[name], group_order(name, set(table[name])), ordered=True)
    return table.sort_values(list(by), kind="stable") if by else table


def with_source(connection: duckdb.DuckDBPyConnection, table: pd.DataFrame) -> pd.DataFrame:
    """`table` with the columns SOURCE at the end: what it is about, so that it can be asked again."""
    about = asked(connection)
    return table.assign(**{name: about[name] for name in SOURCE}).reset_index(drop=True)
