"""Crops: the labelled slices of a data set, cut once and stored as Parquet shards with a manifest.

A folder of crops holds `crops.json` (CropsInfo) and `slices/<digest>.parquet`, one shard per study. Shards are named
after their content, so writing one again changes nothing. `crops.json` is written last and lists the shards that count.
Shards name nobody: whose they are stands in the manifest, as the same keyed pseudonyms as in the result tables (see
`dicom.pseudonym`), so that only the key's owner can tell who is in them.
N slices, H rows, W columns.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import obstore
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, ValidationError

from spinemet import __version__
from spinemet.archive.objects import in_order
from spinemet.config import FrozenModel, SliceConfig, changed
from spinemet.dicom.pseudonym import Pseudonymizer
from spinemet.errors import BadInput
from spinemet.files import join, normalize, open_store, read_bytes, write_bytes
from spinemet.model.tasks import slice_column
from spinemet.reading import Screened
from spinemet.training.labels import LABEL_CLASSES, label_columns
from spinemet.training.matching import Matches

MANIFEST = "crops.json"
SHARDS = "slices"
IN_MEMORY_BYTES = 2 << 30
"""Larger sets are memory-mapped from a file that all training processes of a machine share."""

SCHEMA = pa.schema(
    [
        pa.field("level", pa.string(), nullable=False),
        pa.field("offset_mm", pa.float32(), nullable=False),
        pa.field("hu", pa.binary(), nullable=False),  # int16, little endian, H x W
        pa.field("bone_quality", pa.string()),
        pa.field("posterolateral", pa.string()),
    ]
)
"""The columns of every shard. Further label columns of the label table follow, then one `slice_<column>` per label
column if the table labels single slices."""

WHOSE = ("patient", "archive_patient", "study")
"""The columns of Crops.table that say whose the slices are; see Shard."""

WHERE = (*WHOSE, "level", "vertebra", "offset_mm")
"""The first columns of Crops.table; those with labels follow."""


class Shard(FrozenModel):
    """The crops of one study.

    patient: of the label table, which says who is the same person; archive_patient: of the study's PatientID, as in the
    result tables, "" without one. The two differ if archive and labels were de-identified in different ways. study: of
    its StudyInstanceUID, or of the SeriesInstanceUID if that is missing. In a manifest, all three are pseudonyms.
    """

    name: str
    slices: int
    vertebrae: int
    patient: str = ""
    archive_patient: str = ""
    study: str = ""

    def under(self, names: Pseudonymizer) -> Shard:
        """The shard with pseudonyms in place of identifiers."""
        return changed(
            self,
            patient=names.patient_key(self.patient),
            archive_patient=names.patient_key(self.archive_patient),
            study=names.study_key(self.study),
        )


class CropsInfo(FrozenModel):
    """The manifest: how the slices were cut, which shards count, and how many labels and studies were used.

    pseudonym_key_id: of the key of the pseudonyms, see `Pseudonymizer.key_id`.
    classes: label column -> class -> number of vertebrae. slice_classes: the same for labels of single slices; empty
    without any. labels_unmatched: labels without a whole vertebra, or without a slice of one. strays: rows of the label
    table (as people count) whose `slice` is not the SOPInstanceUID of exactly one slice of the study. problems: reason
    -> number of studies that could not be used. unlisted: what could not be listed -> how often. trained_on: what the
    vertebrae are of (`phantoms`), if the label table says that they are not all of patients.
    """

    slice_config: SliceConfig
    config_digest: str
    pseudonym_key_id: str
    shards: tuple[Shard, ...]
    patients: int
    studies: int
    vertebrae: int
    slices: int
    classes: dict[str, dict[str, int]]
    slice_classes: dict[str, dict[str, int]] = Field(default_factory=dict)
    labels_unmatched: int = 0
    strays: tuple[int, ...] = ()
    problems: dict[str, int] = Field(default_factory=dict)
    unlisted: dict[str, int] = Field(default_factory=dict)
    trained_on: str = ""
    software_version: str = __version__

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that change with any pixel, label, pseudonym or reading setting."""
        names = "".join(f"{shard.name}{shard.patient}{shard.archive_patient}{shard.study}" for shard in self.shards)
        return hashlib.sha256(f"{names}{self.slice_config.model_dump_json()}".encode()).hexdigest()[:12]

    @property
    def label_columns(self) -> list[str]:
        """The columns with labels of vertebrae, then those with labels of single slices (if any)."""
        return [*dict.fromkeys([*LABEL_CLASSES, *self.classes]), *map(slice_column, self.slice_classes)]

    def __str__(self) -> str:
        """A summary of a few lines."""
        lines = [
            f"{self.slices} slices of {self.vertebrae} vertebrae, {self.studies} studies, {self.patients} patients"
        ]
        for what, classes in (("", self.classes), (" of single slices", self.slice_classes)):
            for column, counts in classes.items():
                lines.append(f"{column}{what}: " + ", ".join(f"{name} {count}" for name, count in counts.items()))
        lines.append(f"labels without a whole vertebra or a slice of it: {self.labels_unmatched}")
        if self.strays:
            rows = ", ".join(map(str, self.strays[:20])) + (", …" if len(self.strays) > 20 else "")
            lines.append(
                f"label row {rows}, column slice: expected the SOPInstanceUID of one slice of the study, found another"
            )
        lines += [f"studies not used, {reason}: {count}" for reason, count in self.problems.items()]
        lines += [f"not listed, {kind}: {count}" for kind, count in self.unlisted.items()]
        return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class Crops:
    """A data set in memory or memory-mapped; its order depends on its content only.

    hu_NHW: int16 HU. table: one row per slice in the same order: the columns WHERE (vertebra counts from 0 over the
    whole set), then `info.label_columns`, None without a label. The slices of a vertebra follow each other, cranial
    first.
    """

    hu_NHW: npt.NDArray[np.int16]
    table: pd.DataFrame
    info: CropsInfo

    def take(self, rows: npt.NDArray[np.bool_]) -> Crops:
        """The crops of the rows selected by an (N,) mask; vertebrae keep their numbers."""
        return Crops(self.hu_NHW[rows], self.table[rows].reset_index(drop=True), self.info)


