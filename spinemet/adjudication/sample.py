"""A sample for readers as two files: the page that they get, and the key that they must not see."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from spinemet.adjudication.drawing import FLOOR, Sample, draw_sample
from spinemet.adjudication.page import page
from spinemet.adjudication.pictures import pictures
from spinemet.adjudication.sheets import write_private
from spinemet.errors import BadInput
from spinemet.files import write_bytes

if TYPE_CHECKING:
    import duckdb


def key_of(out: Path) -> Path:
    """Where the key of the page `out` lies: `readers.key.csv` for `readers.html`."""
    return out.with_suffix(".key.csv")


def write_sample(
    connection: duckdb.DuckDBPyConnection,
    out: Path,
    size: int,
    seed: int,
    *,
    sizes: Mapping[str, int] | None = None,
    floor: int = FLOOR,
    repeat: float = 0.1,
) -> Sample:
    """Draw a sample (`draw_sample`) and write its page to `out` and its key to `key_of(out)`.

    Only the owner can read the key. It is never overwritten: without it, the sheets of its readers are worth nothing.
    Raises BadInput as `draw_sample` does, and if there is a key already or a file cannot be written.
    """
    if key_of(out).exists():
        raise BadInput(f"{key_of(out)} exists already, the key of an earlier sample: use another name for this one.")
    found = draw_sample(connection, size, seed, sizes=sizes, floor=floor, repeat=repeat)
    html = page(found.digest, found.key["item"].tolist(), pictures(connection, found.places))
    write_private(key_of(out), found.key.to_csv(index=False))
    try:
        write_bytes(str(out), html.encode())
    except BadInput:
        key_of(out).unlink()  # nobody has the page
        raise
    return found
