"""The linkage table: which identifiers the pseudonyms of the results stand for.

One Parquet file per wave, in a place apart from the results; only the owner can read local files.
"""

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from spinemet import files
from spinemet.dicom.pseudonym import Pseudonymizer
from spinemet.errors import BadInput
from spinemet.reading import StudyReading
from spinemet.results.schemas import Row
from spinemet.screening.outcome import facts_series
from spinemet.types import StudyRef

COLUMNS = (
    *("source_key", "source", "patient_key", "PatientID", "study_key", "StudyInstanceUID"),
    *("series_key", "SeriesInstanceUID"),
)


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
        content = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows, pa.schema([(column, pa.string()) for column in COLUMNS])), content)
        place = files.join(self._uri, f"linkage-{wave}.parquet")
        files.write_bytes(place, content.getvalue())
        if not files.is_s3(place):
            Path(place).chmod(0o600)
        self._rows.clear()


def check_linkage_apart(linkage: str, results: str) -> None:
    """Raise BadInput if linkage and results lie in one another: readers of the results could read the names."""
    one, other = f"{files.normalize(linkage)}/", f"{files.normalize(results)}/"
    if one.startswith(other) or other.startswith(one):
        raise BadInput(f"expected a linkage place apart from the results {results}, found {linkage}.")
