"""How good a model is on patients it did not learn from: measures, operating points, gains over a baseline."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from spinemet import __version__
from spinemet.cohort.evaluated import ANY
from spinemet.errors import BadInput
from spinemet.evaluation.figures import confusion_figure, reliability_figure
from spinemet.evaluation.groups import group_measures
from spinemet.evaluation.pages import evaluation_page
from spinemet.evaluation.patients import patient_measures
from spinemet.evaluation.predictions import UNITS, Tables, compared, labelled, predictions, repeats
from spinemet.files import join, write_bytes, write_parquet
from spinemet.model.card import ModelCard
from spinemet.model.marks import Marks, load_marks
from spinemet.model.points import Points, point_name, write_points
from spinemet.model.predictor import Predictor
from spinemet.model.tasks import Task
from spinemet.progress import Progress, no_progress
from spinemet.statistics.measures import confusion_matrix, measure, operating_points
from spinemet.training.crops import Crops, read_crops

Split = Literal["test", "all"]
LEARNED = ("train", "validation")
"""The parts of training whose patients a model knows."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A model measured on a set of crops.

    facts: model, split, patients, studies, vertebrae, slices, software version; for crops their digest, for an archive
    the counts of `external.StudyPredictions`; with a baseline, its digest. measures: one row per task, unit (vertebra,
    slice) and `statistics.measures.Measure`, and the rows of `patients.patient_measures`; a no/yes task has the label
    yes only. confusions: one row per task, unit,
    truth and predicted, with its count. vertebrae, slices: the tables of `predictions`. operating: one row per task and
    row of `statistics.measures.operating_points`, measured on vertebrae; empty if the crops hold no validation patient.
    differences: one row per task, unit and `statistics.comparison.Compared`; empty without a baseline. groups: of
    `groups.group_measures`. unmatched: of `external.StudyPredictions`; empty for crops.
    """

    facts: dict[str, str | int]
    measures: pd.DataFrame
    confusions: pd.DataFrame
    vertebrae: pd.DataFrame
    slices: pd.DataFrame
    operating: pd.DataFrame = field(default_factory=pd.DataFrame)
    differences: pd.DataFrame = field(default_factory=pd.DataFrame)
    groups: pd.DataFrame = field(default_factory=pd.DataFrame)
    unmatched: pd.DataFrame = field(default_factory=pd.DataFrame)

    def value(self, task: str, measure: str, label: str = "") -> tuple[float, float, float]:
        """(value, low, high) of one measure per vertebra."""
        table = self.measures
        rows = (table["task"] == task) & (table["unit"] == "vertebra")
        row = table[rows & (table["measure"] == measure) & (table["label"] == label)].iloc[0]
        return float(row["value"]), float(row["low"]), float(row["high"])


def run_evaluate(
    model_uri: str,
    crops_uri: str,
    out_uri: str,
    split: Split = "test",
    progress: Progress = no_progress,
    baseline_uri: str | None = None,
) -> Evaluation:
    """Measure the model at `model_uri` and write tables, `evaluation.md`, `.json` and figures to `out_uri`; then store
    its operating points beside it, if the crops hold its validation patients.

    split: `test` takes the patients that the model's training set aside for testing; `all` takes every patient, of
    crops that the model has never met. baseline_uri: a model to compare with on the same patients. Raises BadInput if
    one of the models learned from a patient to be measured, if no patient is left, or if the crops are cut in another
    way than the models need. If the models' marks and the crops have different pseudonym keys, nobody can tell who
    learned from whom: then only `all` is possible, and the evaluation says so.
    """
    predictor = Predictor.load(model_uri)
    baseline = Predictor.load(baseline_uri) if baseline_uri else None
    every = read_crops(crops_uri)
    marks = load_marks(model_uri, predictor.card, every.info.pseudonym_key_id)
    crops = _choose(every, predictor.card, marks, split)
    if baseline is not None and baseline_uri is not None:
        _check_baseline(crops, baseline.card, load_marks(baseline_uri, baseline.card, every.info.pseudonym_key_id))
    found = evaluate(predictor, crops, split, progress)
    found = replace(
        found,
        facts={**found.facts, **unknown_patients(marks)},
        operating=_operating(predictor, marks, every, found.vertebrae),
    )
    if baseline is not None:
        tables = {"vertebra": found.vertebrae, "slice": found.slices}
        gains = differences(tables, predictor.card, predictions(baseline, crops), baseline.card)
        found = replace(found, facts={**found.facts, "baseline": baseline.digest}, differences=gains)
    write_evaluation(found, out_uri)
    if points := named_points(found.operating, predictor.card.spec.tasks):
        write_points(model_uri, predictor.card, points)
    return found


def evaluate(predictor: Predictor, crops: Crops, split: Split, progress: Progress = no_progress) -> Evaluation:
    """Measure `predictor` on all of `crops`, whoever the patients are; `split` only says how they were chosen."""
    return measured(predictor, predictions(predictor, crops, progress), {"crops": crops.info.digest, "split": split})


def measured(predictor: Predictor, tables: Tables, facts: Mapping[str, str | int]) -> Evaluation:
    """The Evaluation of `tables`, which `predictor` made. facts: where they come from."""
    measures: list[dict[str, object]] = []
    confusions: list[dict[str, object]] = []
    for task in predictor.card.spec.tasks:
        for unit, table in tables.items():
            true_N, prob_NC, patients_N = labelled(table, task)
            if not len(true_N):
                continue
            where = {"task": task.name, "unit": unit}
            found = measure(true_N, prob_NC, patients_N.tolist(), task.classes, further=task.measures)
            measures += [{**where, **asdict(one)} for one in found if not repeats(task, one.label)]
            counts_CC = confusion_matrix(true_N, prob_NC.argmax(axis=1), len(task.classes))
            confusions += [
                {**where, "truth": truth, "predicted": predicted, "count": int(counts_CC[m, n])}
                for m, truth in enumerate(task.classes)
                for n, predicted in enumerate(task.classes)
            ]
        measures += patient_measures(tables["vertebra"], task)
    counts = {
        "patients": int(tables["vertebra"]["patient"].nunique()),
        "studies": int(tables["vertebra"]["study"].nunique()),
        "vertebrae": len(tables["vertebra"]),
        "slices": len(tables["slice"]),
    }
    found_facts = {"model": predictor.digest, **facts, **counts, "software_version": __version__}
    rows = pd.DataFrame(measures).rename(columns={"name": "measure"})
    return Evaluation(
        found_facts,
        rows,
        pd.DataFrame(confusions),
        tables["vertebra"],
        tables["slice"],
        groups=group_measures(tables["vertebra"], predictor.card.spec.tasks),
    )


def _operating(predictor: Predictor, marks: Marks, every: Crops, vertebrae: pd.DataFrame) -> pd.DataFrame:
    """Operating points of each task's positive classes, and of any of them.

    The validation patients among the crops set the thresholds.
    """
    validation = parts_of(every.table, marks).eq("validation").to_numpy()
    if not validation.any():
        return pd.DataFrame()
    chosen_on = predictions(predictor, every.take(validation))["vertebra"]
    rows = []
    for task in predictor.card.spec.tasks:
        (true_N, prob_NC, _), (measured_N, measured_NC, patients_N) = (
            labelled(chosen_on, task),
            labelled(vertebrae, task),
        )
        if not len(true_N) or not len(measured_N):
            continue
        for label in findings(task):
            chosen, measured = (
                (_probability(task, label, prob), _has(task, label, true))
                for true, prob in ((true_N, prob_NC), (measured_N, measured_NC))
            )
            points = operating_points(label, chosen, measured, patients_N.tolist())
            rows += [{"task": task.name, **point} for point in points]
    return pd.DataFrame(rows)


def findings(task: Task) -> tuple[str, ...]:
    """ANY and the positive classes of a task; of a task of two classes only the positive one."""
    positive = task.classes[1:]
    return (ANY, *positive) if len(positive) > 1 else positive


def _probability(task: Task, label: str, prob_NC: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    # ANY as the tables compute it, so that the same vertebrae are called.
    return 1 - prob_NC[:, 0] if label == ANY else prob_NC[:, task.classes.index(label)]


def _has(task: Task, label: str, true_N: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    return true_N > 0 if label == ANY else true_N == task.classes.index(label)


def named_points(operating: pd.DataFrame, tasks: Sequence[Task]) -> Points:
    """The operating points of all positive classes together, by the names under which a population's rule asks."""
    found: Points = {}
    first = {task.name: findings(task)[0] for task in tasks}
    for row in operating.to_dict("records"):
        if row["label"] == first[row["task"]] and math.isfinite(row["threshold"]):
            found.setdefault(point_name(row["wanted_specificity"]), {})[row["task"]] = row["threshold"]
    return found


