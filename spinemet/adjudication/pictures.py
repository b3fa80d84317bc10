"""What a reader sees of a vertebra: its part of the straightened spine from two sides, the vertebra in the middle."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

from PIL import Image

from spinemet.cohort.views import records
from spinemet.results.schemas import Row

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb

FRONT_MM, BEHIND_MM = 54, 40
"""Columns of the sagittal picture before and behind the canal."""
SIDE_MM = 43
"""Columns of the coronal picture on each side of the canal."""
NEIGHBOURS = 3
"""Rows over and under the middle of the vertebra, in heights of its body."""
LEAST_MM, MOST_MM = 46, 66
"""The same in mm at least and at most."""


def pictures(connection: duckdb.DuckDBPyConnection, places: Sequence[tuple[str, int]]) -> list[Row]:
    """Of each of `places`, (source_key, vertebra), the two pictures as data URIs, and what a page needs to show them.

    `sagittal`, `coronal`: PNG of 1 mm pixels, anterior and the right side left; outside of the scan they are black.
    `rows`: of both. `half_mm`: from the middle row, which is that of the body's centre, to its endplates.
    """
    sources = sorted({source for source, _ in places})
    marks = ", ".join("?" * len(sources))  # a list of constants reaches the scan, which then leaves out whole files
    found = {
        row["source_key"]: row
        for row in records(
            connection,
            "select source_key, sagittal_png, coronal_png, canal_column from pictures"
            " where model_digest = (select model from asked) and config_digest = (select configuration from asked)"
            f" and source_key in ({marks})",
            sources,
        )
    }
    bodies = {
        (row["source_key"], row["vertebra"]): row
        for row in records(
            connection,
            f"select source_key, vertebra, canal_mm, height_mm from current_vertebrae where source_key in ({marks})",
            sources,
        )
    }
    return [_shown(found[source] | bodies[source, vertebra]) for source, vertebra in places]


def _shown(row: Row) -> Row:
    half = round(min(max(NEIGHBOURS * row["height_mm"], LEAST_MM), MOST_MM))
    middle, canal = round(row["canal_mm"]), row["canal_column"]
    sagittal, coronal = (Image.open(io.BytesIO(row[name])) for name in ("sagittal_png", "coronal_png"))
    centre = coronal.width // 2
    rows = (middle - half, middle + half + 1)
    return {
        "sagittal": _data_uri(sagittal.crop((canal - FRONT_MM, rows[0], canal + BEHIND_MM, rows[1]))),
        "coronal": _data_uri(coronal.crop((centre - SIDE_MM, rows[0], centre + SIDE_MM + 1, rows[1]))),
        "rows": 2 * half + 1,
        "half_mm": round(row["height_mm"] / 2, 1),
    }


def _data_uri(picture: Image.Image) -> str:
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
