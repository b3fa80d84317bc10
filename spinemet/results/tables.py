"""The result tables: Delta tables at one place, written in waves, read through views that show whole waves only.

A wave is the rows of some tens of studies. Its side tables (vertebrae, calls, slices, pictures) are committed first and
its ledger rows (`studies`) last, in one commit: only then does the wave count. Rows of a wave that never reached the
ledger are invisible to `connect`, and the next run removes them before it writes (`drop_leftovers`). Only the run that
holds the lease (lease.py) may write.

The tables are partitioned by model digest; a wave adds one Parquet file per table.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
from deltalake import DeltaTable, write_deltalake

from spinemet import files
from spinemet.errors import BadInput, Reason
from spinemet.reading import State
from spinemet.results.confinement import confine
from spinemet.results.delta import (
    RUNS,
    STORE_ERRORS,
    check_whole,
    commits,
    create_table,
    damaged,
    dataset,
    open_table,
    stored_schema,
)
from spinemet.results.lease import Lease, lost_lease
from spinemet.results.older_form import FLAGGED, calls_of, in_present_form, is_older
from spinemet.results.scan import define_scan
from spinemet.results.schemas import KEY_COLUMNS, SCHEMAS, Row, RunState

LEDGER = "studies"
SIDE_TABLES: tuple[str, ...] = ("vertebrae", "calls", "slices", "pictures")
"""Tables whose rows count once the ledger has their wave, in the order in which a wave writes them."""
_FENCE = "spinemet.taken_over_by"
"""Property of a table: the last run that took over the lease of another."""
_SAME_WAVE = " AND ".join(f"side.{column} = ledger.{column}" for column in (*KEY_COLUMNS, "wave"))


@dataclass(frozen=True)
class Results:
    """An open results place; every method reads or writes the tables as they are now.

    guard: called before each write. If it raises, nothing is written: a run that lost its lease must stop. marks: what
    `fence` had left in each table when the place was opened for writing.
    """

    uri: str
    guard: Callable[[], None] = lambda: None
    marks: dict[str, str | None] = field(default_factory=dict)

    def ledger(
        self,
        model_digest: str | None = None,
        config_digest: str | None = None,
        *,
        only: Collection[Reason] | None = None,
        state: State | None = None,
    ) -> dict[str, int]:
        """source_key -> bytes in the archive, of the studies in the ledger, by default all of them.

        model_digest, config_digest, state: only studies with this value. only: only studies with one of these reasons.
        """
        selected = pads.scalar(True)
        for column, value in (("model_digest", model_digest), ("config_digest", config_digest), ("state", state)):
            if value is not None:
                selected &= pads.field(column) == str(value)
        if only is not None:
            selected &= pads.field("reason").isin([str(reason) for reason in only])
        stored, sizes = dataset(self.uri, LEDGER), dict[str, int]()
        for batch in stored.to_batches(columns=["source_key", "size_bytes"], filter=selected):
            sizes.update(zip(batch["source_key"].to_pylist(), batch["size_bytes"].to_pylist(), strict=True))
        return sizes

    def commit_wave(self, wave: str, rows: Mapping[str, Sequence[Row]], *, replace: bool = False) -> None:
        """Make one wave's rows count: side tables first, the ledger last.

        rows: table -> rows without `wave` and `committed_at`, which are filled in here; only `studies` is required.
        replace: some of the studies are in the ledger already; the same commit replaces their ledger rows.
        Raises DeltaError or OSError if the store refuses; the wave then does not count.
        """
        stamp = {"wave": wave, "committed_at": datetime.now(UTC)}
        for name in (*SIDE_TABLES, LEDGER):
            stamped = sorted(({**row, **stamp} for row in rows.get(name, ())), key=lambda row: row["source_key"])
            if stamped:
                self._write(name, stamped, _same_studies(stamped) if replace and name == LEDGER else None)

    def drop_leftovers(self) -> int:
        """Remove the rows of waves that never reached the ledger; returns how many."""
        # A wave with calls or slices also has vertebrae, so those two large tables need no scan. Vertebrae are written
        # first and removed last: after a kill at any point they still name the wave.
        lost = sorted((self._waves("vertebrae") | self._waves("pictures")) - self._waves(LEDGER))
        dropped = 0
        self._check_counted(lost)
        for name in reversed(SIDE_TABLES if lost else ()):
            dropped += self.to_change(name).delete(_one_of("wave", lost))["num_deleted_rows"]
        return dropped

    def drop_superseded(self) -> dict[str, int]:
        """Remove side rows of waves without a ledger row and of studies done again; how many, by table."""
        connection, dropped = connect(self.uri), dict.fromkeys(SIDE_TABLES, 0)
        for name in SIDE_TABLES:
            lost = connection.execute(
                f"SELECT wave, list(DISTINCT source_key) FROM all_{name} side "
                f"ANTI JOIN all_{LEDGER} ledger ON {_SAME_WAVE} GROUP BY wave ORDER BY wave"
            ).fetchall()
            self._check_counted([wave for wave, _ in lost])
            for wave, keys in lost:
                gone = f"{_one_of('wave', [wave])} AND {_one_of('source_key', keys)}"
                dropped[name] += self.to_change(name).delete(gone)["num_deleted_rows"]
        return dropped

    def write_run(self, row: Row) -> None:
        """Write a row of `runs`; it replaces an earlier row of the same run."""
        self._write(RUNS, [row], _one_of("run_id", [row["run_id"]]))

    def runs(self) -> list[Row]:
        """The rows of `runs` in order of time; those of an earlier version can lack columns."""
        return list[Row](dataset(self.uri, RUNS).to_table().sort_by("started_at").to_pylist())

    def last_run(self) -> Row | None:
        """The row of `runs` that started last, None if there is none."""
        return next(reversed(self.runs()), None)

    def usual_runs(self, model_digest: str, config_digest: str) -> list[Row]:
        """The finished runs with this model and configuration that screened what was new, in order of time."""
        return [
            row
            for row in self.runs()
            if (row["model_digest"], row["config_digest"]) == (model_digest, config_digest)
            and row["state"] in {RunState.DONE, RunState.STOPPED}
            and not row.get("chosen")
        ]

    def last_rate(self) -> float | None:
        """Studies per hour of the last run that did any, None if there is none."""
        rates = (row.get("studies_per_hour") for row in reversed(self.runs()))
        return next((rate for rate in rates if rate is not None), None)

    def check_whole(self) -> None:
        """Raise BadInput if a table is damaged, see `delta.check_whole`."""
        for name in SCHEMAS:
            check_whole(self.uri, name, self.table(name))

    def _check_counted(self, lost: Collection[str]) -> None:
        """Raise BadInput if `runs` counted studies of the waves `lost` that the ledger no longer has in any wave."""
        if not lost:
            return
        connection = connect(self.uri)
        missing = connection.execute(
            f"SELECT run_id FROM {RUNS} WHERE screened + excluded + failed > "
            f"(SELECT count(*) FROM {LEDGER} ledger WHERE ledger.run_id = {RUNS}.run_id) AND run_id IN ("
            f"SELECT side.run_id FROM all_vertebrae side ANTI JOIN {LEDGER} ledger USING ({', '.join(KEY_COLUMNS)}) "
            f"WHERE {_one_of('side.wave', lost)}) ORDER BY run_id"
        ).fetchall()
        if missing:
            runs = ", ".join(run for (run,) in missing)
            raise damaged(self.uri, LEDGER, f"it lacks studies that were committed by {runs}, so nothing was deleted")

    def table(self, name: str) -> DeltaTable:
        """The Delta table `name` in its newest version."""
        return open_table(self.uri, name)

    def to_change(self, name: str) -> DeltaTable:
        """The table `name` for one commit. Raises JobFailed if the lease is lost or another run marked the table."""
        self.guard()
        table = self.table(name)
        if name in self.marks and _mark(table) != self.marks[name]:
            raise lost_lease()
        return table

    def fence(self, run_id: str) -> None:
        """Mark every table, so that a run which lost its lease to `run_id` cannot commit, not even a commit under way.

        Delta refuses a commit if the table's properties changed since the commit began.
        """
        for name in self.marks:
            self.to_change(name).alter.set_table_properties({_FENCE: run_id}, raise_if_not_exists=False)
            self.marks[name] = run_id

    def _write(self, name: str, rows: Sequence[Row], replaced: str | None) -> None:
        table = self.to_change(name)
        content = pa.Table.from_pylist(list(rows), schema=_for_merging(SCHEMAS[name], table))
        files.check_room(self.uri, content.nbytes)
        # Merging schemas: a later version may add columns to tables that are years old.
        if replaced is None:
            write_deltalake(table, content, mode="append", schema_mode="merge")
        else:
            write_deltalake(table, content, mode="overwrite", predicate=replaced, schema_mode="merge")

    def _waves(self, name: str) -> set[str]:
        batches = dataset(self.uri, name).to_batches(columns=["wave"])
        return {wave for batch in batches for wave in pc.unique(batch["wave"]).to_pylist()}


def has_results(uri: str) -> bool:
    """Whether there are result tables at `uri`. Raises BadInput if the store cannot tell."""
    try:
        return stored_schema(files.normalize(uri), LEDGER) is not None
    except STORE_ERRORS as error:
        raise BadInput(f"Cannot read screening results at {uri}: {files.cause(error)}.") from error


def moment(text: str) -> datetime:
    """The moment that an ISO 8601 date or time names: without a zone in UTC, a date at its first moment.

    Raises BadInput for anything else.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadInput(f"expected a date or a time like 2026-11-30 or 2026-11-30T22:00, found {text}.") from error
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def open_results(uri: str, *, create: bool = False, any_form: bool = False, lease: Lease | None = None) -> Results:
    """The results place at `uri`. lease: held by the run that will write there; checked before each write.

    create: make the tables if the place has none. any_form: also open tables of the older form (see older_form.py).
    Raises BadInput if there are no results (without `create`), the tables cannot be made, or have the older form.
    """
    uri = files.normalize(uri)
    try:
        ledger = stored_schema(uri, LEDGER)
        if ledger is None and not create:
            raise BadInput(f"There are no screening results at {uri}.")
        if ledger is not None and is_older(ledger) and not any_form:
            raise BadInput(
                f"The results at {uri} were written by an earlier version of SpineMet. "
                f"Bring them up to date with: spinemet tables migrate {uri}"
            )
        # The ledger last: with it, all tables are there. One that is then missing was lost.
        for name in (*SIDE_TABLES, RUNS, LEDGER) if ledger is None else ():
            create_table(uri, name)
    except STORE_ERRORS as error:
        action = "write" if create else "read"
        raise BadInput(f"Cannot {action} screening results at {uri}: {files.cause(error)}.") from error
    if lease is None:
        return Results(uri)
    names = (name for name in SCHEMAS if not any_form or stored_schema(uri, name) is not None)
    results = Results(uri, lease.check, {name: _mark(open_table(uri, name)) for name in names})
    if lease.took_over:
        results.fence(lease.run_id)
    return results


