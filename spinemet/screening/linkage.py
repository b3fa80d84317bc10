"""The linkage table: which identifiers the pseudonyms of the results stand for.

One Parquet file per wave, in a place apart from the results; only the owner can read local files.
"""

import io
import os
import re
from pathlib import Path

import obstore
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from obstore.exceptions import BaseError

from spinemet import files
from spinemet.dicom.pseudonym import Pseudonymizer
from spinemet.errors import BadInput, plain_cause
from spinemet.reading import StudyReading
from spinemet.results.schemas import Row
from spinemet.screening.outcome import facts_series
from spinemet.types import StudyRef

COLUMNS = (
    *("source_key", "source", "patient_key", "PatientID", "study_key", "StudyInstanceUID"),
    *("series_key", "SeriesInstanceUID"),
)
_TABLE = re.compile(r"linkage-[^/]+\.parquet")


def linkage_row(ref: StudyRef, reading: StudyReading, names: Pseudonymizer) -> Row:
    """The pseudonyms of one study and the identifiers behind them; "" for those that the study does not give."""
    about = facts_series(reading)
    series = reading.chosen.SeriesInstanceUID if reading.chosen is not None else ""
    return {
        "source_key": names.source_key(ref.archive, ref.key),
        "source": files.join(ref.archive, ref.key) if ref.key else ref.archive,
        "patient_key": names.patient_key(about.PatientID),
        "PatientID": about.PatientID,
        "study_key": names.study_key(about.StudyInstanceUID),
        "StudyInstanceUID": about.StudyInstanceUID,
        "series_key": names.series_key(series),
        "SeriesInstanceUID": series,
    }


class Linkage:
    """The linkage of one run, written wave by wave; writes nothing if `uri` is None."""

    def __init__(self, uri: str | None, names: Pseudonymizer) -> None:
        self._uri = uri
        self._names = names
        self._rows: list[Row] = []

    def add(self, ref: StudyRef, reading: StudyReading) -> None:
        """Add one study to the wave."""
        if self._uri is not None:
            self._rows.append(linkage_row(ref, reading, self._names))

    def write(self, wave: str) -> None:
        """Write the wave's rows. Raises BadInput if the place cannot be written."""
        if self._uri is None:
            return
        # Object keys may hold bytes that are not UTF-8.
        rows = [{k: value.encode(errors="replace").decode() for k, value in row.items()} for row in self._rows]
        table = pa.Table.from_pylist(rows, pa.schema([(column, pa.string()) for column in COLUMNS]))
        _store(files.join(self._uri, f"linkage-{wave}.parquet"), table)
        self._rows.clear()


def erase_linked(uri: str, patient_key: str) -> int:
    """Remove a patient from the linkage tables at `uri`; returns the number of rows.

    Raises BadInput if there is no linkage table, or one cannot be read or written.
    """
    try:
        paths = [meta["path"] for page in obstore.list(files.open_store(uri)) for meta in page]
    except (BaseError, OSError) as error:
        raise BadInput(f"no linkage table can be read at {uri} ({plain_cause(error)}).") from error
    removed = 0
    for place in (files.join(uri, path) for path in paths if _TABLE.fullmatch(path)):
        table = pq.read_table(io.BytesIO(files.read_bytes(place)))
        kept = table.filter(pc.not_equal(table["patient_key"], patient_key))
        removed += len(table) - len(kept)
        if not len(kept):
            files.delete(place)
        elif len(kept) < len(table):
            _store(place, kept)
    return removed


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, from its first byte on, in a folder that only its owner can enter.

    A folder that is there already keeps its mode. Raises BadInput if the place cannot be written.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
        part.replace(path)
    except OSError as error:
        raise BadInput(f"cannot write the linkage to {path.parent}: {error.strerror}.") from error


def check_linkage_apart(linkage: str, results: str) -> None:
    """Raise BadInput if linkage and results lie in one another: readers of the results could read the names."""
    one, other = (f"{files.resolved(place)}/" for place in (linkage, results))
    if one.startswith(other) or other.startswith(one):
        raise BadInput(f"expected a linkage place apart from the results {results}, found {linkage}.")


def _store(place: str, table: pa.Table) -> None:
    content = io.BytesIO()
    pq.write_table(table, content)
    if files.is_s3(place):
        files.write_bytes(place, content.getvalue())
    else:
        write_private(Path(place), content.getvalue())
