"""What the readers' answers say: of each other, of themselves, and of the model.

Readers are compared on the first showing of each vertebra, themselves on the two showings of those that came twice. The
model is measured against the consensus, and each vertebra counts as often as the population has vertebrae like it: a
sample that takes doubtful calls more often would make the model look worse than it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd

from spinemet import __version__
from spinemet.adjudication.consensus import consensus
from spinemet.adjudication.page import CANNOT_JUDGE, QUESTIONS
from spinemet.adjudication.sheets import Sheet
from spinemet.cohort.evaluated import ANY
from spinemet.cohort.prevalence import SOURCE
from spinemet.results.schemas import Row
from spinemet.statistics.agreement import MISSING, agreement
from spinemet.statistics.intervals import FloatArray, proportion_interval

SAMPLE, POPULATION = "sample", "population"
MEASURES = ("task", "measure", "of", "among", "value", "low", "high", "n", "patients")
"""Columns of a score. of: a class, or readers. among: whether each vertebra counts once (SAMPLE) or as often as it
stands for others (POPULATION). n, patients: vertebrae in the denominator, and their patients."""


@dataclass(frozen=True, eq=False)
class Score:
    """table: one row per measure with MEASURES and SOURCE. confusions: one row per task, truth and call with `count`,
    the sum of weights. vertebrae: one row per vertebra that the readers could judge in one question at least: the key's
    columns, `<task>_true` (None: cannot judge) and `<task>_called`. facts: what was measured.
    """

    table: pd.DataFrame
    confusions: pd.DataFrame
    vertebrae: pd.DataFrame
    facts: Row


def score(key: pd.DataFrame, sheets: Sequence[Sheet], adjudicator: Sheet | None = None) -> Score:
    """Score the answers of one or more readers. key, sheets: from `read_key`, `read_sheets`."""
    first = key[key["repeats"] == ""].set_index("item")
    truth = consensus(sheets, adjudicator).loc[first.index]
    rows: list[Row] = []
    confusions: list[Row] = []
    vertebrae = first.reset_index(drop=True)
    readers = sheets if adjudicator is None else [*sheets, adjudicator]
    for task, words in QUESTIONS.items():
        classes = words[: words.index(CANNOT_JUDGE)]
        found = _between(task, classes, first, sheets) + _within(task, classes, key, readers)
        found += [
            _unjudged(task, who, said, first)
            for who, said in [*((sheet.reader, sheet.answers[task]) for sheet in readers), ("consensus", truth[task])]
        ]
        judged = (truth[task] != CANNOT_JUDGE).to_numpy() & (first[task] != "").to_numpy()
        if judged.any():
            found += _of_model(classes, truth[task][judged], first[judged])
            confusions += [{"task": task, **row} for row in _confusion(classes, truth[task][judged], first[judged])]
        rows += [{"task": task} | row for row in found]
        vertebrae[f"{task}_true"] = truth[task].where(truth[task] != CANNOT_JUDGE, None).to_numpy()
        vertebrae[f"{task}_called"] = first[task].to_numpy()
    about = {name: key[name].tolist()[0] for name in SOURCE}
    table = pd.DataFrame(rows, columns=list(MEASURES)).assign(**about)
    known = vertebrae[[f"{task}_true" for task in QUESTIONS]].notna().any(axis=1)
    facts = about | {
        "split": "adjudicated",
        "sample": key["sample"].tolist()[0],
        "readers": len(readers),
        "patients": int(vertebrae.loc[known, "patient"].nunique()),
        "studies": int(vertebrae.loc[known, "study"].nunique()),
        "vertebrae": int(known.sum()),
        "cannot_judge": int((~known).sum()),
        "software_version": __version__,
    }
    return Score(table, pd.DataFrame(confusions), vertebrae[known].reset_index(drop=True), facts)


# ---- readers ---------------------------------------------------------------------------------------------------


def _between(task: str, classes: Sequence[str], first: pd.DataFrame, sheets: Sequence[Sheet]) -> list[Row]:
    """Agreement of each two readers, and of all if there are more."""
    groups = [*combinations(sheets, 2), *([tuple(sheets)] if len(sheets) > 2 else [])]
    answers = {sheet.reader: _numbers(sheet.answers.loc[first.index, task], classes) for sheet in sheets}
    rows = []
    for group in groups:
        names = [sheet.reader for sheet in group]
        of = " and ".join(names) if len(names) == 2 else f"all {len(names)}"
        said = np.stack([answers[name] for name in names])
        rows += _agreed(of, said, first, classes)
    return rows


def _within(task: str, classes: Sequence[str], key: pd.DataFrame, readers: Sequence[Sheet]) -> list[Row]:
    """Agreement of each reader with himself on the vertebrae that came twice."""
    again = key[key["repeats"] != ""]
    if again.empty:
        return []
    rows = []
    for sheet in readers:
        said = np.stack([_numbers(sheet.answers.loc[again[name], task], classes) for name in ("repeats", "item")])
        rows += _agreed(f"{sheet.reader} twice", said, again, classes)
    return rows


def _agreed(of: str, answers_RN: npt.NDArray[np.int64], items: pd.DataFrame, classes: Sequence[str]) -> list[Row]:
    patient = pd.factorize(items["patient"])[0]
    return [
        {"measure": one.name, "of": of, "among": among, "value": one.value, "low": one.low, "high": one.high}
        | {"n": one.items, "patients": one.patients}
        for among, weight in ((SAMPLE, None), (POPULATION, items["weight"].to_numpy(np.float64)))
        for one in agreement(answers_RN, patient, len(classes), weight)
    ]


def _unjudged(task: str, who: str, said: pd.Series, first: pd.DataFrame) -> Row:
    unknown = (said.loc[first.index] == CANNOT_JUDGE).to_numpy()
    return _share(unknown, np.ones(len(first)), first["patient"]) | {
        "measure": "cannot_judge",
        "of": who,
        "among": SAMPLE,
    }


def _numbers(words: pd.Series, classes: Sequence[str]) -> npt.NDArray[np.int64]:
    places = {word: n for n, word in enumerate(classes)}
    return np.array([places.get(word, MISSING) for word in words], np.int64)


# ---- the model -------------------------------------------------------------------------------------------------


def _of_model(classes: Sequence[str], truth: pd.Series, items: pd.DataFrame) -> list[Row]:
    """Sensitivity and specificity of ANY (all classes but the first, negative one together) and of each class; the
    mean of the classes' sensitivities, NaN if a class has no vertebra."""
    called = items[truth.name].to_numpy(str)
    true, weight = truth.to_numpy(str), items["weight"].to_numpy(np.float64)
    rows: list[Row] = []
    for label in (ANY, *classes):
        is_true, is_called = (said != classes[0] if label == ANY else said == label for said in (true, called))
        for measure, who in (("sensitivity", is_true), ("specificity", ~is_true)):
            right = (is_called == is_true)[who]
            found = _share(right, weight[who], items["patient"][who])
            rows.append({"measure": measure, "of": label, "among": POPULATION} | found)
    each = [float(row["value"]) for row in rows if row["measure"] == "sensitivity" and row["of"] != ANY]
    macro = {"measure": "macro_sensitivity", "of": "", "among": POPULATION, "value": np.mean(each).item()}
    return [*rows, macro | {"n": len(items), "patients": items["patient"].nunique()}]


def _confusion(classes: Sequence[str], truth: pd.Series, items: pd.DataFrame) -> list[Row]:
    weights = items["weight"].groupby([truth.to_numpy(), items[truth.name].to_numpy()]).sum()
    return [
        {"truth": one, "predicted": other, "count": round(float(weights.get((one, other), 0.0)), 1)}
        for one in classes
        for other in classes
    ]


def _share(found_N: npt.NDArray[np.bool_], weight_N: FloatArray, patients: pd.Series) -> Row:
    """The weighted share of vertebrae that are `found`, with the interval of vertebrae in patients."""
    if not len(found_N):
        return {"value": np.nan, "low": np.nan, "high": np.nan, "n": 0, "patients": 0}
    # Scaled so that they add up to the number of equally weighted vertebrae with the same information (Kish 1965).
    scaled = weight_N * weight_N.sum() / (weight_N @ weight_N)
    _, patient = np.unique(patients.to_numpy(str), return_inverse=True)
    interval = proportion_interval(np.bincount(patient, scaled * found_N), np.bincount(patient, scaled))
    return {
        "value": float(weight_N @ found_N / weight_N.sum()),
        "low": interval.low,
        "high": interval.high,
        "n": len(found_N),
        "patients": int(patient.max()) + 1,
    }
