"""A small population, a sample of it, and simulated readers who fill in sheets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import duckdb
import pandas as pd

from spinemet.adjudication.page import QUESTIONS
from spinemet.adjudication.sheets import SHEET_COLUMNS, Sheet
from spinemet.cohort.views import open_cohort
from tests.cohort.cases import Study, write_results

CALLS = ("normal", "normal", "normal", "blastic", "lytic", "mixed")
LEVELS = ("C7", "T1", "T12", "L1", "L2", "?1")
Answer = Callable[[pd.Series], str]
"""What a reader says of a row of the key."""


def studies(patients: int = 12) -> list[Study]:
    """Of each patient six evaluable vertebrae with calls in turn, and one that is cut."""
    called = [[f"{level}={CALLS[(n + m) % 6]}" for m, level in enumerate(LEVELS)] for n in range(patients)]
    return [Study(f"p{n:02d}", levels=" ".join([*one, "L5=cut"])) for n, one in enumerate(called)]


def cohort(folder: Path, patients: int = 12, *, pictures: bool = True) -> duckdb.DuckDBPyConnection:
    """The opened tables of `studies`."""
    return open_cohort(write_results(str(folder / "results"), studies(patients), pictures=pictures))


def like_the_model(row: pd.Series) -> str:
    return str(row["bone_quality"])


def sheet_text(key: pd.DataFrame, reader: str, bone: Answer = like_the_model, sides: Answer = lambda _: "none") -> str:
    """The sheet of a simulated reader, as the page saves it."""
    rows = [[row["sample"], reader, row["item"], bone(row), sides(row), ""] for _, row in key.iterrows()]
    return pd.DataFrame(rows, columns=list(SHEET_COLUMNS)).to_csv(index=False, lineterminator="\r\n")


def sheet(key: pd.DataFrame, reader: str, bone: Answer = like_the_model, sides: Answer = lambda _: "none") -> Sheet:
    """The same as `read_sheet` gives it."""
    answers = pd.DataFrame(
        {
            question: [answer(row) for _, row in key.iterrows()]
            for question, answer in zip(QUESTIONS, (bone, sides), strict=True)
        },
        index=pd.Index(key["item"], name="item"),
    )
    return Sheet(reader, answers)
