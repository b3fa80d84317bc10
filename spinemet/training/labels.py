"""Label tables: read, checked, and reduced to one label per vertebra or slice.

One row per labelled vertebra: `patient`, `level`, and `bone_quality`, `posterolateral` or both. `study` limits a row to
one study (without it, the row holds for every study of the patient). `series` names the series that was labelled, and
`rater` the reader; `origin` tells phantoms and implants from patients. A row with a `slice` labels that slice alone:
its SOPInstanceUID, or its height in mm along z (LPS). Tasks of a recipe may use further columns; others are ignored. An
empty cell is a missing label.
"""

import csv
import difflib
import re
from collections.abc import Iterable, Mapping
from io import BytesIO, StringIO

import pandas as pd
import pyarrow as pa

from spinemet.anatomy import LEVELS, is_named
from spinemet.errors import BadInput
from spinemet.files import normalize, read_bytes
from spinemet.model.tasks import Task, slice_column
from spinemet.types import BONE_QUALITY, POSTEROLATERAL

LabelWords = Mapping[str, tuple[str, ...]]
"""Label column -> the words allowed in it."""

LABEL_CLASSES: dict[str, tuple[str, ...]] = {"bone_quality": BONE_QUALITY, "posterolateral": POSTEROLATERAL}

PLACE = ["patient", "study", "series", "level", "slice"]
"""The columns that name the vertebra, or the slice, that a row labels."""

ORIGINS = {"phantom": "phantoms", "implant": "implanted lesions"}
"""The words in the column `origin`, which `spinemet phantom` and `spinemet implant` write, and what they stand for. An
empty cell, as in a table without the column, stands for a patient."""

NOT_LABELS = ["rater", "origin"]
"""The columns that say something of a row as a whole."""

COLUMNS = [*PLACE, *LABEL_CLASSES, *NOT_LABELS]
_TAKEN = {*PLACE, *NOT_LABELS, "vertebra", "offset_mm", "hu", *map(slice_column, LABEL_CLASSES)}
_POSITION = re.compile(r"[+-]?\d+(\.\d+)?")
_UID = re.compile(r"\d+(\.\d+){2,}")  # at least two dots: a number with one dot is a height
_MISSING = {"", "na", "n/a", "nan", "null"}  # not "none", which is a class


def label_words(tasks: Iterable[Task]) -> dict[str, tuple[str, ...]]:
    """LABEL_CLASSES, and the further columns of `tasks` with their words.

    Raises BadInput if a column already has another meaning in label tables or crops.
    """
    further = [task for task in tasks if task.column not in LABEL_CLASSES]
    words = dict(LABEL_CLASSES)
    for task in further:
        if task.column in _TAKEN:
            raise BadInput(f"task {task.name}: expected a column of its own, found {task.column}, which is taken.")
        same = [one for one in further if one.column == task.column]
        whole = [one.words for one in same if one.kind == "multiclass"]
        words[task.column] = whole[0] if whole else tuple(dict.fromkeys(word for one in same for word in one.words))
    return words


def read_labels(uri: str, words: LabelWords = LABEL_CLASSES) -> pd.DataFrame:
    """The label table at `uri` (CSV or Parquet, local or s3://) with PLACE, the columns of `words` and NOT_LABELS.

    All cells are strings; a missing label is None, any other missing cell "". Upper case and outer blanks do not
    matter. The index is the row as people count: a CSV's header is row 1.

    words: from `label_words`; columns beyond LABEL_CLASSES are required. Raises BadInput if the table cannot be read,
    is empty, lacks or misspells a column, has an unknown word or level, names two patients for one study, or labels one
    vertebra or slice twice (for one rater). The message names row and column.
    """
    uri = normalize(uri)
    raw = _read_table(uri)
    _check_columns(raw, uri, words)
    table = pd.DataFrame({name: _cells(raw, name) for name in (*PLACE, *words, *NOT_LABELS)})
    if table.empty:
        raise BadInput(f"expected labels in {uri}, found a table without rows.")
    _check_cells(table, "patient", table["patient"] != "", "a patient", uri)
    table["level"] = table["level"].str.upper()
    _check_cells(table, "level", table["level"].map(is_named), f"one of {LEVELS[0]} … {LEVELS[-1]}", uri)
    _check_slices(table, uri)
    _check_patients(table, uri)
    table["origin"] = table["origin"].str.lower()
    _check_cells(table, "origin", table["origin"].isin(["", *ORIGINS]), f"nothing or {' or '.join(ORIGINS)}", uri)
    for name, classes in words.items():
        table[name] = table[name].str.lower()
        _check_cells(table, name, table[name].isin(["", *classes]), f"one of {', '.join(classes)}", uri)
        table[name] = table[name].astype(object).where(table[name] != "", None)
    _check_repeats(table, list(words), uri)
    return table


