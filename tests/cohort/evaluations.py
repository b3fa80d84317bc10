"""Small evaluation folders for tests, as jobs/evaluate.py writes them: what corrections read of them."""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from spinemet.types import BONE_QUALITY
from tests.cohort.cases import CALLS, MODEL

Pairs = Sequence[tuple[str, str]]
"""Vertebrae of a study: the true bone quality and the called one."""


def write_evaluation(folder: Path, studies: Sequence[Pairs], model: str = MODEL) -> str:
    """An evaluation of `studies`, each of another patient, with the probabilities that cases.py gives to calls."""
    rows = [
        {"patient": f"e{n}", "study": f"s{n}", "level": "L1", "bone_quality_true": true, "unsure": ""}
        | {f"bone_quality_p_{name}": p for name, p in zip(BONE_QUALITY, CALLS[called], strict=True)}
        for n, study in enumerate(studies)
        for true, called in study
    ]
    folder.mkdir(parents=True)
    pd.DataFrame(rows).to_parquet(folder / "vertebrae.parquet")
    (folder / "evaluation.json").write_text(json.dumps({"facts": {"model": model}}))
    return str(folder)


def good_evaluation(folder: Path, per_class: int = 20) -> str:
    """Of each class one vertebra in 10 is called wrong: lesions normal, normal ones blastic."""
    studies: list[Pairs] = []
    for true in BONE_QUALITY:
        wrong = "blastic" if true == "normal" else "normal"
        studies += [[(true, wrong if n % 10 == 0 else true)] for n in range(per_class)]
    return write_evaluation(folder, studies)
