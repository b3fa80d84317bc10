"""From the archive to the evaluable vertebrae: what is left after each step, what left at it, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from spinemet.cohort.views import held, records
from spinemet.errors import Reason

if TYPE_CHECKING:
    import duckdb

STEPS: dict[str, str] = {
    "no_outcome": "not screened yet",
    "copy": "copies of a study already counted",
    "excluded": "excluded: sound, does not qualify",
    "failed": "failed: broke while being read",
    "no_patient_key": "without a patient key",
    "trained_on": "of patients that the model was trained or validated on",
    "no_date": "without a date, which the question needs",
    "outside_period": "outside the period",
    "not_selected": "not selected by the condition",
    "no_vertebra": "no vertebra found",
    "follow_up": "the same level counted from another study",
    "unnamed": "unnamed, perhaps a level counted from another study",
    "cut": "cut by the field of view",
    "unsure": "whole, the call is unsure",
    "unclassified": "whole, not classified",
}
"""What leaves, step by step, in the order of the flow."""

SCREENED, POPULATION, IMAGED, EVALUABLE = "failed", "not_selected", "unnamed", "unclassified"
"""The steps after which the screened studies, the population, the vertebrae in view and the evaluable ones remain."""


@dataclass(frozen=True)
class Count:
    """Studies, patients (of studies with a patient key) and vertebrae of screened studies."""

    studies: int
    patients: int
    vertebrae: int

    def __sub__(self, other: Count) -> Count:
        return Count(self.studies - other.studies, self.patients - other.patients, self.vertebrae - other.vertebrae)


@dataclass(frozen=True)
class StudyFlow:
    """The flow of one population.

    start: the ledger's studies (every copy) and those that the archive holds beyond them. after: step of STEPS -> what
    is left after it. left: step -> what left at it, counted by itself: a study leaves with its last vertebra, a patient
    with the last study. excluded, failed: reason to number of studies, most frequent first. listed_whole: whether the
    last listing covered the whole archive; if not, the number of studies not screened yet is unknown and 0 here.
    positive: vertebrae of the evaluable that the rule calls positive.
    """

    start: Count
    after: Mapping[str, Count]
    left: Mapping[str, Count]
    excluded: Mapping[Reason, int]
    failed: Mapping[Reason, int]
    listed_whole: bool
    positive: Count

    def table(self) -> pd.DataFrame:
        """One row per step: what left at it (`…_out`) and what is left after it."""
        rows = [("in the archive", Count(0, 0, 0), self.start)]
        rows += [(words, self.left[step], self.after[step]) for step, words in STEPS.items()]
        return pd.DataFrame(
            [
                {"step": words}
                | {f"{name}_out": value for name, value in vars(out).items()}
                | vars(rest)
                for words, out, rest in rows
            ]
        )  # fmt: skip


def study_flow(connection: duckdb.DuckDBPyConnection) -> StudyFlow:
    """The flow of the population of a connection from `open_cohort`."""
    connection.execute(Path(__file__).with_suffix(".sql").read_text().format(seen=held(connection, "seen")))
    stays = len(STEPS)
    places = ", ".join(f"'{step}': {place}" for place, step in enumerate(STEPS))
    # Of a study the last vertebra that leaves decides, of a patient the last study.
    connection.execute(
        f"create or replace temp table flow_places as select *, coalesce(map {{{places}}}[left_as], {stays}) as place"
        " from flow_rows"
    )
    vertebrae = _by_place(connection, "select place, sum(vertebrae)::bigint as n from flow_places group by all")
    studies = _by_place(connection, _last("study"))
    patients = _by_place(connection, _last("person", "where person is not null"))
    waiting, whole = _waiting(connection)
    studies[0] = waiting
    rest = Count(sum(studies.values()), sum(patients.values()), sum(vertebrae.values()))
    start, after, left = rest, {}, {}
    for place, step in enumerate(STEPS):
        left[step] = Count(studies.get(place, 0), patients.get(place, 0), vertebrae.get(place, 0))
        after[step] = rest = rest - left[step]
    positive = records(
        connection,
        "select count(distinct place) as studies, count(distinct person) as patients, count(*) as vertebrae"
        f" from {held(connection, 'seen')} where is_distinct and evaluable and called <> 'normal'",
    )[0]
    return StudyFlow(
        start=start,
        after=after,
        left=left,
        excluded=_reasons(connection, "excluded"),
        failed=_reasons(connection, "failed"),
        listed_whole=whole,
        positive=Count(**positive),
    )


def _last(key: str, where: str = "") -> str:
    last = f"select max(place) as place from flow_places {where} group by {key}"
    return f"select place, count(*) as n from ({last}) group by all"


def _by_place(connection: duckdb.DuckDBPyConnection, query: str) -> dict[int, int]:
    return {row["place"]: row["n"] for row in records(connection, query)}


def _waiting(connection: duckdb.DuckDBPyConnection) -> tuple[int, bool]:
    """Studies of the archives that have no row in the ledger, and whether every archive was listed as a whole.

    Only a run that was done, without a limit and without a selection, has listed an archive as a whole.
    """
    archives = records(
        connection,
        """with own as (
            select r.* from runs r, asked a where r.model_digest = a.model and r.config_digest = a.configuration
        ), whole as (
            select archive_key, arg_max(listed, started_at) as listed from own
            where state = 'done' and listed is not null and study_limit is null and not coalesce(chosen, false)
            group by all
        ), done as (
            select archive_key, count(*) as n from studies s join own r using (run_id)
            where s.model_digest = r.model_digest and s.config_digest = r.config_digest group by all
        )
        select w.listed, coalesce(d.n, 0) as n from (select distinct archive_key from own) a
        left join whole w using (archive_key) left join done d using (archive_key)""",
    )
    known = [row for row in archives if row["listed"] is not None]
    return sum(max(row["listed"] - row["n"], 0) for row in known), len(known) == len(archives)


def _reasons(connection: duckdb.DuckDBPyConnection, state: str) -> dict[Reason, int]:
    query = "select reason, count(*) as n from accounted where left_as = ? group by reason order by 2 desc, 1"
    return {Reason(row["reason"]): row["n"] for row in records(connection, query, [state])}
