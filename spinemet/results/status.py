"""How a results place is doing: last runs, what failed and why, who holds the lease, the age of the last success."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow.dataset as pads

from spinemet import files
from spinemet.errors import BadInput, Reason
from spinemet.results.lease import Holder, held_by
from spinemet.results.published import Publication, published
from spinemet.results.schemas import Row, RunState
from spinemet.results.tables import connect

LAST_RUNS = 7
MOST_FAILED = 20
"""Failed studies that are named with a linkage table."""
KILLED = "killed"
"""State of a run that says `running` and does not hold the lease."""

_RUNS = f"""
    SELECT run_id, state, started_at, finished_at, asked_by, planned, waiting, screened, excluded, failed, drift,
        studies_per_hour, model_digest, chosen
    FROM runs ORDER BY started_at DESC, run_id LIMIT {LAST_RUNS}
"""
_SUCCESS = f"""
    SELECT max(finished_at) AS at FROM runs
    WHERE state = '{RunState.DONE}' AND (planned = 0 OR screened + excluded + failed > 0)
"""


@dataclass(frozen=True)
class Status:
    """The answer of `status`.

    studies: rows of the ledger by state. runs: the last ones, newest first, as rows of `runs`; one that was killed has
    the state KILLED. failed: of these runs' studies, how many are failed now, by reason. failed_studies: which, at most
    MOST_FAILED (source_key -> place, from a linkage table). last_success: the end of the last run that was done and, if
    it planned studies, did some.
    """

    place: str
    asked_at: datetime
    ledger_version: int
    studies: Mapping[str, int]
    published: Publication | None
    lease: Holder | None
    runs: list[Row]
    failed: Mapping[str, int]
    failed_studies: Mapping[str, str]
    last_success: datetime | None

    @property
    def hours_since_success(self) -> float | None:
        """None if there was no success."""
        return None if self.last_success is None else (self.asked_at - self.last_success).total_seconds() / 3600

    def is_too_old(self, max_age_h: float) -> bool:
        """Whether there was no success within this many hours."""
        hours = self.hours_since_success
        return hours is None or hours > max_age_h


def status(uri: str, linkage: str | None = None) -> Status:
    """The status of the results at `uri`; linkage: the place of the linkage tables, which name the failed studies.

    Raises BadInput if there are no results, or no linkage table.
    """
    connection, holder = connect(uri), held_by(uri)

    def rows(query: str) -> list[Row]:
        found: list[Row] = connection.sql(query).to_arrow_table().to_pylist()
        return found

    runs = [
        row | {"state": KILLED} if row["state"] == RunState.RUNNING and not _holds(holder, row) else row
        for row in rows(_RUNS)
    ]
    names = ", ".join(repr(row["run_id"]) for row in runs) or "''"
    failed = rows(f"SELECT source_key, reason FROM studies WHERE state = 'failed' AND run_id IN ({names}) ORDER BY ALL")
    states = rows("SELECT state, count(*) AS n FROM studies GROUP BY 1 ORDER BY 1")
    return Status(
        place=files.normalize(uri),
        asked_at=datetime.now(UTC),
        ledger_version=rows("FROM versions WHERE name = 'studies'")[0]["version"],
        studies={row["state"]: row["n"] for row in states},
        published=published(uri),
        lease=holder,
        runs=runs,
        failed=dict(Counter(row["reason"] for row in failed)),
        failed_studies=_named(linkage, [row["source_key"] for row in failed]) if linkage else {},
        last_success=rows(_SUCCESS)[0]["at"],
    )


def meaning(reason: str) -> str:
    """The reason of a failure in words; the reason itself if this version does not know it."""
    return Reason(reason).meaning if reason in set(Reason) else reason


def _holds(holder: Holder | None, run: Row) -> bool:
    return holder is not None and holder.run_id == run["run_id"]


def _named(linkage: str, keys: list[str]) -> dict[str, str]:
    """source_key -> the study's place in the archive, for at most MOST_FAILED of `keys`."""
    filesystem, path = files.arrow_filesystem(linkage)
    try:
        table = pads.dataset(path, filesystem=filesystem, format="parquet").to_table(
            columns=["source_key", "source"], filter=pads.field("source_key").isin(keys[:MOST_FAILED])
        )
    except (OSError, ValueError) as error:
        raise BadInput(f"no linkage table can be read at {linkage} ({files.cause(error)}).") from error
    return dict(zip(table["source_key"].to_pylist(), table["source"].to_pylist(), strict=True))
