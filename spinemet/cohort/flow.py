"""From the archive to the evaluable vertebrae: the number left out at each step, and the reasons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spinemet.errors import Reason

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True)
class StudyFlow:
    """Counts of studies, then of vertebrae, each step a part of the one before.

    waiting: studies that the last planning saw in the archive and that have no ledger row. duplicates: rows of a study
    that lies more than once in the archive. excluded, failed: reason to number of studies, most frequent first.
    imaged, cut, unsure, unclassified, evaluable, positive: vertebrae, one per patient and level (see cohort.views).
    """

    waiting: int
    seen: int
    duplicates: int
    excluded: Mapping[Reason, int]
    failed: Mapping[Reason, int]
    screened: int
    patients: int
    imaged: int
    cut: int
    unsure: int
    unclassified: int
    evaluable: int
    positive: int
    positive_patients: int


def study_flow(connection: duckdb.DuckDBPyConnection) -> StudyFlow:
    """The flow of the studies in the view `current` of a connection from `open_cohort`."""
    seen, screened, patients = _one(
        connection,
        "select count(*), count(*) filter (state = 'screened'),"
        " count(distinct patient) filter (state = 'screened') from current",
    )
    rows, listed = _one(
        connection,
        "with made_with as (select distinct model_digest, config_digest from current) select"
        " (select count(*) from studies semi join made_with using (model_digest, config_digest)),"
        " (select coalesce(arg_max(listed, started_at), 0) from runs"
        "  semi join made_with using (model_digest, config_digest) where listed is not null)",
    )
    imaged, cut, unsure, evaluable, positive, positive_patients = _one(
        connection,
        "select count(*), count(*) filter (completeness = 'cut' and not evaluable), "
        " count(*) filter (completeness = 'whole' and coalesce(unsure, '') <> ''), count(*) filter (evaluable),"
        " count(*) filter (any_lesion), count(distinct patient) filter (any_lesion) from imaged",
    )
    return StudyFlow(
        waiting=max(listed - rows, 0),
        seen=seen,
        duplicates=rows - seen,
        excluded=_reasons(connection, "excluded"),
        failed=_reasons(connection, "failed"),
        screened=screened,
        patients=patients,
        imaged=imaged,
        cut=cut,
        unsure=unsure,
        unclassified=imaged - cut - unsure - evaluable,
        evaluable=evaluable,
        positive=positive,
        positive_patients=positive_patients,
    )


def _one(connection: duckdb.DuckDBPyConnection, query: str) -> tuple[int, ...]:
    row = connection.execute(query).fetchone()
    assert row is not None
    return row


def _reasons(connection: duckdb.DuckDBPyConnection, state: str) -> dict[Reason, int]:
    counts = connection.execute(
        "select reason, count(*) from current where state = ? group by reason order by 2 desc, 1", [state]
    ).fetchall()
    return {Reason(reason): count for reason, count in counts}
