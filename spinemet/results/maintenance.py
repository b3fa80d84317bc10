"""Upkeep of the result tables: fewer and larger files, old files deleted, older forms brought up to date, the way back.

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

from spinemet import files
from spinemet.errors import BadInput
from spinemet.results import delta
from spinemet.results.lease import hold_lease
from spinemet.results.older_form import calls_of, in_present_form, is_older
from spinemet.results.schemas import PARTITION_COLUMN, SCHEMAS
from spinemet.results.tables import LEDGER, SIDE_TABLES, Results, connect, open_results, version_at
from spinemet.results.versions import Pin, moment_of, pins, place_of_pin

KEEP_DAYS = 30.0
"""How far back `--as-of` can look after a vacuum, by default."""
_BATCH_ROWS = 100_000
_LOG_CLEANUP = "delta.enableExpiredLogCleanup"
"""Delta's property by which a writer deletes log entries older than 30 days; without them no old version opens."""


def compact(uri: str) -> pd.DataFrame:
    """Merge each table's small files, and remove rows that no longer count; returns one row per table with the numbers.

    Rows read through `connect` stay as they are, and so do earlier versions until a vacuum.
    """
    with alone(uri, "compact") as results:
        dropped = dict.fromkeys(SCHEMAS, 0) | results.drop_superseded()
        done = []
        for name in SCHEMAS:
            metrics = results.to_change(name).optimize.compact()
            done.append((name, dropped[name], metrics["numFilesRemoved"], metrics["numFilesAdded"]))
    return pd.DataFrame(done, columns=["table", "rows_removed", "files_before", "files_after"])


def vacuum(uri: str, keep_days: float = KEEP_DAYS, *, dry_run: bool = False) -> pd.DataFrame:
    """Delete files that no version of the last `keep_days` and no pin needs; one row per table with their number.

    `--as-of` cannot look further back afterwards, but to a pin. dry_run: only count them.
    """
    if not keep_days >= 0:
        raise BadInput(f"expected a number of days of at least 0, found {keep_days:g}.")
    done = []
    with alone(uri, "vacuum") as results:
        kept = pins(results.uri).values()
        for name in SCHEMAS:
            gone = results.to_change(name).vacuum(
                retention_hours=round(keep_days * 24),
                dry_run=dry_run,
                enforce_retention_duration=False,
                full=True,
                keep_versions=sorted({one.versions[name] for one in kept if name in one.versions}) or None,
            )
            done.append((name, len(gone)))
    return pd.DataFrame(done, columns=["table", "files_to_delete" if dry_run else "files_deleted"])


def migrate(uri: str) -> pd.DataFrame:
    """Bring tables of the older form (see older_form.py) up to date; returns one row per table with the rows written.

    Each table changes in one commit, the ledger last: until then the results count as older, and after a kill at any
    point the next call does the rest. Earlier versions stay readable with `--as-of` until a vacuum.
    """
    written = dict.fromkeys(("calls", "vertebrae", "studies"), 0)
    with alone(uri, "migrate", any_form=True) as results:
        for name in ("vertebrae", "studies"):
            dataset = delta.dataset(results.uri, name)
            if not is_older(dataset.schema):
                continue
            if name == "vertebrae":
                delta.create_table(results.uri, "calls")
                written["calls"] = _rewrite(results, "calls", dataset, calls_of("older", dataset.schema.names))
            written[name] = _rewrite(results, name, dataset, in_present_form("older", dataset.schema.names))
    return pd.DataFrame(written.items(), columns=["table", "rows_written"])


