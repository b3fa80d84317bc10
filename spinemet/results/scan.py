"""How DuckDB reads a table's Parquet files: by itself where they are a few local files, else through Arrow."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow.dataset as pads

from spinemet.results.schemas import PARTITION_COLUMN

MOST_FILES = 500
"""DuckDB looks into every file before each query, to know its columns; the Delta log tells Arrow."""
_PATTERN = set("*?[")


def define_scan(connection: duckdb.DuckDBPyConnection, name: str, stored: pads.Dataset, place: str) -> None:
    """Let `connection` know `stored`, the data set of the Delta table at `place`, under `name`.

    DuckDB itself reads the columns of 24 million vertebrae in a quarter of the time that Arrow needs.
    """
    files = [Path(place) / file for file in getattr(stored, "files", [])]
    if (
        "://" in place
        or not 0 < len(files) <= MOST_FILES
        or _PATTERN & set(place)
        or not all(file.is_file() for file in files)
    ):
        connection.register(name, stored)
        return
    of_folder = f", hive_partitioning = true, hive_types = {{'{PARTITION_COLUMN}': varchar}}"
    parts = of_folder if f"{PARTITION_COLUMN}=" in files[0].parent.name else ""
    reader = f"read_parquet({[str(file) for file in files]}, union_by_name = true{parts})"
    columns = ", ".join(f'"{column}"' for column in stored.schema.names)
    # Files of before a column was added lack it; if all of them do, only the empty table knows it.
    connection.register(f"empty_{name}", stored.schema.empty_table())
    connection.execute(
        f"create view {name} as select {columns} from "
        f"(select * from {reader} union all by name select * from empty_{name})"
    )
