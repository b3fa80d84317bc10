"""What a score leaves behind: the folder of an evaluation, and label rows for training."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pyarrow.dataset as pads

from spinemet.adjudication.drawing import PROBABILITIES
from spinemet.adjudication.page import QUESTIONS
from spinemet.adjudication.scoring import POPULATION, Score
from spinemet.adjudication.sheets import write_private
from spinemet.anatomy import is_named
from spinemet.errors import BadInput
from spinemet.files import arrow_filesystem, exists, join, write_bytes, write_parquet

LABEL_COLUMNS = ("patient", "study", "series", "level", *QUESTIONS, "rater")


def write_evaluation(found: Score, uri: str) -> None:
    """Write the folder of an evaluation to `uri`, which `cohort prevalence --correct` and the report can read.

    It has vertebrae only: a sample does not hold all vertebrae of a patient, so nothing is measured per patient.
    """
    if exists(join(uri, "evaluation.json")):
        raise BadInput(f"{uri} holds an evaluation already; use another folder.")
    about_model = found.table[found.table["measure"].isin(["sensitivity", "specificity", "macro_sensitivity"])]
    measures = about_model[about_model["among"] == POPULATION].rename(columns={"of": "label"}).assign(unit="vertebra")
    measures = measures[["task", "unit", "measure", "label", "value", "low", "high", "n", "patients"]]
    confusions = found.confusions.assign(unit="vertebra")
    answers = [f"{task}_{which}" for task in QUESTIONS for which in ("true", "called")]
    vertebrae = found.vertebrae.rename(columns=PROBABILITIES)[
        ["patient", "study", "level", "vertebra", "weight", "stratum", *answers, *PROBABILITIES.values()]
    ]
    for name, table in (("measures", measures), ("confusions", confusions), ("vertebrae", vertebrae)):
        write_parquet(join(uri, f"{name}.parquet"), table)
    content = {"facts": found.facts, "measures": _records(measures), "confusions": _records(confusions)}
    write_bytes(join(uri, "evaluation.json"), (json.dumps(content, indent=1) + "\n").encode())


def write_labels(found: Score, linkage: str, out: Path) -> tuple[int, int]:
    """Write the consensus as label rows for training to the new file `out`; returns how many rows, and how many not.

    Training reads studies of the archive, so rows name patients, studies and series as the archive does. linkage: the
    place of the table that screening wrote with --linkage. A vertebra without a name, or of a study that the linkage
    lacks, gives no row. Only the owner can read the file. Raises BadInput if there is no linkage or `out` exists.
    """
    keys = found.vertebrae["source_key"].unique().tolist()
    known = _linked(linkage, keys)
    rows = [
        [*known[row["source_key"]], row["level"], *(row[f"{task}_true"] or "" for task in QUESTIONS), "adjudicated"]
        for row in found.vertebrae.to_dict("records")
        if row["source_key"] in known and is_named(row["level"])
    ]
    write_private(out, pd.DataFrame(rows, columns=list(LABEL_COLUMNS)).to_csv(index=False))
    return len(rows), len(found.vertebrae) - len(rows)


def _linked(linkage: str, keys: list[str]) -> dict[str, tuple[str, str, str]]:
    """source_key -> PatientID, StudyInstanceUID, SeriesInstanceUID."""
    names = ["PatientID", "StudyInstanceUID", "SeriesInstanceUID"]
    try:
        filesystem, path = arrow_filesystem(linkage)
        table = pads.dataset(path, filesystem=filesystem, format="parquet").to_table(
            columns=["source_key", *names], filter=pads.field("source_key").isin(keys)
        )
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(
            f"expected the linkage table of the screening (jobs/screen.py --linkage) at {linkage}."
        ) from error
    if not len(table):
        raise BadInput(f"the linkage table at {linkage} knows none of the sample's studies; it is of other results.")
    return {row["source_key"]: tuple(row[name] for name in names) for row in table.to_pylist()}


def _records(table: pd.DataFrame) -> list[dict[str, object]]:
    """Rows as JSON values: NaN becomes null."""
    return [
        {str(name): None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}
        for row in table.to_dict("records")
    ]