# ---- from a reading to rows -----------------------------------------------------------------------------------


def crop_rows(reading: Screened, labels: pd.DataFrame, matches: Matches) -> pa.Table:
    """The reading's labelled vertebrae as SCHEMA describes: a row per slice, cranial first; may have no rows.

    labels: from `training.labels.consensus`. matches: from `training.matching.match_labels`, for these two.
    """
    schema, names = _schema(labels), label_columns(labels)
    columns: dict[str, list[object]] = {name: [] for name in schema.names}
    for n, match in matches.vertebrae.items():
        stack = reading.stacks[n]
        count = len(stack.hu_NHW)
        columns["level"] += [stack.level] * count
        columns["offset_mm"] += [float(offset_mm) for offset_mm in stack.offsets_mm]
        columns["hu"] += [hu_HW.astype("<i2").tobytes() for hu_HW in stack.hu_NHW]
        for name in names:
            columns[name] += [_word(labels, name, match.row)] * count
            if slice_column(name) in columns:
                own = match.slices.get(name, (None,) * count)
                columns[slice_column(name)] += [_word(labels, name, row) for row in own]
    return pa.table(columns, schema=schema)


def _schema(labels: pd.DataFrame) -> pa.Schema:
    names = label_columns(labels)
    further = [name for name in names if name not in LABEL_CLASSES]
    if (labels["slice"] != "").any():
        further += map(slice_column, names)
    return pa.schema([*SCHEMA, *(pa.field(name, pa.string()) for name in further)])


def _word(labels: pd.DataFrame, name: str, row: int | None) -> str | None:
    return None if row is None else labels[name].iloc[row]


def whose(reading: Screened, labels: pd.DataFrame, matches: Matches) -> dict[str, str]:
    """The identifiers of a reading with matched labels, by the names WHOSE; see Shard."""
    first = next(iter(matches.vertebrae.values()))
    row = next(row for row in (first.row, *sorted(first.slice_rows)) if row is not None)
    chosen = reading.chosen
    return {
        "patient": str(labels["patient"].iloc[row]),
        "archive_patient": chosen.PatientID,
        "study": chosen.StudyInstanceUID or chosen.SeriesInstanceUID,
    }


# ---- writing --------------------------------------------------------------------------------------------------


def check_writable(uri: str) -> None:
    """Raise BadInput if `uri` cannot be written; leaves at most an empty folder."""
    write_bytes(join(uri, SHARDS, ".probe"), b"")
    obstore.delete(open_store(join(uri, SHARDS)), ".probe")


def write_shard(uri: str, rows: pa.Table) -> Shard:
    """Store one study's rows in the crops folder `uri`; a repeat changes nothing."""
    digest = hashlib.sha256()
    for name in rows.column_names:
        for value in rows[name].to_pylist():
            digest.update(value if isinstance(value, bytes) else f"{value!r}\0".encode())
    shard = Shard(name=digest.hexdigest()[:24], slices=rows.num_rows, vertebrae=len(set(rows["level"].to_pylist())))
    buffer = BytesIO()
    pq.write_table(rows, buffer, compression="zstd")
    write_bytes(join(uri, SHARDS, f"{shard.name}.parquet"), buffer.getvalue())
    return shard


def write_manifest(uri: str, info: CropsInfo) -> None:
    """Write the manifest to `uri`, then remove the shards of earlier runs."""
    write_bytes(join(uri, MANIFEST), (info.model_dump_json(indent=2) + "\n").encode())
    wanted = {f"{shard.name}.parquet" for shard in info.shards}
    store = open_store(join(uri, SHARDS), create=True)
    stale = [entry["path"] for batch in obstore.list(store) for entry in batch if entry["path"] not in wanted]
    if stale:
        obstore.delete(store, stale)


