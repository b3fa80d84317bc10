"""The key of a sample and the sheets of its readers, as CSV: written, read and checked.

A reader may have opened the sheet in a spreadsheet: another separator, a byte order mark, capitals and blanks around
a word are accepted. Whatever could make a result wrong is refused: an answer that is missing or not one of those that
the page offers, an item twice or not at all, another sample. Messages name file, row and item; items say nothing.
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pandas as pd

from spinemet.adjudication.drawing import KEY_COLUMNS, NUMBERS, digest_of
from spinemet.adjudication.page import CANNOT_JUDGE, QUESTIONS
from spinemet.errors import BadInput, plain_cause
from spinemet.files import read_bytes

SHEET_COLUMNS = ("sample", "reader", "item", *QUESTIONS, "comment")


@dataclass(frozen=True, eq=False)
class Sheet:
    """The answers of one reader. answers: indexed by item, a column per question."""

    reader: str
    answers: pd.DataFrame


def write_private(path: Path, content: str) -> None:
    """Write a new file that only its owner can read. Raises BadInput if there is one already, or it cannot be made."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", newline="") as file:
            file.write(content)
    except FileExistsError as error:
        raise BadInput(f"{path} exists already: use another name, or remove it if nobody needs it.") from error
    except OSError as error:
        raise BadInput(f"cannot write {path} ({plain_cause(error)}).") from error


def read_key(place: str) -> pd.DataFrame:
    """The key of a sample, with KEY_COLUMNS. Raises BadInput if the file is none, or was changed."""
    table = _read_table(place)
    if missing := [name for name in KEY_COLUMNS if name not in table]:
        raise BadInput(f"expected the key of a sample at {place} (a file .key.csv), found no column {missing[0]}.")
    table = table[list(KEY_COLUMNS)].reset_index(drop=True)
    if table.empty or (table["sample"] != digest_of(table)).any():
        raise BadInput(
            f"the key {place} was changed: its content does not fit the name of the sample. Use the original."
        )
    return table.assign(**{name: pd.to_numeric(table[name]) for name in NUMBERS})


def read_sheet(place: str, key: pd.DataFrame) -> Sheet:
    """The answers in the sheet at `place`, one for each item of `key`. Raises BadInput as the module says."""
    table = _read_table(place)
    if missing := [name for name in SHEET_COLUMNS[:-1] if name not in table]:
        raise BadInput(f"expected a sheet that a reader saved at {place}, found no column {missing[0]}.")
    _check_sample(table, key, place)
    readers = sorted(set(table["reader"]))
    if len(readers) != 1 or not readers[0]:
        raise BadInput(f"expected the answers of one reader in {place}, found {', '.join(readers) or 'no name'}.")
    table["item"] = table["item"].str.lower()
    _check_items(table["item"], key["item"].tolist(), place)
    for question, words in QUESTIONS.items():
        table[question] = table[question].str.lower().str.replace("_", " ")
        for row, item, word in zip(table.index, table["item"], table[question], strict=True):
            if word not in words:
                found = f"found {word}" if word else f"found no answer; if none can be given, choose {CANNOT_JUDGE}"
                where = f"{place}: row {row} (item {item}), column {question}"
                raise BadInput(f"{where}: expected one of {', '.join(words)}, {found}.")
    return Sheet(readers[0], table.set_index("item")[list(QUESTIONS)].reindex(key["item"]))


def read_sheets(places: Sequence[str], key: pd.DataFrame) -> list[Sheet]:
    """The sheets at `places`. Raises BadInput as `read_sheet`, and if two are of the same reader."""
    sheets = [read_sheet(place, key) for place in places]
    twice = [name for name, count in Counter(sheet.reader.lower() for sheet in sheets).items() if count > 1]
    if twice:
        raise BadInput(f"expected one sheet of each reader, found several of {twice[0]}: give the last one only.")
    return sheets


def _check_sample(table: pd.DataFrame, key: pd.DataFrame, place: str) -> None:
    sample = key["sample"].iloc[0]
    others = sorted(set(table["sample"].str.lower()) - {sample})
    if table.empty or others:
        found = f"sample {others[0] or 'without a name'}" if others else "no answers"
        raise BadInput(f"expected answers to sample {sample} in {place}, found {found}.")


def _check_items(items: pd.Series, known: list[str], place: str) -> None:
    seen: dict[str, int] = {}
    for row, item in zip(items.index, items, strict=True):
        if item in seen:
            raise BadInput(f"{place}: row {row}: item {item} stands in row {seen[item]} too; keep one of them.")
        if item not in known:
            raise BadInput(f"{place}: row {row}: expected an item of the sample, found {item or 'none'}.")
        seen[item] = row
    if missing := sorted(set(known) - set(items)):
        raise BadInput(
            f"{place}: {len(missing)} of {len(known)} items have no row, such as {missing[0]}: save the sheet again."
        )


def _read_table(place: str) -> pd.DataFrame:
    """A CSV file: cells without blanks around them, names of columns in lower case; the index is the row in the file.

    Rows that are empty are left out.
    """
    try:
        text = read_bytes(place).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"expected a CSV file in UTF-8 at {place}, found another kind; save it as CSV UTF-8.") from error
    first = text.splitlines()[0] if text.strip() else ""
    separator = max(",;\t", key=first.count)
    try:
        found = list(csv.reader(StringIO(text, newline=""), delimiter=separator, strict=True))
    except csv.Error as error:
        raise BadInput(f"expected a CSV file at {place}, found quotation marks that do not match.") from error
    rows = {n: [cell.strip() for cell in row] for n, row in enumerate(found, start=1) if any(map(str.strip, row))}
    if not rows:
        raise BadInput(f"expected a CSV file at {place}, found an empty file.")
    header = [name.lower() for name in rows.pop(min(rows))]
    while header and not header[-1]:
        header.pop()
    if len(set(header)) < len(header):
        raise BadInput(f"expected each column once in {place}, found one twice.")
    width = len(header)
    for number, row in rows.items():
        if any(row[width:]):
            raise BadInput(f"{place}: row {number}: expected {width} cells, found {len(row)}.")
    cells = [(row + [""] * width)[:width] for row in rows.values()]
    return pd.DataFrame(cells, columns=header, index=list(rows), dtype=str)


def read_sizes(place: str) -> dict[str, int]:
    """Stratum -> vertebrae to draw, of a CSV file with the columns `stratum` and `drawn`, as `sample` prints.

    Raises BadInput if the file is none, names a stratum twice, or has anything but whole numbers.
    """
    table = _read_table(place)
    if not {"stratum", "drawn"} <= set(table) or table["stratum"].duplicated().any():
        raise BadInput(f"expected the columns stratum and drawn in {place}, and each stratum once.")
    if odd := [word for word in table["drawn"] if not word.isdecimal()]:
        raise BadInput(f"expected whole numbers in the column drawn of {place}, found {odd[0] or 'nothing'}.")
    return {stratum: int(drawn) for stratum, drawn in zip(table["stratum"], table["drawn"], strict=True)}
