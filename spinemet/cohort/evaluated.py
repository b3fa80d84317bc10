"""What an evaluation knows of the errors of the population's model: its stored predictions, called by the same rule."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

import duckdb
import numpy as np
import numpy.typing as npt
import pandas as pd

from spinemet.cohort.population import ARGMAX, Population
from spinemet.cohort.views import asked
from spinemet.errors import BadInput
from spinemet.files import join, read_bytes
from spinemet.results.schemas import Row
from spinemet.statistics.correction import Errors

ANY = "any"
"""The finding "any class but the negative one"."""
_TOGETHER: dict[str, list[str]] = {"vertebra": [], "study": ["patient", "study"], "patient": ["patient"]}
"""Unit that is counted -> columns whose equal values make one unit."""


@dataclass(frozen=True, eq=False)
class Evaluated:
    """The labelled vertebrae of an evaluation, and the rule by which they are called: see `called_by`.

    vertebrae: the columns that `jobs/evaluate.py` writes to vertebrae.parquet; `weight`, if it is there, holds sampling
    weights. thresholds: task -> the least probability of a lesion; None: the most probable class is called. name: of
    the folder, for messages.
    """

    vertebrae: pd.DataFrame
    thresholds: Mapping[str, float] | None
    name: str

    def errors(self, task: str, classes: Sequence[str], unit: str, finding: str = "") -> Errors:
        """The errors of `task`: of a finding against the rest, or between all classes. unit: of `prevalence`.

        Unsure calls are left out, as in the cohort; a study or patient has a finding that one of its labelled vertebrae
        has. Raises BadInput if the evaluation lacks the task, or cannot tell of whole patients.
        """
        known = self._judged(task, classes, unit)
        units = known.assign(**{name: _found(known[name], classes, finding) for name in ("true", "called")})
        if _TOGETHER[unit]:
            found = units.groupby(_TOGETHER[unit], sort=False)
            units = found.agg({"true": "max", "called": "max", "weight": "first"}).reset_index()
        count = 2 if finding else len(classes)
        return Errors.of(units["true"], units["called"], units["patient"], count, units["weight"])

    def _judged(self, task: str, classes: Sequence[str], unit: str) -> pd.DataFrame:
        """The labelled, sure vertebrae: patient, study, weight, and class numbers `true` and `called`."""
        table, columns = self.vertebrae, [f"{task}_p_{name}" for name in classes]
        if not {f"{task}_true", *columns} <= set(table.columns):
            raise BadInput(f"the evaluation {self.name} holds no {task}: nothing tells how often the model errs in it.")
        if self.thresholds is not None and task not in self.thresholds:
            raise BadInput(f"the population's rule has no threshold for {task}: choose a number or argmax as rule.")
        if _TOGETHER[unit] and "weight" in table.columns:
            raise BadInput(
                f"the evaluation {self.name} is a sample of vertebrae and does not tell how often the model errs on a "
                f"whole {unit}: correct vertebrae (--unit vertebra)."
            )
        sure = table["unsure"].fillna("") == "" if "unsure" in table.columns else np.ones(len(table), np.bool_)
        known = table[table[f"{task}_true"].notna() & sure]
        numbers = {name: number for number, name in enumerate(classes)}
        return pd.DataFrame(
            {
                "patient": known["patient"],
                "study": known["study"],
                "weight": known["weight"] if "weight" in known.columns else 1.0,
                "true": known[f"{task}_true"].map(numbers),
                "called": called_by((self.thresholds or {}).get(task), known[columns].to_numpy(np.float64)),
            }
        )


def called_by(threshold: float | None, probability_NC: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """(N,) the class that is called; the views of a population say the same in SQL.

    threshold: positive if all classes but the negative one together are at least so probable; None: argmax.
    """
    if threshold is None:
        return probability_NC.argmax(axis=1)
    positive = 1 - probability_NC[:, 0] >= threshold
    return np.where(positive, 1 + probability_NC[:, 1:].argmax(axis=1), 0)


def _found(class_N: pd.Series, classes: Sequence[str], finding: str) -> pd.Series:
    """1 for units with the finding, else 0; the class itself without a finding."""
    if not finding:
        return class_N
    return (class_N > 0 if finding == ANY else class_N == classes.index(finding)).astype(int)


def read_evaluation(connection: duckdb.DuckDBPyConnection, place: str) -> Evaluated:
    """The evaluation in the folder `place`, called by the rule of the population that `connection` is about.

    Raises BadInput if there is none, or if it is of another model.
    """
    about = asked(connection)
    try:
        model = json.loads(read_bytes(join(place, "evaluation.json")))["facts"]["model"]
        vertebrae = pd.read_parquet(BytesIO(read_bytes(join(place, "vertebrae.parquet"))))
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"expected an evaluation that jobs/evaluate.py wrote at {place}, found none.") from error
    if model != about["model"]:
        raise BadInput(
            f"the evaluation {place} is of model {model}, and the population of model {about['model']}: the errors of "
            "one do not correct the other. Evaluate the population's model, or choose the other one with --model."
        )
    return Evaluated(vertebrae, _thresholds(about, vertebrae), place)


def _thresholds(about: Row, vertebrae: pd.DataFrame) -> dict[str, float] | None:
    """Task -> threshold under the population's rule; a number holds for every task of `vertebrae`."""
    rule = Population(**tomllib.loads(about["definition"])).rule
    if rule == ARGMAX:
        return None
    if isinstance(rule, float):
        tasks = [name.removesuffix("_true") for name in vertebrae.columns if name.endswith("_true")]
        return dict.fromkeys(tasks, rule)
    stored: dict[str, float] = json.loads(about["thresholds"])
    return stored
