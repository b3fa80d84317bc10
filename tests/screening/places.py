"""An archive and a model that are enough for planning, although no study or weights can be read; rows of results."""

from __future__ import annotations

import hashlib

from spinemet.files import join, write_bytes
from spinemet.model.card import CARD, WEIGHTS, ModelCard
from spinemet.model.spec import DenseNetSpec, ModelSpec
from spinemet.results import tables
from spinemet.results.schemas import Row

STUDIES = 7
PROVENANCE_COLUMNS = (
    *("run_id", "wave", "committed_at"),
    *(f"seconds_{stage}" for stage in ("headers", "volume", "segmentation", "localize", "slices", "views", "model")),
)
"""Which run wrote a row, when, and how long it took: the only columns that differ between two runs over the same
archive with the same model, configuration and pseudonym key."""
Tables = dict[str, list[Row]]


def write_stub_place(uri: str, studies: int = STUDIES) -> None:
    """Below `uri`: `archive/`, zips of 9 bytes named study-0.zip and so on, and `model/`."""
    for number in range(studies):
        write_bytes(join(uri, f"archive/study-{number}.zip"), b"not a zip")
    write_stub_model(join(uri, "model"))


def write_stub_model(uri: str, weights: bytes = b"weights") -> None:
    """A model card and, as its weights, any bytes."""
    spec = ModelSpec(backbone=DenseNetSpec(growth_rate=4, block_config=(1, 1, 1, 1), init_features=8))
    card = ModelCard(spec=spec, weights_sha256=hashlib.sha256(weights).hexdigest())
    write_bytes(join(uri, WEIGHTS), weights)
    write_bytes(join(uri, CARD), card.model_dump_json().encode())


def rows_in(uri: str) -> Tables:
    """Every row that counts, by table, without the columns that differ between two runs."""
    connection = tables.connect(uri)
    return {
        name: sorted(
            (
                {column: value for column, value in row.items() if column not in PROVENANCE_COLUMNS}
                for row in connection.sql(f"SELECT * FROM {name}").to_arrow_table().to_pylist()
            ),
            key=repr,
        )
        for name in (tables.LEDGER, *tables.SIDE_TABLES)
    }