def pin(uri: str, name: str, as_of: str | None = None) -> pd.DataFrame:
    """Keep the tables as they are now, or were `as_of`, under `name`; returns one row per table with its version.

    `--as-of NAME` reads them, also after any compaction and vacuum. as_of: as for `moment_of`. Raises BadInput if the
    name is taken or the version can no longer be read.
    """
    open_results(uri)
    place = place_of_pin(uri, name)
    with alone(uri, "pin") as results:
        if name in pins(results.uri):
            raise BadInput(f"the pin {name} exists; choose another name, or remove it with: spinemet tables unpin.")
        when = _last_commit(results) if as_of is None else moment_of(results.uri, as_of)
        connect(results.uri, when).close()  # BadInput if a vacuum has removed it
        versions = {table: version_at(results.uri, table, when) for table in SCHEMAS}
        files.write_bytes(place, Pin(moment=when, versions=versions).model_dump_json().encode())
        _keep_logs(results)
    return pd.DataFrame(versions.items(), columns=["table", "version"])


def unpin(uri: str, name: str) -> None:
    """Remove the pin `name`: a later vacuum may delete its files. Raises BadInput if there is none."""
    place = place_of_pin(uri, name)
    with alone(uri, "unpin") as results:
        if name not in (known := pins(results.uri)):
            raise BadInput(f"expected one of the pins {', '.join(known) or '(there are none)'}, found {name}.")
        results.guard()
        files.delete(place)
        _keep_logs(results)


def restore(uri: str, version: str) -> pd.DataFrame:
    """Go back to the tables as they were at `version` (as for `moment_of`); one row per table with its version.

    What came later leaves the tables, and the next run screens it again; `--as-of` still reads it until a vacuum. After
    a kill at any point the next call does the rest. Raises BadInput if that version can no longer be read.
    """
    with alone(uri, "restore", mends=True) as results:
        when = moment_of(results.uri, version)
        connect(results.uri, when).close()  # BadInput if it is damaged, or a vacuum has removed it
        versions = {name: version_at(results.uri, name, when) for name in (LEDGER, *SIDE_TABLES, delta.RUNS)}
        for name, number in versions.items():
            table = results.to_change(name)
            if number < table.version():
                table.restore(number)
            table.create_checkpoint()  # readers then start here, and not at a commit that may be damaged
    return pd.DataFrame(versions.items(), columns=["table", "version"])


def history(uri: str) -> pd.DataFrame:
    """Every version of every table, newest first: when it was made, by what operation, and the pins that keep it."""
    results = open_results(uri)
    known = pins(results.uri)
    done = [
        (
            made,
            name,
            number,
            operation,
            " ".join(word for word, one in known.items() if one.versions.get(name) == number),
        )
        for name in SCHEMAS
        for made, number, operation in delta.commits(results.uri, name, results.table(name))
    ]
    return pd.DataFrame(sorted(done, reverse=True), columns=["committed_at", "table", "version", "operation", "pins"])


def _last_commit(results: Results) -> datetime:
    """The moment of the last commit to any table."""
    last = max(results.table(name).history(1)[0]["timestamp"] for name in SCHEMAS)
    return datetime.fromtimestamp(last / 1000, UTC)


def _keep_logs(results: Results) -> None:
    """Make the tables keep their logs as long as there is a pin."""
    wanted = "false" if pins(results.uri) else "true"
    for name in SCHEMAS:
        table = results.table(name)
        if table.metadata().configuration.get(_LOG_CLEANUP, "true") != wanted:
            results.guard()
            table.alter.set_table_properties({_LOG_CLEANUP: wanted})


@contextmanager
def alone(uri: str, name: str, *, any_form: bool = False, mends: bool = False) -> Iterator[Results]:
    """The results at `uri` under the lease, for the upkeep `name`. mends: damaged tables are no obstacle."""
    found = open_results(uri, any_form=any_form)  # BadInput for a place without results, before a lease is written
    if not (mends or any_form):  # the older form lacks a table
        found.check_whole()
    with hold_lease(uri, f"{name}-{secrets.token_hex(3)}") as lease:
        yield open_results(uri, any_form=any_form, lease=lease)


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
        results.to_change(name) if name in results.marks else results.table(name),
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
