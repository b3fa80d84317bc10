"""The result tables: Delta tables at one place, written in waves, read through views that show whole waves only.

A wave is the rows of some tens of studies. Its vertebrae, slices and pictures are committed first and its ledger
rows (`studies`) last, in one commit: only then does the wave count. Rows of a wave that never reached the ledger are
invisible to `connect`, and the next run removes them before it writes (`drop_leftovers`). One run at a time may
write: the one that holds the lease (lease.py).

The tables are partitioned by model digest; a wave adds one Parquet file per table.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError, TableNotFoundError

from spinemet import files
from spinemet.errors import BadInput, Reason
from spinemet.results.schemas import KEY_COLUMNS, PARTITION_COLUMN, SCHEMAS, Row, RunState
from spinemet.types import State

LEDGER = "studies"
RUNS = "runs"
SIDE_TABLES: tuple[str, ...] = ("vertebrae", "slices", "pictures")
"""Tables that count only as far as the ledger has their wave."""

_SAME_WAVE = " AND ".join(f"side.{column} = ledger.{column}" for column in (*KEY_COLUMNS, "wave"))
_STORE_ERRORS = (DeltaError, OSError, ValueError)


@dataclass(frozen=True)
class Results:
    """An open results place; every method reads or writes the tables as they are now.

    guard: called before each write; what it raises stops the write (a run that has lost its lease must not go on).
    """

    uri: str
    guard: Callable[[], None] = lambda: None

    def ledger_keys(
        self,
        model_digest: str | None = None,
        config_digest: str | None = None,
        *,
        only: Collection[Reason] | None = None,
        state: State | None = None,
    ) -> set[str]:
        """source_key of every study that the ledger has, for this model and configuration where they are given.

        only: those alone that were left out for one of these reasons. state: those alone that are in this state.
        """
        wanted = _made_with(model_digest, config_digest)
        if state is not None:
            wanted &= pads.field("state") == str(state)
        if only is not None:
            wanted &= pads.field("reason").isin([str(reason) for reason in only])
        keys: set[str] = set()
        for batch in self._table(LEDGER).to_pyarrow_dataset().to_batches(columns=["source_key"], filter=wanted):
            keys.update(batch["source_key"].to_pylist())
        return keys

    def ledger_sizes(self, model_digest: str, config_digest: str) -> dict[str, int]:
        """The bytes that every study of the ledger had in the archive, for this model and configuration."""
        dataset, wanted = self._table(LEDGER).to_pyarrow_dataset(), _made_with(model_digest, config_digest)
        sizes: dict[str, int] = {}
        for batch in dataset.to_batches(columns=["source_key", "size_bytes"], filter=wanted):
            sizes.update(zip(batch["source_key"].to_pylist(), batch["size_bytes"].to_pylist(), strict=True))
        return sizes

    def commit_wave(self, wave: str, rows: Mapping[str, Sequence[Row]], *, replace: bool = False) -> None:
        """Make one wave's rows count: side tables first, the ledger last.

        rows: table -> rows without `wave` and `committed_at`, which are filled in here; every table may be absent
        but `studies`. replace: some of the studies are in the ledger already; their ledger rows are replaced in the
        same commit. Raises DeltaError or OSError where the store refuses; the wave then does not count.
        """
        stamp = {"wave": wave, "committed_at": datetime.now(UTC)}
        for name in (*SIDE_TABLES, LEDGER):
            stamped = sorted(({**row, **stamp} for row in rows.get(name, ())), key=lambda row: row["source_key"])
            if stamped:
                self._write(name, stamped, _same_studies(stamped) if replace and name == LEDGER else None)

    def drop_leftovers(self) -> int:
        """Remove the rows of waves that never reached the ledger; returns how many."""
        known = self._waves(LEDGER)
        dropped = 0
        for name in SIDE_TABLES:
            if lost := sorted(self._waves(name) - known):
                self.guard()
                dropped += self._table(name).delete(_one_of("wave", lost))["num_deleted_rows"]
        return dropped

    def drop_superseded(self) -> dict[str, int]:
        """Remove side rows of waves without a ledger row and of studies done again; how many, by table."""
        connection, dropped = connect(self.uri), dict.fromkeys(SIDE_TABLES, 0)
        for name in SIDE_TABLES:
            lost = connection.execute(
                f"SELECT wave, list(DISTINCT source_key) FROM all_{name} side "
                f"ANTI JOIN all_{LEDGER} ledger ON {_SAME_WAVE} GROUP BY wave ORDER BY wave"
            ).fetchall()
            for wave, keys in lost:
                self.guard()
                gone = f"{_one_of('wave', [wave])} AND {_one_of('source_key', keys)}"
                dropped[name] += self._table(name).delete(gone)["num_deleted_rows"]
        return dropped

    def write_run(self, row: Row) -> None:
        """Write a `runs` row, in place of an earlier one of the same run."""
        self._write(RUNS, [row], _one_of("run_id", [row["run_id"]]))

    def last_run(self) -> Row | None:
        """The `runs` row that started last, None where there is none."""
        table = self._table(RUNS).to_pyarrow_table().sort_by("started_at")
        return table.slice(len(table) - 1).to_pylist()[0] if len(table) else None

    def usual_runs(self, model_digest: str, config_digest: str, last: int) -> list[Row]:
        """The last finished runs with this model and configuration that did whatever was new, in order of time.

        Columns that the table does not have yet are missing.
        """
        rows = self._table(RUNS).to_pyarrow_table().sort_by("started_at").to_pylist()
        made_with = (model_digest, config_digest)
        return [
            row
            for row in rows
            if (row["model_digest"], row["config_digest"]) == made_with
            and row["state"] in {RunState.DONE, RunState.STOPPED}
            and not row.get("chosen")
        ][-last:]

    def last_rate(self) -> float | None:
        """Studies per hour of the last run that did any, None where there is none."""
        rates = self._table(RUNS).to_pyarrow_table(columns=["started_at", "studies_per_hour"]).sort_by("started_at")
        known = rates["studies_per_hour"].drop_null()
        return known[len(known) - 1].as_py() if len(known) else None

    def _write(self, name: str, rows: Sequence[Row], replaced: str | None) -> None:
        place, table = files.join(self.uri, name), pa.Table.from_pylist(list(rows), schema=SCHEMAS[name])
        options = files.delta_options(self.uri)
        self.guard()
        # Merging schemas: a later version may add columns to tables that are years old.
        if replaced is None:
            write_deltalake(place, table, mode="append", schema_mode="merge", storage_options=options)
        else:
            write_deltalake(
                place, table, mode="overwrite", predicate=replaced, schema_mode="merge", storage_options=options
            )

    def _waves(self, name: str) -> set[str]:
        waves: set[str] = set()
        for batch in self._table(name).to_pyarrow_dataset().to_batches(columns=["wave"]):
            waves.update(pc.unique(batch["wave"]).to_pylist())
        return waves

    def _table(self, name: str) -> DeltaTable:
        return DeltaTable(files.join(self.uri, name), storage_options=files.delta_options(self.uri))


def has_results(uri: str) -> bool:
    """Whether there are result tables at `uri`. Raises BadInput where the store cannot tell."""
    try:
        return _is_table(files.normalize(uri), LEDGER)
    except _STORE_ERRORS as error:
        raise BadInput(f"expected screening results at {uri}, found: {files.cause(error)}.") from error


def moment(text: str) -> datetime:
    """The moment that an ISO 8601 date or time names, in UTC where it has no zone; a date is its first moment.

    Raises BadInput where it is not one.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadInput(f"expected a date or a time like 2026-11-30 or 2026-11-30T22:00, found {text}.") from error
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def moment_of(uri: str, text: str) -> datetime:
    """The moment of version `text` of the ledger at `uri` (as `history` numbers them), or the moment that it names.

    Raises BadInput where there is no such version, where it is no moment, and where there are no results.
    """
    if not text.isdecimal() or len(text) >= len("20261130"):
        return moment(text)
    versions = open_results(uri)._table(LEDGER).history()
    for commit in versions:
        if commit["version"] == int(text):
            return datetime.fromtimestamp(commit["timestamp"] / 1000, UTC)
    raise BadInput(
        f"expected a version of the table {LEDGER} from {versions[-1]['version']} to {versions[0]['version']}, "
        f"found {text}."
    )