def connect(uri: str, as_of: datetime | None = None) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection with one view per table of the results: `studies`, `vertebrae`, `calls` and so on.

    Only rows that count are shown. as_of: the tables as they were at that moment (with its time zone), by Delta's
    time travel. Raises BadInput if `uri` holds no results, held none at that moment, or a vacuum has removed them.
    """
    results = open_results(uri)
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    _define_all(connection, results.uri, as_of)
    for name in SIDE_TABLES:
        connection.execute(
            f"CREATE VIEW {name} AS SELECT side.* FROM all_{name} side SEMI JOIN all_{LEDGER} ledger ON {_SAME_WAVE}"
        )
    for name in (LEDGER, RUNS):
        connection.execute(f"CREATE VIEW {name} AS SELECT * FROM all_{name}")
    confine(connection, results.uri)
    return connection


def _define_all(connection: duckdb.DuckDBPyConnection, uri: str, as_of: datetime | None) -> None:
    """Add a view `all_NAME` per table, which also shows the rows that do not count."""
    queries: dict[str, str] = {}
    versions = []
    # The ledger is opened first: side tables opened after it have at least every wave that it knows.
    for name in (LEDGER, *SIDE_TABLES, RUNS):
        if name in queries:
            continue
        table, stored = _at(uri, name, as_of), f"stored_{name}"
        rows = dataset(uri, name, table)
        versions.append({"name": name, "version": table.version()})
        define_scan(connection, stored, rows, files.join(uri, name))
        queries[name] = f"SELECT * FROM {stored}"
        if name in FLAGGED and is_older(rows.schema):  # a moment before `maintenance.migrate`
            queries[name] = in_present_form(stored, rows.schema.names)
            if name == "vertebrae":
                queries["calls"] = calls_of(stored, rows.schema.names)
    connection.register("versions", pa.Table.from_pylist(versions))
    for name, query in queries.items():
        lacking = set(SCHEMAS[name].names) - set(connection.sql(query).columns)  # columns of a later version: null
        connection.register(f"present_{name}", SCHEMAS[name].empty_table())
        more = f" UNION ALL BY NAME SELECT * FROM present_{name}" if lacking else ""
        connection.execute(f"CREATE VIEW all_{name} AS {query}{more}")


def _at(uri: str, name: str, as_of: datetime | None) -> DeltaTable:
    table, gone = open_table(uri, name), ""
    if as_of is not None:
        version = version_at(uri, name, as_of)
        gone = (
            f"version {version} of the table {name} can no longer be read: a vacuum has removed its files or its log."
        )
        try:
            table.load_as_version(version)
        except STORE_ERRORS as error:
            raise BadInput(gone) from error
    check_whole(uri, name, table, gone)
    return table


def version_at(uri: str, name: str, as_of: datetime) -> int:
    """The version of the table `name` at `as_of` by the time that each commit states.

    deltalake itself goes by the dates of the log's files, which a slow write or a copy of the results changes.
    """
    made = [(moment, version) for moment, version, _ in commits(uri, name, open_table(uri, name))]
    past = [version for moment, version in made if moment <= as_of]
    if not past:
        first = min(made)[0]
        raise BadInput(f"There were no results yet at {as_of}; the first are of {first:%Y-%m-%d %H:%M:%S} UTC.")
    return max(past)


def _mark(table: DeltaTable) -> str | None:
    return table.metadata().configuration.get(_FENCE)


def _for_merging(schema: pa.Schema, table: DeltaTable) -> pa.Schema:
    """`schema` with comments only for columns that `table` lacks.

    Delta refuses a column whose comment differs from the stored one, so a reworded description would stop every write.
    """
    stored = {field.name for field in table.schema().fields}
    return pa.schema([field.remove_metadata() if field.name in stored else field for field in schema])


def _same_studies(rows: Sequence[Row]) -> str:
    """A predicate for the ledger rows of the studies of `rows`, which all have one model and one configuration."""
    made_with = " AND ".join(_one_of(column, {row[column] for row in rows}) for column in KEY_COLUMNS[1:])
    return f"{made_with} AND {_one_of(KEY_COLUMNS[0], [row[KEY_COLUMNS[0]] for row in rows])}"


def _one_of(column: str, values: Collection[str]) -> str:
    """`column IN (…)` for values that are our own keys: hexadecimal digits, digits, letters and dashes."""
    return f"{column} IN ({', '.join(repr(value) for value in sorted(values))})"
