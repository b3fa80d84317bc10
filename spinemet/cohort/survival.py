"""How long patients stay free of lesions, from their first visit on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spinemet.cohort.follow_up import (
    BESIDE,
    CALLED,
    called_by_error,
    check_groups,
    open_visits,
    share_with_lesion,
)
from spinemet.cohort.prevalence import SOURCE
from spinemet.cohort.views import asked
from spinemet.statistics.hidden_lesions import CallErrors
from spinemet.statistics.intervals import FloatArray, percentile_interval
from spinemet.statistics.survival import Onsets, Windows, kaplan_meier

if TYPE_CHECKING:
    import duckdb

GROUPS = ("sex", "age_group")
"""The columns that survival can be grouped by: of the first visit."""
RESAMPLES, SEED, ROUGH = 100, 0, 1e-3
"""Of patients, for Turnbull's interval; how near a resample's fit comes to the best one (it moves the third digit)."""

LEAST_EVENTS = 5
"""With fewer patients that were seen to get a lesion, resamples of them tell nothing."""

COLUMNS = ("estimate", "day", "n_at_risk", "n_events", "free", "ci_low", "ci_high", "n_by_error", "events")


def survival(
    connection: duckdb.DuckDBPyConnection,
    at: Sequence[int] = (),
    by: Sequence[str] = (),
    errors: CallErrors | None = None,
) -> pd.DataFrame:
    """One row per group, estimate and day: the share of patients still free of a lesion, with its 95 % interval.

    at: days since the first visit; by default the days on which a first lesion was seen, or the last day if
    none was. by: columns of GROUPS.

    `kaplan_meier` and `turnbull` follow the patients whose first visit has no lesion and who came again. For Kaplan and
    Meier the lesion arises on the day it is seen, and patients leave at their last visit; Turnbull's estimate knows
    only that it arose since the visit before. Its interval resamples patients. With `errors` there is also
    `turnbull_corrected`, of all patients and all their visits: each visit may be called falsely, a lesion before the
    first visit is not counted, and resamples draw the errors too.

    Columns: the groups, `estimate`, `day`, `n_at_risk` (just before that day), `n_events` (up to it), `free`, `ci_low`,
    `ci_high` (NaN if nothing tells), `n_by_error` (events that errors alone would make in all; NaN without `errors`),
    `events`, how these are known, and SOURCE. Raises BadInput for an unknown column, and if dates hold no days.
    """
    check_groups(by, GROUPS)
    open_visits(connection)
    about = asked(connection)
    connection.execute(_FIRST.format(words="".join(f"{_WORDS[name]} as {name}, " for name in by)))
    names = "".join(f"{name}, " for name in by)
    windows = connection.execute(
        f"select {names}after, until, count(*) as n from first_lesions group by all order by {names}after, until"
    ).df()
    share = share_with_lesion(connection, errors) if errors else 0.0
    parts = []
    for values, own in _groups(windows, by):
        here = dict(zip(by, values, strict=True))
        days = _days(at, own)
        few = own["n"][own["until"] < np.inf].sum() < LEAST_EVENTS
        rows = [_kaplan_meier(own, days), _turnbull(own, days)]
        if errors:
            rows.append(_turnbull_corrected(_visits(connection, here), days, errors))
            alone = _by_error(connection, here, errors, share)
            rows = [part.assign(n_by_error=alone) for part in rows]
        if few:
            rows[1:] = [part.assign(ci_low=np.nan, ci_high=np.nan) for part in rows[1:]]
        parts += [part.assign(**here) for part in rows]
    table = pd.concat(parts) if parts else pd.DataFrame()
    table["events"] = BESIDE if errors else CALLED
    source = {name: about[name] for name in SOURCE}
    return table.reindex(columns=[*by, *COLUMNS]).assign(**source).reset_index(drop=True)


_WORDS = {
    "sex": "coalesce(nullif(arg_min(sex, day), ''), 'unknown')",
    "age_group": "coalesce(arg_min(age_group, day), 'unknown')",
}
_FIRST = """
    -- One row per patient: the days from the first visit to the last one before a lesion and to the first one with it.
    create or replace temp table firsts as
    select {words}patient, min(day) as first_day, max(day) as last_day, min(day) filter (has_lesion) as lesion_day,
        count(*) as visits
    from visits where day is not null group by patient;
    create or replace temp view first_lesions as
    select f.* exclude (first_day, last_day, lesion_day),
        (coalesce(before, last_day) - first_day)::double as after,
        coalesce((lesion_day - first_day)::double, 'infinity'::double) as until
    from firsts f left join (
        select patient, max(v.day) as before from visits v join firsts using (patient)
        where v.day < lesion_day group by patient
    ) using (patient)
    where visits > 1 and lesion_day is distinct from first_day
