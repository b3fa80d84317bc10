"""Upkeep of the result tables: fewer and larger files, old files deleted, older tables brought up to date, history.

Whatever changes files here holds the lease, so it never meets a run.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import duckdb
import pandas as pd
import pyarrow as pa
from deltalake import write_deltalake

from spinemet.errors import BadInput
from spinemet.results.lease import hold_lease
from spinemet.results.older_form import calls_of, in_present_form, is_older
from spinemet.results.schemas import PARTITION_COLUMN, SCHEMAS
from spinemet.results.tables import Results, create_table, open_results

KEEP_DAYS = 30.0
"""How far back `--as-of` can look after a vacuum, by default."""
_BATCH_ROWS = 100_000


def compact(uri: str) -> pd.DataFrame:
    """Merge each table's small files, and remove rows that no longer count; returns one row per table with the numbers.

    Rows read through `connect` stay as they are, and so do earlier versions until a vacuum.
    """
    with _alone(uri, "compact") as results:
        dropped = dict.fromkeys(SCHEMAS, 0) | results.drop_superseded()
        done = []
        for name in SCHEMAS:
            results.guard()
            metrics = results.table(name).optimize.compact()
            done.append((name, dropped[name], metrics["numFilesRemoved"], metrics["numFilesAdded"]))
    return pd.DataFrame(done, columns=["table", "rows_removed", "files_before", "files_after"])


def vacuum(uri: str, keep_days: float = KEEP_DAYS, *, dry_run: bool = False) -> pd.DataFrame:
    """Delete files that no version of the last `keep_days` needs; returns one row per table with their number.

    `--as-of` cannot look further back afterwards. dry_run: only count them.
    """
    if not keep_days >= 0:
        raise BadInput(f"expected a number of days of at least 0, found {keep_days:g}.")
    done = []
    with _alone(uri, "vacuum") as results:
        for name in SCHEMAS:
            results.guard()
            gone = results.table(name).vacuum(
                retention_hours=round(keep_days * 24), dry_run=dry_run, enforce_retention_duration=False, full=True
            )
            done.append((name, len(gone)))
    return pd.DataFrame(done, columns=["table", "files_to_delete" if dry_run else "files_deleted"])


def migrate(uri: str) -> pd.DataFrame:
    """Bring tables of the older form (see older_form.py) up to date; returns one row per table with the rows written.

    Each table changes in one commit, the ledger last: until then the results count as older, and after a kill at any
    point the next call does the rest. Earlier versions stay readable with `--as-of` until a vacuum.
    """
    written = dict.fromkeys(("calls", "vertebrae", "studies"), 0)
    with _alone(uri, "migrate", any_form=True) as results:
        for name in ("vertebrae", "studies"):
            dataset = results.table(name).to_pyarrow_dataset()
            if not is_older(dataset.schema):
                continue
            if name == "vertebrae":
                create_table(results.uri, "calls")
                written["calls"] = _rewrite(results, "calls", dataset, calls_of("older", dataset.schema.names))
            written[name] = _rewrite(results, name, dataset, in_present_form("older", dataset.schema.names))
    return pd.DataFrame(written.items(), columns=["table", "rows_written"])


def history(uri: str) -> pd.DataFrame:
    """Every version of every table, newest first: when it was made, and by what operation."""
    results = open_results(uri)
    done = [
        (datetime.fromtimestamp(commit["timestamp"] / 1000, UTC), name, commit["version"], commit["operation"])
        for name in SCHEMAS
        for commit in results.table(name).history()
    ]
    return pd.DataFrame(sorted(done, reverse=True), columns=["committed_at", "table", "version", "operation"])


@contextmanager
def _alone(uri: str, name: str, *, any_form: bool = False) -> Iterator[Results]:
    open_results(uri, any_form=any_form)  # BadInput for a place without results, before a lease is written there
    with hold_lease(uri, f"{name}-{secrets.token_hex(3)}") as lease:
        yield open_results(uri, any_form=any_form, guard=lease.check)


def _rewrite(results: Results, name: str, older: pa.dataset.Dataset, query: str) -> int:
    """Replace all rows and columns of the table `name` by those of `query` over `older`; returns their number."""
    schema, count = SCHEMAS[name], 0
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.register("older", older)

    def batches() -> Iterator[pa.RecordBatch]:
        nonlocal count
        for batch in connection.sql(query).to_arrow_reader(_BATCH_ROWS):
            results.guard()
            count += len(batch)
            yield from _as(schema, batch)

    write_deltalake(
        results.table(name),
        pa.RecordBatchReader.from_batches(schema, batches()),
        mode="overwrite",
        schema_mode="overwrite",
        partition_by=[PARTITION_COLUMN],
    )
    return count


def _as(schema: pa.Schema, batch: pa.RecordBatch) -> list[pa.RecordBatch]:
    """`batch` with exactly the columns of `schema`; columns that the older table lacks are null."""
    table = pa.Table.from_batches([batch])
    for field in schema:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    batches: list[pa.RecordBatch] = table.select(schema.names).cast(schema).to_batches()
    return batches
