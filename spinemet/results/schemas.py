"""The result tables' columns as Arrow schemas; names, types and meaning stand in schemas.toml.

The description of a column travels as its field metadata `comment`, where Spark and Delta look for it, and makes the
data dictionary (`dictionary`). No column holds an identifier: keys are pseudonyms, and of the free text in DICOM
headers only what describes the device is kept.

| table | a row is unique by |
|---|---|
| `studies`, `pictures` | source_key, model_digest, config_digest |
| `vertebrae` | the same and vertebra |
| `calls` | the same, vertebra, task and class |
| `slices` | the same, vertebra, slice, task and class |
| `runs` | run_id |
"""

import tomllib
from enum import StrEnum
from pathlib import Path
from typing import Any

import pyarrow as pa

from spinemet.types import BONE_QUALITY, MEASURES, POSTEROLATERAL

Row = dict[str, Any]
"""A table's row: column -> value."""


class RunState(StrEnum):
    """Column `state` of `runs`. A run that was killed stays `running`."""

    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"


KEY_COLUMNS: tuple[str, ...] = ("source_key", "model_digest", "config_digest")
"""The key of the ledger: where a study lies, and the model and configuration that read it."""

PARTITION_COLUMN = "model_digest"
"""Planning for a model, and dropping the rows of a stale one, then read that model's files only."""

LABEL_COLUMNS: tuple[str, ...] = ("bone_quality", "posterolateral")
"""Tasks whose most probable class has a column of the same name in `vertebrae`."""

PROBABILITY_COLUMNS: dict[str, tuple[str, str]] = {
    **{f"p_{'only_' if name in {'blastic', 'lytic'} else ''}{name}": ("bone_quality", name) for name in BONE_QUALITY},
    "p_blastic": ("blastic", "yes"),
    "p_lytic": ("lytic", "yes"),
    **{f"p_posterolateral_{name}": ("posterolateral", name) for name in POSTEROLATERAL},
}
"""The probabilities that `vertebrae` repeats from `calls`: column -> (task, class)."""


_TYPES = {"moment": pa.timestamp("us", tz="UTC"), "words": pa.list_(pa.string())}


def _column(name: str, kind: str, description: str) -> pa.Field:
    bare = kind.removesuffix("?")
    found = _TYPES.get(bare) or pa.type_for_alias(bare)
    return pa.field(name, found, nullable=bare != kind, metadata={"comment": description})


def _schemas() -> dict[str, pa.Schema]:
    tables = tomllib.loads(Path(__file__).with_name("schemas.toml").read_text())
    groups = tables.pop("groups") | {"measures": [[one.name, "float64?", one.description] for one in MEASURES]}
    return {
        name: pa.schema(
            [_column(*one) for part in table["columns"] for one in (groups[part] if isinstance(part, str) else [part])],
            metadata={"description": table["description"]},
        )
        for name, table in tables.items()
    }


SCHEMAS: dict[str, pa.Schema] = _schemas()
"""The tables of a results place, by name."""


def describe(table: str) -> list[tuple[str, str, str]]:
    """(column, type, description) of each column of `table`, in order."""
    return [(column.name, _type_name(column), column.metadata[b"comment"].decode()) for column in SCHEMAS[table]]


def dictionary() -> str:
    """The data dictionary of all tables as Markdown, a section per table."""
    sections = []
    for name, schema in SCHEMAS.items():
        rows = [f"| `{column}` | {kind} | {description} |" for column, kind, description in describe(name)]
        head = [f"### `{name}`", "", schema.metadata[b"description"].decode(), "", "| column | type | meaning |"]
        sections.append("\n".join([*head, "|---|---|---|", *rows]))
    return "\n\n".join(sections) + "\n"


def _type_name(column: pa.Field) -> str:
    name = f"list of {column.type.value_type}" if pa.types.is_list(column.type) else str(column.type)
    return f"{name}, or null" if column.nullable else name