# ---- reading --------------------------------------------------------------------------------------------------


def read_info(uri: str) -> CropsInfo:
    """The manifest of the crops at `uri`. Raises BadInput if there are none."""
    where = normalize(uri)
    try:
        return CropsInfo.model_validate_json(read_bytes(join(where, MANIFEST)))
    except BadInput as error:
        raise BadInput(f"expected crops (a folder with {MANIFEST}) at {where}, found none.") from error
    except ValidationError as error:
        missing = {place["loc"] for place in error.errors() if place["type"] == "missing"}
        if missing == {("pseudonym_key_id",)}:
            raise BadInput(
                f"the crops at {where} are of an earlier version, with patients as hashes without a key: "
                "delete them, and make them again with jobs/prepare.py."
            ) from error
        raise BadInput(f"expected crops at {where}, found a {MANIFEST} of another kind.") from error


def read_crops(uri: str, in_memory_bytes: int = IN_MEMORY_BYTES) -> Crops:
    """The crops at `uri`, local or s3://; `hu_NHW` is memory-mapped if the pixels take more than `in_memory_bytes`.

    Raises BadInput if there are no crops, or a shard is missing or damaged.
    """
    info = read_info(uri)
    size = info.slice_config.size_px
    shape = (info.slices, size, size)
    if info.slices * size * size * 2 <= in_memory_bytes:
        hu_NHW: npt.NDArray[np.int16] = np.empty(shape, np.int16)
        return Crops(hu_NHW, _fill(uri, info, hu_NHW), info)
    return _read_mapped(uri, info, shape)


def _read_mapped(uri: str, info: CropsInfo, shape: tuple[int, int, int]) -> Crops:
    cache = own_cache()
    ready = cache / f"crops-{info.digest}.npy"
    if ready.exists():
        hu_NHW = np.load(ready, mmap_mode="r", allow_pickle=False)
        if (hu_NHW.shape, hu_NHW.dtype) == (shape, np.int16):
            return Crops(hu_NHW, _fill(uri, info, None), info)
    # Several processes may each fill a copy at the same time; the last rename wins, and all copies are equal.
    filling = cache / f"{ready.name}.{os.getpid()}"
    hu_NHW = np.lib.format.open_memmap(filling, mode="w+", dtype=np.int16, shape=shape)
    table = _fill(uri, info, hu_NHW)
    hu_NHW.flush()
    filling.replace(ready)
    return Crops(np.load(ready, mmap_mode="r"), table, info)


def own_cache() -> Path:
    """The folder for memory-mapped crops below the temporary folder, which only this user can enter.

    Raises BadInput if somebody else made a folder of that name, or others can write to it: training would believe
    their pixels.
    """
    cache = Path(tempfile.gettempdir()) / f"spinemet-{os.getuid()}"
    with suppress(FileExistsError):
        cache.mkdir(mode=0o700)
    found = cache.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise BadInput(
            f"expected a folder of this user that nobody else can enter at {cache}, found another one. Remove it, or "
            "set TMPDIR to a folder of your own."
        )
    return cache


def _fill(uri: str, info: CropsInfo, hu_NHW: npt.NDArray[np.int16] | None) -> pd.DataFrame:
    """The table of all shards in the manifest's order; also copies their pixels into `hu_NHW` if given."""
    place = [name for name in WHERE if name not in {*WHOSE, "vertebra"}]
    columns = [*place, *info.label_columns, *(["hu"] if hu_NHW is not None else [])]
    tables, start, vertebrae = [], 0, 0
    with ThreadPoolExecutor(8) as pool:
        for shard, rows in in_order(pool, lambda shard: _read_shard(uri, shard, columns), info.shards, ahead=16):
            if hu_NHW is not None:
                pixels = np.frombuffer(b"".join(rows["hu"].to_pylist()), "<i2")
                hu_NHW[start : start + shard.slices] = pixels.reshape(-1, *hu_NHW.shape[1:])
            table = rows.select([*place, *info.label_columns]).to_pandas()
            table["vertebra"] = vertebrae + pd.factorize(table["level"])[0]
            table[list(WHOSE)] = [getattr(shard, name) for name in WHOSE]
            tables.append(table)
            start, vertebrae = start + shard.slices, vertebrae + shard.vertebrae
    table = pd.concat(tables, ignore_index=True)
    for name in info.label_columns:
        table[name] = table[name].astype(object).where(table[name].notna(), None)
    return table[[*WHERE, *info.label_columns]]


def _read_shard(uri: str, shard: Shard, columns: list[str]) -> pa.Table:
    content = read_bytes(join(uri, SHARDS, f"{shard.name}.parquet"))
    try:
        rows = pq.read_table(BytesIO(content), columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"expected a shard of crops in {normalize(uri)}, found a damaged one: {shard.name}.") from error
    if rows.num_rows != shard.slices:
        raise BadInput(f"expected {shard.slices} slices in the shard {shard.name}, found {rows.num_rows}.")
    return rows
