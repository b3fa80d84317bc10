"""What became of vertebrae from one study to the next: normal, blastic, mixed, lytic."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spinemet.anatomy import LEVELS
from spinemet.cohort.follow_up import BESIDE, CALLED, check_groups
from spinemet.cohort.prevalence import SOURCE
from spinemet.cohort.views import asked, records
from spinemet.results.schemas import Row
from spinemet.statistics.correction import Errors
from spinemet.statistics.intervals import proportion_interval
from spinemet.statistics.transitions import corrected
from spinemet.types import BONE_QUALITY

if TYPE_CHECKING:
    import duckdb

_REGIONS = {"C": "cervical", "T": "thoracic", "L": "lumbar", "S": "sacral"}
_LEVEL = "(number >> 52) + 1"
GROUPS = {
    "level": f"{list(LEVELS)}[{_LEVEL}]",
    "region": f"{[_REGIONS[level[0]] for level in LEVELS]}[{_LEVEL}]",
    "sex": "coalesce(nullif(sex, ''), 'unknown')",
    "age_group": "coalesce(age_group, 'unknown')",
}
"""The columns that transitions can be grouped by, of the earlier study; and their words in SQL."""


def transitions(
    connection: duckdb.DuckDBPyConnection, by: Sequence[str] = (), errors: Errors | None = None
) -> pd.DataFrame:
    """One row per group, bone quality before and bone quality after: how many vertebrae of the one became the other.

    Each named level of a patient is followed from one day on which it is evaluable to the next such day, however long
    that takes. by: columns of GROUPS. errors: of vertebrae (`follow_up.vertebra_errors`).

    Columns: the groups, `before`, `after`, `n_patients` (with a vertebra of this quality before), `n_before` (such
    vertebrae), `n_after` (of those, this quality after), `share`, `ci_low`, `ci_high`, `interval` (patients are the
    clusters); with `errors` also `n_by_error` (the number if no vertebra truly changed), `corrected`, `corrected_low`,
    `corrected_high` (of the vertebrae truly so before, the share truly so after); then `events`, how these are known,
    and SOURCE. Raises BadInput for an unknown column.
    """
    check_groups(by, tuple(GROUPS))
    about = asked(connection)
    facts = "join placed on placed.place = (number >> 4) & 4294967295" if {"sex", "age_group"} & set(by) else ""
    names, words = "".join(f"{name}, " for name in by), "".join(f"{GROUPS[name]} as {name}, " for name in by)
    query = Path(__file__).with_suffix(".sql").read_text()
    levels = ", ".join(str(one) for one in zip(LEVELS, range(len(LEVELS)), strict=True))
    connection.execute(query.format(classes=list(BONE_QUALITY), levels=levels, words=words, facts=facts))
    # Patients with the same counts are one row, so that few rows leave the database.
    pairs = range(len(BONE_QUALITY) ** 2)
    columns = ", ".join(f"coalesce(sum(n) filter (pair = {pair}), 0)::bigint as n{pair}" for pair in pairs)
    patterns = connection.execute(
        f"select {names}{', '.join(f'n{pair}' for pair in pairs)}, count(*) as patients "
        f"from (select {names}person, {columns} from changes group by all) group by all order by all"
    ).df()
    groups = patterns.groupby(list(by), sort=True) if by else [((), patterns)] if len(patterns) else []
    rows: list[Row] = []
    for values, own in groups:
        rows += [dict(zip(by, values, strict=True)) | row for row in _rows(own, errors)]
    table = pd.DataFrame(rows, columns=[*by, *COUNTS, *(CORRECTED if errors else ())])
    return table.assign(events=BESIDE if errors else CALLED, **{name: about[name] for name in SOURCE})


COUNTS = ("before", "after", "n_patients", "n_before", "n_after", "share", "ci_low", "ci_high", "interval")
CORRECTED = ("n_by_error", "corrected", "corrected_low", "corrected_high")


def _rows(patterns: pd.DataFrame, errors: Errors | None) -> list[Row]:
    """The columns COUNTS and CORRECTED of one group."""
    classes = len(BONE_QUALITY)
    patients_Q = patterns["patients"].to_numpy(np.int64)
    patterns_QCC = patterns[[f"n{n}" for n in range(classes**2)]].to_numpy(np.int64).reshape(-1, classes, classes)
    right = corrected(patterns_QCC, patients_Q, errors) if errors else ()
    found: list[Row] = []
    for a, before in enumerate(BONE_QUALITY):
        of_Q = patterns_QCC[:, a].sum(axis=1)
        each_Q = np.repeat(of_Q, patients_Q)
        for b, after in enumerate(BONE_QUALITY):
            became_Q = patterns_QCC[:, a, b]
            total, became = int(of_Q @ patients_Q), int(became_Q @ patients_Q)
            interval = proportion_interval(np.repeat(became_Q, patients_Q), each_Q)
            counts: tuple[Any, ...] = (before, after, int(patients_Q[of_Q > 0].sum()), total, became)
            share = became / total if total else float("nan")
            row = dict(zip(COUNTS, (*counts, share, interval.low, interval.high, interval.method), strict=True))
            if right:
                share_CC, low_CC, high_CC, error_CC = right
                values = (error_CC[a, b], share_CC[a, b], low_CC[a, b], high_CC[a, b])
                row |= dict(zip(CORRECTED, map(float, values), strict=True))
            found.append(row)
    return found


def notes(connection: duckdb.DuckDBPyConnection, errors: Errors | None) -> list[str]:
    """Sentences that a reader of transitions has to know, besides those of any answer."""
    of = records(
        connection, "select coalesce(sum(n), 0)::bigint as n, count(distinct person) as patients from changes"
    )[0]
    found = [f"{of['n']} times a vertebra of {of['patients']} patients was followed from one study to the next."]
    if errors is None:
        return [*found, f"Bone quality is {CALLED}: an error in one study counts as a change."]
    return [
        *found,
        "Corrected as if errors were independent from study to study. A model that errs again and again on the same "
        "vertebra makes fewer false changes than that.",
    ]