"""


def _days(at: Sequence[int], windows: pd.DataFrame) -> FloatArray:
    """The days asked about; else those on which a first lesion was seen, or the last day of all if none was."""
    seen = windows["until"][np.isfinite(windows["until"])]
    return np.unique(np.asarray(at if len(at) else seen if len(seen) else [windows["after"].max()], np.float64))


def _groups(windows: pd.DataFrame, by: Sequence[str]) -> list[tuple[Any, pd.DataFrame]]:
    if not by:
        return [((), windows)] if len(windows) else []
    return [(values, own) for values, own in windows.groupby(list(by), sort=True)]


def _kaplan_meier(windows: pd.DataFrame, days: FloatArray) -> pd.DataFrame:
    count, has = windows["n"].to_numpy(), np.isfinite(windows["until"].to_numpy())
    on, place = np.unique(np.where(has, windows["until"], windows["after"]), return_inverse=True)
    found = kaplan_meier(on, np.bincount(place, count * has), np.bincount(place, count * ~has)).at(days)
    return _rows("kaplan_meier", days, found.free_T, found.low_T, found.high_T).assign(
        n_at_risk=found.at_risk_T, n_events=found.events_T
    )


def _turnbull(own: pd.DataFrame, days: FloatArray) -> pd.DataFrame:
    windows = Windows.of(own["after"], own["until"])
    count = own["n"].to_numpy(np.float64)
    best = windows.fit(count)
    draws = np.random.default_rng(SEED).multinomial(int(count.sum()), count / count.sum(), RESAMPLES)
    return _resampled("turnbull", days, best, [windows.fit(one, best, ROUGH) for one in draws])


def _turnbull_corrected(visits: pd.DataFrame, days: FloatArray, errors: CallErrors) -> pd.DataFrame:
    rng = np.random.default_rng(SEED)
    patients = int(visits["patient"].max())
    windows = _windows(visits, errors)
    best = windows.fit(np.ones(patients), gap=ROUGH / 10)
    fits = []
    for _ in range(RESAMPLES):
        drawn = CallErrors(
            rng.beta(errors.sensitivity * errors.with_lesion, (1 - errors.sensitivity) * errors.with_lesion),
            rng.beta(errors.specificity * errors.without, (1 - errors.specificity) * errors.without),
            errors.with_lesion,
            errors.without,
        )
        count = rng.multinomial(patients, np.full(patients, 1 / patients))
        fits.append(_windows(visits, drawn).fit(count, best, ROUGH))
    return _resampled("turnbull_corrected", days, best, fits)


def _windows(visits: pd.DataFrame, errors: CallErrors) -> Windows:
    """Every patient's windows: before the first visit, between two, after the last; weighed by the calls.

    visits: `patient` from 1, `day` since the first, `has_lesion`; in the order of patients and days.
    """
    patient, called = visits["patient"].to_numpy() - 1, visits["has_lesion"].to_numpy(bool)
    day = visits["day"].to_numpy(np.float64)
    free = np.log(np.where(called, 1 - errors.specificity, errors.specificity))
    ill = np.log(np.where(called, errors.sensitivity, 1 - errors.sensitivity))
    first = np.append(True, patient[1:] != patient[:-1])
    last = np.append(first[1:], True)
    # In the window that ends at a visit: the visits before it are free, this and all later ones are not.
    prior = np.append(0.0, np.cumsum(free - ill)[:-1])
    before = prior - prior[first][patient]
    all_ill = np.bincount(patient, ill)[patient]
    weight, all_free = np.exp(before + all_ill), np.exp(np.bincount(patient, free))
    after = np.where(first, -np.inf, np.append(0.0, day[:-1]))
    return Windows(
        np.concatenate([patient, patient[last]]),
        np.concatenate([after, day[last]]),
        np.concatenate([day, np.full(int(last.sum()), np.inf)]),
        np.concatenate([weight, all_free]),
    )


def _resampled(name: str, days: FloatArray, best: Onsets, fits: Sequence[Onsets]) -> pd.DataFrame:
    free_T = best.free_after(days)
    free_BT = np.array([one.free_after(days) for one in fits])
    ends = [percentile_interval(float(free), free_BT[:, n]) for n, free in enumerate(free_T)]
    low, high = np.array(ends).reshape(-1, 2).T
    told = (low < high) | np.isnan(low)
    return _rows(name, days, free_T, np.where(told, low, np.nan), np.where(told, high, np.nan))


def _rows(name: str, days: FloatArray, free: FloatArray, low: FloatArray, high: FloatArray) -> pd.DataFrame:
    return pd.DataFrame({"estimate": name, "day": days.astype(np.int64), "free": free, "ci_low": low, "ci_high": high})


def _visits(connection: duckdb.DuckDBPyConnection, here: dict[str, str]) -> pd.DataFrame:
    """All visits of the patients of one group, for `_windows`."""
    where = " and ".join(f"{name} = ?" for name in here) or "true"
    query = f"""
        select dense_rank() over (order by patient) as patient, day - first_day as day, has_lesion
        from visits join (select patient, first_day from firsts where {where}) using (patient)
        where day is not null order by visits.patient, visits.day
    """
    return connection.execute(query, list(here.values())).df()


def _by_error(connection: duckdb.DuckDBPyConnection, here: dict[str, str], errors: CallErrors, share: float) -> float:
    """Events that the errors alone would make among the patients followed."""
    where = " and ".join(f"{name} = ?" for name in here) or "true"
    steps = connection.execute(
        f"select negatives, count(*) as n from steps semi join (from first_lesions where {where}) using (patient) "
        "where positives = 0 group by all",
        list(here.values()),
    ).df()
    chances = [called_by_error(errors, share, negatives, 0) for negatives in steps["negatives"]]
    return float(steps["n"] @ np.asarray(chances, np.float64)) if chances else 0.0
