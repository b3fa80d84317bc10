"""Label tables: what people said of vertebrae, checked, and the split of patients into parts.

One row per labelled vertebra: `patient`, `level`, and `bone_quality` and/or `posterolateral`. `study` narrows a row to
one study (without it, it holds for every study of the patient), `series` says on which of the study's series it was
made, and `rater` tells the rows of several readers of one vertebra apart. Other columns are left alone. An empty cell
is a missing label.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Hashable, Iterable, Mapping
from io import BytesIO
from typing import Literal

import pandas as pd
import pyarrow as pa

from spinemet.anatomy import LEVELS, is_named
from spinemet.errors import BadInput
from spinemet.storage.files import normalize, read_bytes
from spinemet.types import BONE_QUALITY, POSTEROLATERAL

Part = Literal["train", "validation", "test"]

LABEL_CLASSES: dict[str, tuple[str, ...]] = {"bone_quality": BONE_QUALITY, "posterolateral": POSTEROLATERAL}
"""Label column to its words."""

PLACE = ["patient", "study", "series", "level"]
"""The columns that say which vertebra a row speaks of."""

COLUMNS = [*PLACE, *LABEL_CLASSES, "rater"]
_MISSING = {"", "na", "n/a", "nan", "null"}  # not "none", which is a class


def read_labels(uri: str) -> pd.DataFrame:
    """The label table at `uri` (CSV or Parquet, local or s3://), with COLUMNS in that order and all cells strings.

    A missing label is None, any other missing cell "". Words may differ from the classes in case and outer blanks.

    Raises BadInput, which names row, column, expected and found, where the table is missing, not a table, empty,
    lacks a column, misspells one, holds an unknown word or level, or says two things of one vertebra (of one rater).
    """
    uri = normalize(uri)
    raw, first_row = _read_table(uri)
    _check_columns(raw, uri)
    table = pd.DataFrame({name: _cells(raw, name) for name in COLUMNS})
    if table.empty:
        raise BadInput(f"expected labels in {uri}, found a table without rows.")
    _check_cells(table, "patient", table["patient"] != "", "a patient", uri, first_row)
    table["level"] = table["level"].str.upper()
    _check_cells(table, "level", table["level"].map(is_named), f"one of {LEVELS[0]} … {LEVELS[-1]}", uri, first_row)
    for name, classes in LABEL_CLASSES.items():
        table[name] = table[name].str.lower()
        _check_cells(table, name, table[name].isin(["", *classes]), f"one of {', '.join(classes)}", uri, first_row)
        table[name] = table[name].astype(object).where(table[name] != "", None)
    _check_repeats(table, uri, first_row)
    return table


def consensus(labels: pd.DataFrame) -> pd.DataFrame:
    """One row per vertebra: of several raters the majority's word, and a missing label where they tie.

    labels: as `read_labels` gives them. The result has the columns PLACE and LABEL_CLASSES, sorted by PLACE.
    """

    def majority(words: pd.Series) -> str | None:
        counts = words.dropna().value_counts()
        if counts.empty or (counts == counts.iloc[0]).sum() > 1:
            return None
        return str(counts.index[0])

    if not labels.duplicated(PLACE).any():
        return labels.sort_values(PLACE, ignore_index=True)[[*PLACE, *LABEL_CLASSES]]
    agreed = labels.groupby(PLACE, sort=True)[list(LABEL_CLASSES)].agg(majority).astype(object).reset_index()
    return agreed.where(agreed.notna(), None)


def split_patients(
    patients: Iterable[str],
    seed: int,
    test_share: float,
    validation_share: float,
    strata: Mapping[str, Hashable] | None = None,
) -> dict[str, Part]:
    """Each patient's part; the same for the same patients, whatever their order, on every machine.

    The parts have the shares asked for, up to rounding, overall and (within one patient) in each stratum; patients
    without one form their own. Within a stratum patients are ranked by a hash of seed and name, so that a patient who
    joins or leaves the set moves few others. Raises BadInput for shares that leave no one to train on.
    """
    if min(test_share, validation_share) < 0 or test_share + validation_share >= 1:
        raise BadInput(
            f"expected shares of at least 0 and together below 1, found {test_share} and {validation_share}."
        )
    groups: dict[str, list[str]] = {}
    for patient in set(patients):
        groups.setdefault(repr(strata.get(patient)) if strata else "", []).append(patient)
    parts: dict[str, Part] = {}
    seen = left = 0
    for _, members in sorted(groups.items()):
        ranked = sorted(members, key=lambda patient: hashlib.sha256(f"{seed}\0{patient}".encode()).digest())
        # Rounding the running total, not each stratum, keeps the overall share right however many strata there are.
        test = _round_step(seen, len(ranked), test_share)
        validation = _round_step(left, len(ranked) - test, validation_share / (1 - test_share))
        seen += len(ranked)
        left += len(ranked) - test
        for n, patient in enumerate(ranked):
            parts[patient] = "test" if n < test else "validation" if n < test + validation else "train"
    return parts


def fold_patients(patients: Iterable[str], folds: int, seed: int, strata: Mapping[str, Hashable]) -> dict[str, int]:
    """Each patient's fold (0 to `folds` - 1), of equal size to within one, each with its share of every stratum.

    The same for the same patients, whatever their order. Raises BadInput for fewer than two folds or patients than
    folds.
    """
    names = set(patients)
    if not 2 <= folds <= len(names):
        raise BadInput(f"expected 2 folds or more and at most one per patient ({len(names)}), found {folds}.")
    ranked = sorted(
        names, key=lambda name: (repr(strata.get(name)), hashlib.sha256(f"{seed}\0{name}".encode()).digest())
    )
    return {name: n % folds for n, name in enumerate(ranked)}


def _round_step(before: int, more: int, share: float) -> int:
    return round((before + more) * share) - round(before * share)


def _read_table(uri: str) -> tuple[pd.DataFrame, int]:
    """The table as it stands, and the number that people give its first row (a CSV's header is row 1)."""
    content = read_bytes(uri)
    is_parquet = content[:4] == b"PAR1"
    try:
        if is_parquet:
            return pd.read_parquet(BytesIO(content)), 1
        return pd.read_csv(BytesIO(content), dtype=str, keep_default_na=False, encoding="utf-8-sig"), 2
    except (ValueError, pa.ArrowException) as error:  # pandas' parser errors are ValueErrors
        kind = "Parquet" if is_parquet else "CSV"
        raise BadInput(f"expected a {kind} table at {uri}, found {type(error).__name__}.") from error


def _check_columns(raw: pd.DataFrame, uri: str) -> None:
    found = [str(name) for name in raw.columns]
    for name in ("patient", "level"):
        if name not in found:
            raise BadInput(f"{uri}: expected a column {name}, found {', '.join(found)}.")
    for name in found:
        # A misspelt label column would otherwise be a label column that is silently missing.
        near = difflib.get_close_matches(name.strip().lower(), COLUMNS, n=1, cutoff=0.8)
        if near and name not in COLUMNS:
            raise BadInput(f"{uri}: expected a column {near[0]}, found {name}.")
    if not set(LABEL_CLASSES) & set(found):
        raise BadInput(f"{uri}: expected a column {' or '.join(LABEL_CLASSES)}, found {', '.join(found)}.")


def _cells(raw: pd.DataFrame, name: str) -> pd.Series:
    """Column `name` as stripped strings, "" where the cell or the whole column is missing."""
    if name not in raw:
        return pd.Series([""] * len(raw), dtype=str)
    cells = raw[name].astype(object).where(raw[name].notna(), "").astype(str).str.strip()
    return cells.where(~cells.str.lower().isin(_MISSING), "").reset_index(drop=True)


def _check_cells(table: pd.DataFrame, column: str, good: pd.Series, expected: str, uri: str, first_row: int) -> None:
    """Raise BadInput for the first cell that is not good."""
    if good.all():
        return
    row = int((~good.astype(bool)).to_numpy().argmax())
    found = table[column].iloc[row] or "nothing"
    raise BadInput(f"{uri}: row {row + first_row}, column {column}: expected {expected}, found {found}.")


def _check_repeats(table: pd.DataFrame, uri: str, first_row: int) -> None:
    """Raise BadInput where two rows speak of the same vertebra; the message names rows, not patients."""
    key = [*PLACE, "rater"]
    repeats = table.duplicated(key).to_numpy()
    if not repeats.any():
        return
    later = int(repeats.argmax())
    same = (table[key] == table[key].iloc[later]).all(axis=1).to_numpy()
    earlier = int(same.argmax())
    for name in LABEL_CLASSES:
        words = [table[name].iloc[row] or "nothing" for row in (earlier, later)]
        if words[0] != words[1]:
            raise BadInput(
                f"{uri}: row {later + first_row}, column {name}: expected {words[0]} as row {earlier + first_row} "
                f"says of the same vertebra, found {words[1]}."
            )
    raise BadInput(
        f"{uri}: row {later + first_row}, column level: expected each vertebra once (per rater), "
        f"found it in row {earlier + first_row} too."
    )