def label_columns(labels: pd.DataFrame) -> list[str]:
    """The columns of a label table that hold labels."""
    return [str(name) for name in labels.columns if name not in (*PLACE, *NOT_LABELS)]


def height_mm(cell: str) -> float | None:
    """The height in a `slice` cell; None if it holds a SOPInstanceUID."""
    return float(cell) if _POSITION.fullmatch(cell) else None


def consensus(labels: pd.DataFrame) -> pd.DataFrame:
    """One row per vertebra or slice: the majority of its raters, or a missing label if they tie.

    labels: from `read_labels`. The result has the columns PLACE, `origin` and the label columns, sorted by PLACE; index
    and origin are those of the first rater's row.
    """

    def majority(words: pd.Series) -> str | None:
        counts = words.dropna().value_counts()
        if counts.empty or (counts == counts.iloc[0]).sum() > 1:
            return None
        return str(counts.index[0])

    names = label_columns(labels)
    first = ~labels.duplicated(PLACE)
    agreed = labels[first].sort_values(PLACE)[[*PLACE, "origin", *names]]
    if not first.all():
        agreed[names] = labels.groupby(PLACE, sort=True)[names].agg(majority).to_numpy(object)
    agreed[names] = agreed[names].astype(object).where(agreed[names].notna(), None)
    return agreed


def _read_table(uri: str) -> pd.DataFrame:
    """The raw table; its index is the number that people give to a row (a CSV's header is row 1)."""
    content = read_bytes(uri)
    is_csv = content[:4] != b"PAR1"
    try:
        table = _read_csv(content, uri) if is_csv else pd.read_parquet(BytesIO(content))
    except (ValueError, pa.ArrowException) as error:
        raise BadInput(f"expected a Parquet table at {uri}, found a broken one.") from error
    return table.set_index(pd.RangeIndex(1 + is_csv, 1 + is_csv + len(table), name="row"))


def _read_csv(content: bytes, uri: str) -> pd.DataFrame:
    """The table of a CSV file, all cells strings. Empty cells beyond the header's, and empty rows at the end, are cut.

    Not by pandas: it takes the first column for an index if rows have a cell more than the header, and skips blank
    lines, so that rows would have other numbers than people see.
    """
    for start, kind in ((b"PK", "an Excel workbook or a zip; save it as CSV"), (b"\x1f\x8b", "a gzip file; unpack it")):
        if content.startswith(start):
            raise BadInput(f"expected a CSV or Parquet table at {uri}, found {kind}.")
    try:
        rows = list(csv.reader(StringIO(content.decode("utf-8-sig"), newline=""), strict=True))
    except UnicodeDecodeError as error:
        raise BadInput(f"expected a CSV table in UTF-8 at {uri}, found another encoding; save it as UTF-8.") from error
    except csv.Error as error:
        raise BadInput(f"expected a CSV table at {uri}, found quotation marks that do not match.") from error
    while rows and not any(cell.strip() for cell in rows[-1]):
        rows.pop()
    if not rows:
        raise BadInput(f"expected a CSV table at {uri}, found an empty file.")
    header = [name.strip() for name in rows[0]]
    for separator, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(header) == 1 and separator in header[0]:
            raise BadInput(f"expected commas between the cells of {uri}, found {name}; save it with commas.")
    while header and not header[-1]:
        header.pop()
    if "" in header or len(set(header)) < len(header):
        raise BadInput(f"{uri}: expected a name of its own for each column, found one twice or a column without one.")
    for number, row in enumerate(rows[1:], start=2):
        extra = any(cell.strip() for cell in row[len(header) :])
        if row and (extra or len(row) < len(header)):
            raise BadInput(f"{uri}: row {number}: expected {len(header)} cells, found {len(row)}.")
    cells = [[*row[: len(header)], *[""] * (len(header) - len(row))] for row in rows[1:]]
    return pd.DataFrame(cells, columns=header, dtype=str)


