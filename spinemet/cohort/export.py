"""A plain copy of a population for other programs: one Parquet and one CSV file per table, and what is in them.

A folder that Delta keeps holds the files of every version, so a program that reads them all finds rows twice. Here each
row stands once:

    studies.parquet, .csv      one row per study of the population
    vertebrae.parquet, .csv    one row per vertebra of these, follow-ups included
    calls.parquet, .csv        one row per classified vertebra, task and class
    codebook.csv               each column of these tables: its type and its meaning
    about.json                 population, model, rule, version of the ledger, notes, number of rows; written last

These are rows of single patients under pseudonyms; no small cell is suppressed.
"""

import csv
import io
import json
from collections.abc import Iterator
from contextlib import ExitStack

import duckdb
import obstore
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from obstore.exceptions import BaseError

from spinemet import __version__, files
from spinemet.cohort.prevalence import notes
from spinemet.cohort.views import asked
from spinemet.errors import BadInput
from spinemet.results.schemas import SCHEMAS, Row, describe

TABLES: tuple[str, ...] = ("studies", "vertebrae", "calls")
ABOUT, CODEBOOK = "about.json", "codebook.csv"
_BATCH_ROWS = 100_000

_ADDED: dict[str, tuple[tuple[str, str, str], ...]] = {
    "studies": (
        ("year", "int64, or null", "Calendar year of study_date; null if dates are shifted."),
        ("age_group", "string, or null", "Age in groups of ten years."),
    ),
    "vertebrae": (
        (
            "called",
            "string, or null",
            "Bone quality under the rule of this export; null if the vertebra is unclassified.",
        ),
        (
            "is_counted",
            "bool",
            "Whether a prevalence counts this vertebra: each level of a patient once, from the study that counts.",
        ),
        ("study_date", "date32[day], or null", "Of the study, under the run's date policy."),
        ("year", "int64, or null", "Of the study; null if dates are shifted."),
        ("age", "int32, or null", "Of the patient at the study."),
        ("age_group", "string, or null", "Of the patient at the study, in groups of ten years."),
        ("sex", "string, or null", "Of the patient."),
    ),
    "calls": (),
}
"""The columns that an export adds to those of the result table: name, type, meaning."""


def export_tables(connection: duckdb.DuckDBPyConnection, out: str) -> Row:
    """Write the population of `connection` (from `open_cohort`) to the folder or s3:// prefix `out`.

    Returns the content of about.json. Raises BadInput if `out` holds anything or cannot be written.
    """
    check_empty(out)
    counts = {name: _write(connection, name, out) for name in TABLES}
    files.write_bytes(files.join(out, CODEBOOK), _codebook().encode())
    about = about_of(connection) | {"rows": counts}
    files.write_bytes(files.join(out, ABOUT), (json.dumps(about, indent=2) + "\n").encode())
    return about


def about_of(connection: duckdb.DuckDBPyConnection) -> Row:
    """What any export is about, as values for JSON: the row of `asked`, notes, and the version of SpineMet."""
    about = {name: value for name, value in asked(connection).items() if name != "committed_at"}
    return {"software_version": __version__} | about | {"notes": notes(connection)}


def check_empty(out: str) -> None:
    """Raise BadInput if the folder or prefix `out` holds anything, so that no export mixes with another."""
    files.check_folder(out)
    try:
        found = next(iter(obstore.list(files.open_store(out, create=True), chunk_size=1)), [])
    except (BaseError, OSError) as error:
        raise BadInput(f"cannot write to {out} ({files.cause(error)}).") from error
    if found:
        raise BadInput(f"expected a new or empty folder for the export, found files at {out}; choose another.")


def _write(connection: duckdb.DuckDBPyConnection, name: str, out: str) -> int:
    """Write one table in both forms, batch by batch; returns its number of rows."""
    reader = connection.sql(_query(name)).to_arrow_reader(_BATCH_ROWS)
    flat = pa.schema([pa.field(one.name, pa.string()) if pa.types.is_list(one.type) else one for one in reader.schema])
    count = 0
    with ExitStack() as open_files:
        fs, place = files.arrow_filesystem(out)
        parquet = open_files.enter_context(pq.ParquetWriter(f"{place}/{name}.parquet", reader.schema, filesystem=fs))
        stream = open_files.enter_context(fs.open_output_stream(f"{place}/{name}.csv"))
        text = open_files.enter_context(pyarrow.csv.CSVWriter(stream, flat))
        for batch in reader:
            parquet.write_batch(batch)
            text.write(_flat(batch, flat))
            count += len(batch)
    return count


def _query(name: str) -> str:
    """The rows of an export's table, in the order of their keys."""
    own = ", ".join(f'side."{column}"' for column in SCHEMAS[name].names)
    if name == "studies":
        return f"select {own}, side.year, side.age_group from cohort side order by source_key"
    if name == "vertebrae":
        return f"""
            select {own}, side.called, coalesce(counted.is_distinct, false) as is_counted, side.study_date, side.year,
                side.age, side.age_group, side.sex
            from current_vertebrae side
            left join (select source_key, vertebra, is_distinct from seen) counted using (source_key, vertebra)
            order by source_key, vertebra"""
    return f"""
        select {own} from calls side semi join cohort using (source_key, model_digest, config_digest)
        order by source_key, vertebra, task, class_number"""


def _flat(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """`batch` with the words of each list as one text with spaces between them, for CSV."""
    columns = [pc.binary_join(column, " ") if pa.types.is_list(column.type) else column for column in batch.columns]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _codebook() -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["table", "column", "type", "meaning"])
    writer.writerows([name, *column] for name in TABLES for column in columns_of(name))
    return text.getvalue()


def columns_of(name: str) -> Iterator[tuple[str, str, str]]:
    """(column, type, meaning) of each column of an export's table, in order."""
    yield from describe(name)
    yield from _ADDED[name]
