"""How often patients who were seen without a lesion get one, per time at risk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spinemet.cohort.follow_up import (
    BESIDE,
    CALLED,
    GROUPS,
    called_by_error,
    check_groups,
    open_visits,
    share_with_lesion,
)
from spinemet.cohort.prevalence import SOURCE
from spinemet.cohort.views import asked, refuse_calendar
from spinemet.errors import BadInput
from spinemet.statistics.hidden_lesions import NOT_SEEN, CallErrors, Histories, rates
from spinemet.statistics.rates import DAYS_PER_YEAR, rate, rate_interval

if TYPE_CHECKING:
    import duckdb

_PIECES = """
    create or replace temp view {name} as
    select {words}patient, negatives, positives, {days} as days, {ends} and becomes as event,
        {ends} and newly_in_view as newly_in_view, {ends} as ends, until_day, becomes
    from {source} {years}
"""
_WORDS = {"sex": "coalesce(nullif(sex, ''), 'unknown')", "age_group": "coalesce(age_group, 'unknown')"}


def incidence(
    connection: duckdb.DuckDBPyConnection,
    by: Sequence[str] = (),
    washout: int | None = None,
    repeated: bool = False,
    errors: CallErrors | None = None,
) -> pd.DataFrame:
    """One row per group: events, person-time and events per 100,000 person-years with the exact 95 % interval.

    A patient is at risk from a visit without a lesion until the next visit, if no lesion was called in the `washout`
    days before (None: at any earlier visit). An event is a visit with a lesion that ends a time at risk; it counts on
    its own day, although the lesion arose at some time after the visit before. After the last visit nothing counts.
    repeated: whether a patient can have a further event after a washout; else time ends with the first. by: columns of
    GROUPS. Time is shared out over calendar years to the day; sex and age group are those of the visit that it follows.

    Columns: the groups, `n_patients` (at risk), `n_events`, `n_newly_in_view` (events at named levels none of which was
    evaluable before: perhaps no new lesions), `person_days`, `person_years`, `incidence`, `ci_low`, `ci_high`; with
    `errors` also `n_by_error` (events that the model's errors alone would make), `corrected`, `corrected_low`,
    `corrected_high` (`hidden_lesions.rates`; NaN if too few to tell); then `events`, how these are known, and SOURCE.

    Raises BadInput for an unknown column, for years if dates are shifted, if dates hold no days, if `repeated` lacks a
    washout, and for a washout or repeated events with `errors`: lesions are then taken to last.
    """
    check_groups(by, GROUPS)
    about = asked(connection)
    if "year" in by:
        refuse_calendar(about["date_policy"])
    if repeated and washout is None:
        raise BadInput(
            "repeated events need a washout: give --washout DAYS, the time without a lesion before an event."
        )
    if errors and washout is not None:
        raise BadInput(
            "corrected incidence is that of the first lesion, because a lesion is taken to last: leave out the "
            "washout, or the evaluation, and give --uncorrected."
        )
    open_visits(connection)
    _define_risk(connection, by, washout, repeated)
    table = connection.execute(_counts(by)).df()
    years = table["person_days"] / DAYS_PER_YEAR
    low, high = rate_interval(table["n_events"], years)
    table = table.assign(person_years=years, incidence=rate(table["n_events"], years), ci_low=low, ci_high=high)
    if errors:
        table = _corrected(connection, table, by, errors)
    source = {name: about[name] for name in SOURCE}
    return table.assign(events=BESIDE if errors else CALLED, **source)


def _define_risk(connection: duckdb.DuckDBPyConnection, by: Sequence[str], washout: int | None, repeated: bool) -> None:
    """The view `risk`: one row per piece of time at risk, with its group."""
    free = "last_lesion is null" if washout is None else f"coalesce(day - last_lesion >= {int(washout)}, true)"
    before = "partition by patient order by day rows between unbounded preceding and 1 preceding"
    first = "" if repeated else f"qualify coalesce(bool_or(becomes) over ({before}), false) = false"
    connection.execute(
        f"create or replace temp view at_risk as select * from steps where not has_lesion and {free} {first}"
    )
    connection.execute(_pieces("risk", "at_risk", by))


def _pieces(name: str, source: str, by: Sequence[str]) -> str:
    """SQL for a view of the steps in `source`, cut at the turn of the year if `by` has the year."""
    words = "".join(f"{_WORDS.get(one, 'of_year::varchar')} as {one}, " for one in by)
    if "year" not in by:
        return _PIECES.format(name=name, words=words, days="until_day - day", ends="true", source=source, years="")
    days = "least(until_day, make_date(of_year, 12, 31)) - greatest(day, make_date(of_year - 1, 12, 31))"
    years = f", unnest(generate_series(year(day), year(until_day))) as years(of_year) where {days} > 0"
    return _PIECES.format(
        name=name, words=words, days=days, ends="of_year = year(until_day)", source=source, years=years
    )


def _counts(by: Sequence[str]) -> str:
    names = "".join(f"{name}, " for name in by)
    return f"""
        with patients as (
            select {names}patient, count(*) filter (event) as events, sum(days) as days,
                count(*) filter (newly_in_view) as newly
            from risk group by all
        )
        select {names}count(*) as n_patients, coalesce(sum(events), 0)::bigint as n_events,
            coalesce(sum(newly), 0)::bigint as n_newly_in_view, coalesce(sum(days), 0)::bigint as person_days
        from patients {f"group by all order by {', '.join(by)}" if by else ""}
    """


def _corrected(
    connection: duckdb.DuckDBPyConnection, table: pd.DataFrame, by: Sequence[str], errors: CallErrors
) -> pd.DataFrame:
    """`table` with the events of the errors alone, and the rates behind the calls."""
    names = list(by)
    histories, groups = _histories(connection, by)
    found = [vars(one) for one in rates(histories, errors)]
    per = 100_000 * DAYS_PER_YEAR
    ends = ("corrected", "corrected_low", "corrected_high")
    rows = pd.DataFrame([dict(zip(ends, (per * value for value in one.values()), strict=True)) for one in found])
    columns = "".join(f"{name}, " for name in by)
    share = share_with_lesion(connection, errors)
    seen = connection.execute(
        f"select {columns}negatives, positives, count(*) filter (ends) as n from risk group by all"
    ).df()
    chances = [called_by_error(errors, share, *one) for one in zip(seen["negatives"], seen["positives"], strict=True)]
    seen["n_by_error"] = seen["n"] * np.asarray(chances, np.float64)
    if not names:
        first = rows.iloc[0] if len(rows) else dict.fromkeys(ends, np.nan)
        return table.assign(n_by_error=seen["n_by_error"].sum(), **{name: first[name] for name in ends})
    expected = seen.groupby(names, as_index=False)["n_by_error"].sum()
    corrected = pd.concat([groups[names].reset_index(drop=True), rows], axis=1)
    return table.merge(expected, on=names, how="left").merge(corrected, on=names, how="left")


def _histories(connection: duckdb.DuckDBPyConnection, by: Sequence[str]) -> tuple[Histories, pd.DataFrame]:
    """The visits of all patients, and the groups in the order of their numbers."""
    connection.execute(_pieces("all_pieces", "steps", by))
    columns = "".join(f"{name}, " for name in by)
    first = "".join(f"{_WORDS.get(name, 'year(day)::varchar')} as {name}, " for name in by)
    part = "year" if "year" in by else "''"
    query = f"""
        with pieces as (
            select {first}patient, 0 as days, has_lesion::int as called, day as until_day, '' as part
            from visits where day is not null
            qualify row_number() over (partition by patient order by day) = 1
            union all
            select {columns}patient, days, if(ends, becomes::int, {NOT_SEEN}), until_day, {part}
            from all_pieces
        )
        select {columns}dense_rank() over (order by patient) as patient, days, called,
            {f"dense_rank() over (order by {', '.join(by)}) - 1" if by else "0"} as number
        from pieces order by pieces.patient, until_day, part
    """
    rows = connection.execute(query).df()
    groups = rows.drop_duplicates("number").sort_values("number")
    return Histories(rows["patient"], rows["days"], rows["called"], rows["number"]), groups
