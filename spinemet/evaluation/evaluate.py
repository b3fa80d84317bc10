"""Predictions for labelled crops, joined with their labels: the measures of a model on patients it did not learn from.

At slice level the truth of a slice is what was said of it, and where only its vertebra is labelled, that.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from io import BytesIO
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from spinemet import __version__
from spinemet.config import SliceConfig
from spinemet.errors import BadInput
from spinemet.evaluation.comparison_tables import differences_markdown, operating_markdown, reliability_figure
from spinemet.evaluation.evaluation_tables import confusion_figure, markdown
from spinemet.files import join, normalize, write_bytes
from spinemet.model.aggregate import aggregate
from spinemet.model.checkpoint import ModelCard
from spinemet.model.predictor import BATCH, Predictor
from spinemet.model.tasks import MISSING, Task
from spinemet.progress import Progress, no_progress
from spinemet.statistics.comparison import compare, patient_confusions
from spinemet.statistics.measures import confusion_matrix, measures
from spinemet.statistics.operating import operating_points
from spinemet.training.crops import WHERE, Crops, read_crops

Split = Literal["test", "all"]
UNITS = ("vertebra", "slice")
SEED = 0
"""Of the resampling: the same predictions give the same intervals."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A model measured on a set of crops.

    facts: model and crops digest, split, patients, studies, vertebrae, slices, software version.
    measures: one row per task, unit (vertebra, slice), measure and label: value, low, high (95 %, by patient; NaN where
    not defined), n, patients. A no/yes task has the label yes only. See `metrics.measures`.
    confusions: one row per task, unit, truth and predicted: count.
    vertebrae, slices: per sample and task the truth (None where not labelled), the call and the probabilities.
    operating: per task and class of the vertebrae `operating.OperatingPoint`'s fields, thresholds from the validation
    patients; empty where the crops hold none. differences: per task, unit, measure and label `comparison.Compared`'s
    fields against a baseline model; empty without one.
    """

    facts: dict[str, str | int]
    measures: pd.DataFrame
    confusions: pd.DataFrame
    vertebrae: pd.DataFrame
    slices: pd.DataFrame
    operating: pd.DataFrame = field(default_factory=pd.DataFrame)
    differences: pd.DataFrame = field(default_factory=pd.DataFrame)

    def value(self, task: str, measure: str, label: str = "", unit: str = "vertebra") -> tuple[float, float, float]:
        """(value, low, high) of one measure."""
        table = self.measures
        rows = (table["task"] == task) & (table["unit"] == unit)
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
    """Measure the model at `model_uri` and write tables, `evaluation.md`, `.json` and figures to `out_uri`.

    split: `test` takes the patients whom the model's card keeps for testing; `all` takes every patient of crops that
    the model has nothing to do with. baseline_uri: a model to be compared with on the same patients. Raises BadInput
    where a patient would be measured whom one of the models learned from, where no one is left, or the crops are not
    cut as the models want them.
    """
    predictor = Predictor.load(normalize(model_uri))
    baseline = Predictor.load(normalize(baseline_uri)) if baseline_uri else None
    every = read_crops(crops_uri)
    crops = _choose(every, predictor.card, split)
    if baseline is not None:
        _check_baseline(crops, baseline.card)
    evaluation = evaluate(predictor, crops, split, progress)
    evaluation = replace(evaluation, operating=_operating(predictor, every, evaluation.vertebrae))
    if baseline is not None:
        facts = {**evaluation.facts, "baseline": baseline.digest}
        tables = {"vertebra": evaluation.vertebrae, "slice": evaluation.slices}
        found = differences(tables, predictor.card, predictions(baseline, crops), baseline.card)
        evaluation = replace(evaluation, facts=facts, differences=found)
    write_evaluation(evaluation, out_uri)
    return evaluation


def evaluate(predictor: Predictor, crops: Crops, split: Split, progress: Progress = no_progress) -> Evaluation:
    """Measure `predictor` on all of `crops`, whoever they are; `split` only says how they were chosen."""
    tables = predictions(predictor, crops, progress)
    found: list[dict[str, object]] = []
    confusions: list[dict[str, object]] = []
    for task in predictor.card.spec.tasks:
        for unit, table in tables.items():
            known = table[table[f"{task.name}_true"].notna()]
            if len(known):
                truth_N, prob_NC = truth_and_calls(known, task)
                found += _measure(task, unit, truth_N, prob_NC, known["patient"].to_numpy())
                confusions += _confusions(task, unit, truth_N, prob_NC)
    facts: dict[str, str | int] = {
        "model": predictor.digest,
        "crops": crops.digest,
        "split": split,
        "patients": int(crops.table["patient"].nunique()),
        "studies": int(crops.table["study"].nunique()),
        "vertebrae": len(tables["vertebra"]),
        "slices": len(tables["slice"]),
        "software_version": __version__,
    }
    return Evaluation(facts, pd.DataFrame(found), pd.DataFrame(confusions), tables["vertebra"], tables["slice"])


def predictions(predictor: Predictor, crops: Crops, progress: Progress = no_progress) -> dict[str, pd.DataFrame]:
    """Unit (vertebra, slice) -> its rows of `crops` with `<task>_true`, `<task>_called` and `<task>_p_<class>`."""
    prob = _predict(predictor, crops, progress)
    slices = crops.table[list(WHERE)].reset_index(drop=True)
    first = ~slices["vertebra"].duplicated()
    vertebrae = slices[first].drop(columns="offset_mm").reset_index(drop=True)
    starts = np.flatnonzero(first)
    for task in predictor.card.spec.tasks:
        vertebra_target_N, target_N = np.array(task.targets(crops.table)), np.array(task.slice_targets(crops.table))
        rule = predictor.card.rule(task.name)
        prob_VC = np.array([aggregate(part, rule) for part in np.split(prob[task.name], starts[1:])])
        _add_columns(vertebrae, task, vertebra_target_N[starts], prob_VC)
        _add_columns(slices, task, target_N, prob[task.name])
    return {"vertebra": vertebrae, "slice": slices}


def truth_and_calls(known: pd.DataFrame, task: Task) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """(N,) true classes and (N, C) probabilities of the rows of a table of `predictions` whose label is known."""
    truth_N = np.array([task.classes.index(word) for word in known[f"{task.name}_true"]], np.int64)
    return truth_N, known[[f"{task.name}_p_{label}" for label in task.classes]].to_numpy(np.float64)


def write_evaluation(evaluation: Evaluation, uri: str) -> None:
    """Write everything an Evaluation holds to the folder `uri`; evaluation.json, written last, says it is whole."""
    for name in ("measures", "confusions", "vertebrae", "slices", "operating", "differences"):
        table: pd.DataFrame = getattr(evaluation, name)
        if len(table.columns):
            buffer = BytesIO()
            table.to_parquet(buffer, index=False)
            write_bytes(join(uri, f"{name}.parquet"), buffer.getvalue())
    text = markdown(evaluation.facts, evaluation.measures, evaluation.confusions)
    text += operating_markdown(evaluation.operating) + differences_markdown(evaluation.differences)
    write_bytes(join(uri, "evaluation.md"), text.encode())
    write_bytes(join(uri, "confusion.png"), confusion_figure(evaluation.confusions))
    write_bytes(join(uri, "reliability.png"), reliability_figure(evaluation.vertebrae))
    content = {
        "facts": evaluation.facts,
        "measures": _records(evaluation.measures),
        "confusions": _records(evaluation.confusions),
        "operating": _records(evaluation.operating),
        "differences": _records(evaluation.differences),
    }
    write_bytes(join(uri, "evaluation.json"), (json.dumps(content, indent=1) + "\n").encode())


# ---- who is measured ------------------------------------------------------------------------------------------


def _choose(crops: Crops, card: ModelCard, split: Split) -> Crops:
    if crops.slices != card.spec.slices:
        raise BadInput(
            f"expected crops cut as the model wants them ({_cut(card.spec.slices)}), found {_cut(crops.slices)}."
        )
    patients = crops.table["patient"]
    learned = {*card.split.get("train", ()), *card.split.get("validation", ())}
    if split == "all":
        known = patients[patients.isin(learned)].nunique()
        if known:
            raise BadInput(
                f"expected crops of patients whom the model did not learn from, found {known} of "
                f"{patients.nunique()} in its training or validation part (use --split test)."
            )
        return crops
    test = set(card.split.get("test", ())) - learned
    chosen = patients.isin(test).to_numpy()
    if not chosen.any():
        raise BadInput(
            f"expected crops of the {len(test)} test patients of the model's card, found none of them among "
            f"{patients.nunique()} patients (for other patients use --split all)."
        )
    return crops if chosen.all() else crops.take(chosen)


def _check_baseline(crops: Crops, card: ModelCard) -> None:
    if crops.slices != card.spec.slices:
        raise BadInput(
            f"expected a baseline that wants slices as the model does ({_cut(crops.slices)}), found one that wants "
            f"{_cut(card.spec.slices)}."
        )
    learned = {*card.split.get("train", ()), *card.split.get("validation", ())}
    patients = crops.table["patient"]
    known = patients[patients.isin(learned)].nunique()
    if known:
        raise BadInput(
            f"expected a baseline that learned from none of the {patients.nunique()} patients measured, found {known} "
            f"in its training or validation part; train both with the same split."
        )


def _cut(slices: SliceConfig) -> str:
    return ", ".join(f"{name} {value}" for name, value in slices.model_dump().items())


# ---- predictions and measures ---------------------------------------------------------------------------------


def _predict(predictor: Predictor, crops: Crops, progress: Progress) -> dict[str, npt.NDArray[np.float32]]:
    """Task -> (N, C) probabilities of every slice."""
    block = 16 * BATCH  # whole batches, so that blocks change no number
    parts = []
    for start in range(0, len(crops.hu_NHW), block):
        parts.append(predictor.predict_slices(crops.hu_NHW[start : start + block]))
        progress(min(start + block, len(crops.hu_NHW)), len(crops.hu_NHW))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _add_columns(
    table: pd.DataFrame, task: Task, truth_N: npt.NDArray[np.int64], prob_NC: npt.NDArray[np.floating]
) -> None:
    """Add `<task>_true`, `<task>_called` and `<task>_p_<class>` to `table`."""
    table[f"{task.name}_true"] = pd.Series(
        [None if n == MISSING else task.classes[n] for n in truth_N], index=table.index, dtype=object
    )
    table[f"{task.name}_called"] = [task.classes[n] for n in prob_NC.argmax(axis=1)]
    for n, label in enumerate(task.classes):
        table[f"{task.name}_p_{label}"] = prob_NC[:, n].astype(np.float32)


def _measure(
    task: Task,
    unit: str,
    true_N: npt.NDArray[np.int64],
    prob_NC: npt.NDArray[np.floating],
    patients: npt.NDArray[np.object_],
) -> list[dict[str, object]]:
    rows = []
    for one in measures(true_N, prob_NC, patients.tolist(), task.classes, seed=SEED):
        if task.kind == "binary" and one.label == task.classes[0]:
            continue  # the same figures as those of the other class, the other way round
        row = asdict(one)
        rows.append({"task": task.name, "unit": unit, "measure": row.pop("name"), **row})
    return rows


def _confusions(
    task: Task, unit: str, true_N: npt.NDArray[np.int64], prob_NC: npt.NDArray[np.floating]
) -> list[dict[str, object]]:
    table = confusion_matrix(true_N, prob_NC.argmax(axis=1), len(task.classes))
    return [
        {"task": task.name, "unit": unit, "truth": truth, "predicted": predicted, "count": int(table[m, n])}
        for m, truth in enumerate(task.classes)
        for n, predicted in enumerate(task.classes)
    ]


def _operating(predictor: Predictor, every: Crops, vertebrae: pd.DataFrame) -> pd.DataFrame:
    """Operating points of each task's positive classes; thresholds from the validation patients among the crops."""
    apart = every.table["patient"].isin(predictor.card.split.get("validation", ())).to_numpy()
    if not apart.any():
        return pd.DataFrame()
    chosen_on = predictions(predictor, every.take(apart))["vertebra"]
    rows = []
    for task in predictor.card.spec.tasks:
        chosen, judged = (table[table[f"{task.name}_true"].notna()] for table in (chosen_on, vertebrae))
        if not len(chosen) or not len(judged):
            continue
        for label in task.classes[1:]:
            pairs = [
                (one[f"{task.name}_p_{label}"].to_numpy(np.float64), (one[f"{task.name}_true"] == label).to_numpy())
                for one in (chosen, judged)
            ]
            points = operating_points(label, pairs[0], pairs[1], judged["patient"].tolist(), seed=SEED)
            rows += [{"task": task.name, **asdict(point)} for point in points]
    return pd.DataFrame(rows)