def open_results(uri: str, *, create: bool = False, guard: Callable[[], None] = lambda: None) -> Results:
    """The results place at `uri`, with `guard` before each later write; with `create`, missing tables are made.

    Raises BadInput where there are no results (without `create`), or the tables cannot be made.
    """
    uri = files.normalize(uri)
    wanted = "a place that can be written" if create else "screening results"
    try:
        if create:
            for name in (*SIDE_TABLES, RUNS, LEDGER):  # the ledger last: a place with a ledger has all tables
                if not _is_table(uri, name):
                    _create(uri, name)
        elif not _is_table(uri, LEDGER):
            raise BadInput(f"expected {wanted} at {uri}, found none.")
    except _STORE_ERRORS as error:
        raise BadInput(f"expected {wanted} at {uri}, found: {files.cause(error)}.") from error
    return Results(uri, guard)


def connect(uri: str, as_of: datetime | None = None) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection with the views `studies`, `vertebrae`, `slices`, `pictures` and `runs` of the results.

    Only rows that count are shown. as_of: the tables as they were at that moment (with its time zone), by Delta's
    time travel. Raises BadInput where `uri` holds no results, or held none at that moment.
    """
    results = open_results(uri)
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    # The ledger is opened first: side tables opened after it have at least every wave that it knows.
    for name in (LEDGER, *SIDE_TABLES, RUNS):
        connection.register(f"all_{name}", _dataset(results.uri, name, as_of))
    for name in SIDE_TABLES:
        connection.execute(
            f"CREATE VIEW {name} AS SELECT side.* FROM all_{name} side SEMI JOIN all_{LEDGER} ledger ON {_SAME_WAVE}"
        )
    for name in (LEDGER, RUNS):
        connection.execute(f"CREATE VIEW {name} AS SELECT * FROM all_{name}")
    return connection


def _dataset(uri: str, name: str, as_of: datetime | None) -> pads.Dataset:
    table = DeltaTable(files.join(uri, name), storage_options=files.delta_options(uri))
    if as_of is not None:
        table.load_as_version(_version_at(table, as_of))
    return table.to_pyarrow_dataset()


def _version_at(table: DeltaTable, as_of: datetime) -> int:
    """By the time that a commit gives itself; deltalake goes by files' dates, which a slow write or a copy moves."""
    commits = [(datetime.fromtimestamp(told["timestamp"] / 1000, UTC), told["version"]) for told in table.history()]
    past = [version for moment, version in commits if moment <= as_of]
    if not past:
        first = min(commits)[0]
        raise BadInput(f"expected a moment after {first:%Y-%m-%d %H:%M:%S} UTC, found {as_of}: no results yet.")
    return max(past)