def differences(tables: Tables, card: ModelCard, baseline: Tables, baseline_card: ModelCard) -> pd.DataFrame:
    """How far a model is from the baseline, in the tasks that both have with the same classes."""
    same = {(task.name, task.classes) for task in baseline_card.spec.tasks}
    rows = [
        row
        for task in card.spec.tasks
        for unit in UNITS
        if (task.name, task.classes) in same and tables[unit][f"{task.name}_true"].notna().any()
        for row in compared(task, unit, [tables], [baseline])
    ]
    return pd.DataFrame(rows).rename(columns={"name": "measure"})


def write_evaluation(found: Evaluation, uri: str) -> None:
    """Write an Evaluation to the folder `uri`; evaluation.json comes last and shows that the folder is complete."""
    small = ("measures", "confusions", "operating", "differences", "groups", "unmatched")
    for name in (*small, "vertebrae", "slices"):
        if len((table := getattr(found, name)).columns):
            write_parquet(join(uri, f"{name}.parquet"), table)
    write_bytes(join(uri, "evaluation.md"), evaluation_page(found).markdown().encode())
    write_bytes(join(uri, "confusion.png"), confusion_figure(found.confusions))
    write_bytes(join(uri, "reliability.png"), reliability_figure(found.vertebrae))
    content = {"facts": found.facts, **{name: _records(getattr(found, name)) for name in small}}
    write_bytes(join(uri, "evaluation.json"), (json.dumps(content, indent=1) + "\n").encode())


