"""One Delta table of the results: opened, made, read with Arrow, and told apart from a damaged one.

Data files are read by Arrow's own file systems. deltalake's reads through Python: a reader thread that outlives the
interpreter then ends the process with SIGABRT after a right answer (4 of 20 planning runs on S3 did).
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import PurePosixPath
from urllib.parse import unquote

import obstore
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.fs as pafs
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError
from deltalake.table import SUPPORTED_READER_FEATURES
from obstore.exceptions import BaseError

from spinemet import files
from spinemet.errors import BadInput
from spinemet.results.schemas import PARTITION_COLUMN, SCHEMAS

RUNS = "runs"
STORE_ERRORS = (DeltaError, BaseError, OSError, ValueError)  # ArrowInvalid is a ValueError
_LOG = "_delta_log"


def open_table(uri: str, name: str) -> DeltaTable:
    """The table `name` of the results at `uri`, in its newest version.

    Raises BadInput if it is missing, its log is damaged, or it needs a Delta feature that SpineMet lacks; OSError if
    the store does not answer.
    """
    try:
        table = DeltaTable(files.join(uri, name), storage_options=files.delta_options(uri))
        if features := set(table.protocol().reader_features or ()) - SUPPORTED_READER_FEATURES:
            what = f"has the Delta reader feature {', '.join(sorted(features))}, which SpineMet cannot read"
            raise BadInput(f"The table {name} at {uri} {what}; drop it with the tool that set it.")
    except TableNotFoundError as error:
        raise damaged(uri, name, "it has no log", can_go_back=False) from error
    except DeltaError as error:  # a store that fails is an OSError
        raise damaged(uri, name, f"its log cannot be read ({files.cause(error)})", can_go_back=False) from error
    return table


def dataset(uri: str, name: str, table: DeltaTable | None = None) -> pads.Dataset:
    """The rows of the table `name` at `uri`, by default in its newest version; `table` is another one."""
    table = table or open_table(uri, name)
    filesystem, path = files.arrow_filesystem(files.join(uri, name))
    return table.to_pyarrow_dataset(filesystem=pafs.SubTreeFileSystem(path, filesystem))


def damaged(uri: str, name: str, what: str, *, can_go_back: bool = True) -> BadInput:
    """The sentence about a table that cannot be read, with the way back. can_go_back: its log is whole enough."""
    back = f", or go back to an earlier version with: spinemet tables restore {uri} VERSION" if can_go_back else "."
    return BadInput(f"The table {name} at {uri} is damaged: {what}. Put the folder {name} back from a copy{back}")


def check_whole(uri: str, name: str, table: DeltaTable, gone: str = "") -> None:
    """Raise BadInput if a commit of `table` is empty, or a data file is missing or has another size than its log says.

    One listing, and no file is read. Delta itself takes an empty commit for one without changes: the rows that it
    added would be missing without a word. gone: the sentence for missing data files that a vacuum may have removed.
    """
    there = _objects(uri, name)
    since = _checkpoint(uri, name)
    if empty := [version for version in _empty_commits(there) if since < version <= table.version()]:
        raise damaged(uri, name, f"version {empty[0]} of its log is an empty file")
    added = pa.table(table.get_add_actions(flatten=True))
    for path, size in zip(added["path"].to_pylist(), added["size_bytes"].to_pylist(), strict=True):
        found = there.get(unquote(path))
        if found is None and gone:
            raise BadInput(gone)
        if found != size:
            is_now = "is missing" if found is None else f"has {found} bytes, not {size}"
            raise damaged(uri, name, f"its data file {PurePosixPath(path).name} {is_now}")


def commits(uri: str, name: str, table: DeltaTable) -> list[tuple[datetime, int, str]]:
    """The commits of `table`, newest first: the moment that each states, its version and its operation."""
    done = table.history()
    # deltalake numbers what it finds from the newest version down, and finds nothing in an empty commit.
    empty = set(_empty_commits(_objects(uri, name)))
    versions = (version for version in range(table.version(), -1, -1) if version not in empty)
    return [
        (datetime.fromtimestamp(one["timestamp"] / 1000, UTC), version, one["operation"])
        for one, version in zip(done, versions, strict=False)
    ]


def stored_schema(uri: str, name: str) -> pa.Schema | None:
    """The columns of the Delta table `name`, None if there is no such table."""
    # Not DeltaTable.is_deltatable: it holds the GIL while it waits for the store, and an S3 server in the same
    # process (as in tests) then never answers.
    try:
        table = DeltaTable(files.join(uri, name), storage_options=files.delta_options(uri), without_files=True)
    except TableNotFoundError:
        return None
    except DeltaError as error:
        raise damaged(uri, name, f"its log cannot be read ({files.cause(error)})", can_go_back=False) from error
    return pa.schema(table.schema().to_arrow())


def create_table(uri: str, name: str) -> None:
    """Make the empty table `name` at `uri` if it is missing."""
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


def _objects(uri: str, name: str) -> dict[str, int]:
    """Path -> bytes, of every object of the table."""
    store = files.open_store(files.join(uri, name))
    return {meta["path"]: meta["size"] for page in obstore.list(store) for meta in page}


def _empty_commits(objects: Mapping[str, int]) -> list[int]:
    """The versions whose commit is a file of 0 bytes."""
    empty = (PurePosixPath(path) for path, size in objects.items() if not size)
    return sorted(
        int(at.stem) for at in empty if (at.parent.name, at.suffix) == (_LOG, ".json") and at.stem.isdecimal()
    )


def _checkpoint(uri: str, name: str) -> int:
    """The version of the newest checkpoint, from which on Delta reads the log; -1 if there is none."""
    try:
        content = obstore.get(files.open_store(files.join(uri, name)), f"{_LOG}/_last_checkpoint").bytes()
        return int(json.loads(bytes(content))["version"])
    except (FileNotFoundError, ValueError, KeyError):
        return -1
