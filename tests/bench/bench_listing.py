"""Speed and memory of turning a listing of 10 million objects into studies, without a store.

In a real night the store is the limit: S3 lists 1,000 objects per request, so 10 million take 10,000 requests.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from unittest import mock

from spinemet.archive.listing import list_studies
from spinemet.archive.store import LocalStore
from spinemet.types import ObjectRef
from tests.bench.figures import Figures

OBJECTS = 10_000_000
PER_SERIES = 300
SERIES = 3


def run() -> Figures:
    """Objects per second and growth of this process, for an archive grouped by its keys and one grouped by headers."""
    figures = Figures(
        f"Planning an archive of {OBJECTS:,} objects", ("layout", "studies", "objects/s", "growth of the process, MB")
    )
    for layout, depth in (("patient/study/series/object", 3), ("patient/series/object", 2)):
        before, start = _peak_mb(), time.perf_counter()
        studies = _planned(_listing(depth))
        figures.add(layout, studies, OBJECTS / (time.perf_counter() - start), _peak_mb() - before)
    return figures


def _planned(listing: Iterator[ObjectRef]) -> int:
    with (
        mock.patch.object(LocalStore, "objects", return_value=listing),
        mock.patch.object(LocalStore, "read", _head),
    ):
        return sum(1 for _ in list_studies("/archive"))


def _listing(depth: int) -> Iterator[ObjectRef]:
    """Studies of SERIES series with PER_SERIES objects each, in the order of their keys."""
    for number in range(OBJECTS):
        study, place = divmod(number, PER_SERIES * SERIES)
        series, item = divmod(place, PER_SERIES)
        folder = f"p{study:06}/s/{series}" if depth == 3 else f"p{study:06}/{series}"
        yield ObjectRef(f"{folder}/{item:04}.dcm", 500_000)


def _head(_store: LocalStore, key: str, _size: int) -> bytes:
    """A header that names the study of the key's patient."""
    uid = f"1.2.{int(key[1:7]):07}".encode() + b"\0"
    return b"\x08\x00\x60\x00CS\x02\x00CT" + b"\x20\x00\x0d\x00UI" + len(uid).to_bytes(2, "little") + uid


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