def _records(table: pd.DataFrame) -> list[dict[str, object]]:
    """Rows as JSON values: NaN becomes null."""
    return [
        {str(name): None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}
        for row in table.to_dict("records")
    ]


# ---- which patients are measured ------------------------------------------------------------------------------


def _choose(crops: Crops, card: ModelCard, marks: Marks, split: Split) -> Crops:
    _check_cut(crops, card, "model")
    chosen = chosen_patients(crops.table, marks, split)
    return crops if chosen.all() else crops.take(chosen)


def chosen_patients(table: pd.DataFrame, marks: Marks, split: Split) -> npt.NDArray[np.bool_]:
    """(N,) whether each row of `table`, with the pseudonyms of its patient, is measured under `split`.

    Raises BadInput if the model learned from one of the patients, none is left, or the test patients are not known.
    """
    parts, patients = parts_of(table, marks), table["patient"]
    if split == "all":
        if known := patients[parts.isin(LEARNED)].nunique():
            raise BadInput(
                f"The model learned from or was validated on {known} of the {patients.nunique()} patients; "
                "use --split test, or measure other patients."
            )
        return np.ones(len(table), np.bool_)
    if problem := marks.matching.problem:
        raise BadInput(
            f"the patients that training set aside for testing cannot be found: {problem}. Measure patients that the "
            "model has never met, with --split all."
        )
    chosen = parts.eq("test").to_numpy()
    if not chosen.any():
        raise BadInput(
            f"The labels name {patients.nunique()} patients, but none that the model's training set aside for testing; "
            "for patients that the model has never met, use --split all."
        )
    return chosen


def parts_of(table: pd.DataFrame, marks: Marks) -> pd.Series:
    """The part of training (`train`, `validation`, `test`) that the patient of each row took; "" for none.

    table: with the column `patient`, and `archive_patient` if it is known.
    """
    names = [name for name in ("patient", "archive_patient") if name in table]
    own = table[names].drop_duplicates()
    parts = {keys: marks.part(*keys) or "" for keys in own.itertuples(index=False, name=None)}
    return pd.Series([parts[keys] for keys in table[names].itertuples(index=False, name=None)], table.index, dtype=str)


def unknown_patients(marks: Marks) -> dict[str, str]:
    """The fact that nobody can tell if the model learned from a patient measured, and why; nothing if it is known."""
    problem = marks.matching.problem
    return {"cannot_tell": f"whether the model learned from a patient measured here: {problem}"} if problem else {}


def _check_baseline(crops: Crops, card: ModelCard, marks: Marks) -> None:
    _check_cut(crops, card, "baseline")
    if known := crops.table.loc[parts_of(crops.table, marks).isin(LEARNED), "patient"].nunique():
        raise BadInput(
            f"The baseline learned from or was validated on {known} of the patients measured; train both models with "
            "the same split."
        )


def _check_cut(crops: Crops, card: ModelCard, who: str) -> None:
    found, needed = (
        ", ".join(f"{name} {value}" for name, value in slices.model_dump().items())
        for slices in (crops.info.slice_config, card.spec.slices)
    )
    if found != needed:
        raise BadInput(f"The crops are cut with {found}, but the {who} needs {needed}.")