def _check_columns(raw: pd.DataFrame, uri: str, words: LabelWords) -> None:
    found = [str(name) for name in raw.columns]
    for name in ("patient", "level", *(name for name in words if name not in LABEL_CLASSES)):
        if name not in found:
            raise BadInput(f"{uri}: expected a column {name}, found {', '.join(found)}.")
    expected = [*PLACE, *words, *NOT_LABELS]
    for name in found:
        # Otherwise a misspelt label column would be ignored without a word.
        near = difflib.get_close_matches(name.strip().lower(), expected, n=1, cutoff=0.8)
        if near and name not in expected:
            raise BadInput(f"{uri}: expected a column {near[0]}, found {name}.")
    if not set(words) & set(found):
        raise BadInput(f"{uri}: expected a column {' or '.join(words)}, found {', '.join(found)}.")


def _cells(raw: pd.DataFrame, name: str) -> pd.Series:
    """Column `name` as stripped strings, "" for a missing cell or column."""
    if name not in raw:
        return pd.Series("", raw.index, dtype=str)
    cells = raw[name].astype(object).where(raw[name].notna(), "").astype(str).str.strip()
    return cells.where(~cells.str.lower().isin(_MISSING), "")


def _check_cells(table: pd.DataFrame, column: str, good: pd.Series, expected: str, uri: str) -> None:
    """Raise BadInput for the first cell that is not good."""
    if good.all():
        return
    row = int(table.index[~good.astype(bool)][0])
    # If columns are swapped, the cell holds a patient's name or a UID, which messages must not show.
    found = "another word" if table.at[row, column] else "nothing"
    raise BadInput(f"{uri}: row {row}, column {column}: expected {expected}, found {found}.")


def _check_slices(table: pd.DataFrame, uri: str) -> None:
    """Raise BadInput for a slice that is neither UID nor number, or without a study; writes numbers in one form."""
    cells = table["slice"]
    uids = cells.map(lambda cell: _UID.fullmatch(cell) is not None)
    heights = cells.map(height_mm)
    known = (cells == "") | uids | heights.notna()
    _check_cells(table, "slice", known, "a SOPInstanceUID or a height in mm", uri)
    named = (cells == "") | (table["study"] != "")
    _check_cells(table, "study", named, "the study that the slice belongs to", uri)
    table["slice"] = cells.where(heights.isna(), heights.astype(str))


def _check_patients(table: pd.DataFrame, uri: str) -> None:
    """Raise BadInput if a study has two patients: the model would learn from it as one and be tested on the other."""
    named = table.loc[table["study"] != "", ["study", "patient"]].drop_duplicates()
    later = named.index[named["study"].duplicated()]
    if len(later):
        earlier = int(named.index[named["study"] == named.at[later[0], "study"]][0])
        raise BadInput(
            f"{uri}: row {int(later[0])}, column patient: expected the patient that row {earlier} names for the same "
            "study, found another one."
        )


def _check_repeats(table: pd.DataFrame, names: list[str], uri: str) -> None:
    """Raise BadInput if two rows label the same vertebra or slice; the message names rows, not patients."""
    key = [*PLACE, "rater"]
    repeats = table.index[table.duplicated(key)]
    if not len(repeats):
        return
    later = int(repeats[0])
    earlier = int(table.index[(table[key] == table.loc[later, key]).all(axis=1)][0])
    what = "slice" if table.at[later, "slice"] else "vertebra"
    for name in names:
        words = [str(table.at[row, name] or "nothing") for row in (earlier, later)]
        if words[0] != words[1]:
            raise BadInput(
                f"{uri}: row {later}, column {name}: expected {words[0]} as row {earlier} "
                f"says of the same {what}, found {words[1]}."
            )
    raise BadInput(
        f"{uri}: row {later}, column {'slice' if what == 'slice' else 'level'}: expected each {what} once "
        f"(per rater), found it in row {earlier} too."
    )
