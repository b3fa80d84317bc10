"""Upkeep of the result tables: fewer and larger files, old ones deleted, and what happened to them when.

Whoever changes files here holds the lease, so it never meets a run.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pandas as pd
from deltalake import DeltaTable

from spinemet import files
from spinemet.errors import BadInput
from spinemet.results.lease import hold_lease
from spinemet.results.schemas import SCHEMAS
from spinemet.results.tables import Results, open_results

KEEP_DAYS = 30.0
"""So far back `--as-of` can look after a vacuum."""


def compact(uri: str) -> pd.DataFrame:
    """Merge each table's small files, and remove rows that do not count any more; one row per table of what was done.

    What is read through `connect` stays as it is, and so do earlier versions until a vacuum.
    """
    with _alone(uri, "compact") as results:
        dropped = dict.fromkeys(SCHEMAS, 0) | results.drop_superseded()
        done = []
        for name in SCHEMAS:
            results.guard()
            metrics = _table(uri, name).optimize.compact()
            done.append((name, dropped[name], metrics["numFilesRemoved"], metrics["numFilesAdded"]))
    return pd.DataFrame(done, columns=["table", "rows_removed", "files_before", "files_after"])


def vacuum(uri: str, keep_days: float = KEEP_DAYS, *, dry_run: bool = False) -> pd.DataFrame:
    """Delete files that no version of the last `keep_days` needs; one row per table with how many.

    `--as-of` cannot look further back afterwards. dry_run: only count them.
    """
    if not keep_days >= 0:
        raise BadInput(f"expected a number of days of at least 0, found {keep_days:g}.")
    done = []
    with _alone(uri, "vacuum") as results:
        for name in SCHEMAS:
            results.guard()
            gone = _table(uri, name).vacuum(
                retention_hours=round(keep_days * 24), dry_run=dry_run, enforce_retention_duration=False, full=True
            )
            done.append((name, len(gone)))
    return pd.DataFrame(done, columns=["table", "files_to_delete" if dry_run else "files_deleted"])


def history(uri: str) -> pd.DataFrame:
    """Every version of every table, newest first: when it was made, and by what operation."""
    open_results(uri)
    done = [
        (datetime.fromtimestamp(commit["timestamp"] / 1000, UTC), name, commit["version"], commit["operation"])
        for name in SCHEMAS
        for commit in _table(uri, name).history()
    ]
    return pd.DataFrame(sorted(done, reverse=True), columns=["committed_at", "table", "version", "operation"])


@contextmanager
def _alone(uri: str, name: str) -> Iterator[Results]:
    open_results(uri)  # BadInput for a place without results, before a lease is written there
    with hold_lease(uri, f"{name}-{secrets.token_hex(3)}") as lease:
        yield open_results(uri, guard=lease.check)


def _table(uri: str, name: str) -> DeltaTable:
    return DeltaTable(files.join(uri, name), storage_options=files.delta_options(uri))