def _is_table(uri: str, name: str) -> bool:
    # Not DeltaTable.is_deltatable: it holds the GIL while it waits for the store, and an S3 server in the same
    # process (as in tests) then never answers.
    try:
        DeltaTable(files.join(uri, name), storage_options=files.delta_options(uri), without_files=True)
    except TableNotFoundError:
        return False
    return True


def _create(uri: str, name: str) -> None:
    schema = SCHEMAS[name]
    DeltaTable.create(
        files.join(uri, name),
        schema,
        mode="ignore",
        partition_by=[PARTITION_COLUMN] if name != RUNS else None,
        name=name,
        description=schema.metadata[b"description"].decode(),
        storage_options=files.delta_options(uri),
    )


def _made_with(model_digest: str | None, config_digest: str | None) -> pads.Expression:
    """Ledger rows of this model and configuration, of any where one is None."""
    wanted = pads.scalar(True)
    for column, value in (("model_digest", model_digest), ("config_digest", config_digest)):
        if value is not None:
            wanted &= pads.field(column) == value
    return wanted


def _same_studies(rows: Sequence[Row]) -> str:
    """A predicate for the ledger rows of the studies of `rows`, which all have one model and one configuration."""
    made_with = " AND ".join(_one_of(column, {row[column] for row in rows}) for column in KEY_COLUMNS[1:])
    return f"{made_with} AND {_one_of(KEY_COLUMNS[0], [row[KEY_COLUMNS[0]] for row in rows])}"


def _one_of(column: str, values: Collection[str]) -> str:
    """`column IN (…)` for values that are our own keys: hexadecimal digits, digits, letters and dashes."""
    return f"{column} IN ({', '.join(repr(value) for value in sorted(values))})"