def differences(
    tables: Mapping[str, pd.DataFrame], card: ModelCard, baseline: Mapping[str, pd.DataFrame], baseline_card: ModelCard
) -> pd.DataFrame:
    """Of the tasks that both models have with the same classes: how far the model is from the baseline."""
    rows = []
    same = [task for task in card.spec.tasks if task.classes in [one.classes for one in _named(baseline_card, task)]]
    for task in same:
        for unit, table in tables.items():
            if table[f"{task.name}_true"].notna().any():
                own, other = (task_confusions(one, task)[None] for one in (table, baseline[unit]))
                rows += [
                    {"task": task.name, "unit": unit, **asdict(one)}
                    for one in compare(own, other, task.classes, seed=SEED)
                    if not (task.kind == "binary" and one.label == task.classes[0])
                ]
    return pd.DataFrame(rows).rename(columns={"name": "measure"})


def _named(card: ModelCard, task: Task) -> list[Task]:
    return [one for one in card.spec.tasks if one.name == task.name]


def task_confusions(table: pd.DataFrame, task: Task) -> npt.NDArray[np.int64]:
    """(P, C, C) counts of each patient of a table of `predictions`, patients in alphabetical order."""
    code = {word: n for n, word in enumerate(task.classes)}
    patients, patient_N = np.unique(table["patient"].to_numpy(str), return_inverse=True)
    known = table[f"{task.name}_true"].notna().to_numpy()
    true_N, called_N = (
        table.loc[known, f"{task.name}_{word}"].map(code).to_numpy(np.int64) for word in ("true", "called")
    )
    return patient_confusions(true_N, called_N, patient_N[known], len(patients), len(code))


def _records(table: pd.DataFrame) -> list[dict[str, object]]:
    """Rows as JSON values: NaN becomes null."""
    return [
        {str(name): None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}
        for row in table.to_dict("records")
    ]
