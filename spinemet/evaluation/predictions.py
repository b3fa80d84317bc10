"""A model's calls on labelled crops beside their labels: one table per unit (vertebra, slice).

The truth of a slice is its own label, or its vertebra's if the slice has none. Axes: N samples, C classes, P patients.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
import numpy.typing as npt
import pandas as pd

from spinemet.model.card import ModelCard
from spinemet.model.doubt import in_context
from spinemet.model.predictor import BATCH, Predictor
from spinemet.model.tasks import MISSING, Task
from spinemet.progress import Progress, no_progress
from spinemet.reading import VertebraCall
from spinemet.statistics.comparison import compare
from spinemet.statistics.measures import patient_confusions
from spinemet.training.crops import WHERE, Crops

UNITS = {"vertebra": "per vertebra", "slice": "per slice"}
"""The units that are measured, and their words."""
CERTAINTY, SURE, UNSURE = "certainty", "sure", "unsure"
Tables = Mapping[str, pd.DataFrame]
"""Unit -> the rows of `predictions`."""
Probabilities = Mapping[str, npt.NDArray[np.float32]]
"""Task -> (N, C) probabilities of slices."""


def predictions(predictor: Predictor, crops: Crops, progress: Progress = no_progress) -> dict[str, pd.DataFrame]:
    """Unit -> its rows of `crops` with `<task>_true` (None: no label), `<task>_called` and `<task>_p_<class>`.

    Vertebrae also have `unsure` and CERTAINTY (see `certainty`), if the model can tell.
    """
    prob, features_NF = _predict(predictor, crops, progress)
    tables = unit_tables(predictor.card, crops.table, prob)
    sizes = crops.table.groupby("vertebra", sort=False).size().tolist()
    calls = predictor.calls(crops.hu_NHW, prob, features_NF, sizes)
    certain = certainty(_within_studies(calls, tables["vertebra"]["study"]))
    return {**tables, "vertebra": tables["vertebra"].assign(**certain)}


def _within_studies(calls: Sequence[VertebraCall], study_V: pd.Series) -> list[VertebraCall]:
    """The calls, each judged within its study. study_V: the study of each vertebra."""
    found = list(calls)
    for places in study_V.groupby(study_V).indices.values():
        for place, call in zip(places, in_context([calls[place] for place in places]), strict=True):
            found[place] = call
    return found


def certainty(calls: Sequence[VertebraCall]) -> dict[str, list[str]]:
    """`unsure`: the word of the reason, "" for a sure call; CERTAINTY: SURE or UNSURE. Nothing if no call is judged."""
    if not all(call.is_judged for call in calls):
        return {}
    words = ["" if call.doubt is None else call.doubt.value for call in calls]
    return {"unsure": words, CERTAINTY: [UNSURE if word else SURE for word in words]}


def unit_tables(card: ModelCard, table: pd.DataFrame, prob: Probabilities) -> dict[str, pd.DataFrame]:
    """The same from the slices' probabilities. table: one row per slice, with the columns of Crops.table."""
    slices = table[list(WHERE)].reset_index(drop=True)
    first = ~slices["vertebra"].duplicated()
    vertebrae = slices[first].drop(columns="offset_mm").reset_index(drop=True)
    starts = np.flatnonzero(first)
    split = {name: np.split(prob_NC, starts[1:]) for name, prob_NC in prob.items()}
    called = [card.of_vertebra({name: parts[n] for name, parts in split.items()}) for n in range(len(starts))]
    for task in card.spec.tasks:
        vertebra_target_N, target_N = np.array(task.targets(table)), np.array(task.slice_targets(table))
        prob_VC = np.array([one[task.name] for one in called])
        _add_columns(vertebrae, task, vertebra_target_N[starts], prob_VC)
        _add_columns(slices, task, target_N, prob[task.name])
    return {"vertebra": vertebrae, "slice": slices}


def _predict(predictor: Predictor, crops: Crops, progress: Progress) -> tuple[Probabilities, npt.NDArray[np.float32]]:
    """The probabilities and the features of all slices."""
    block = 16 * BATCH  # whole batches, so that blocks change no number
    parts, features = [], []
    for start in range(0, len(crops.hu_NHW), block):
        parts.append(predictor.predict_slices(crops.hu_NHW[start : start + block]))
        features.append(predictor.features())
        progress(min(start + block, len(crops.hu_NHW)), len(crops.hu_NHW))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, np.concatenate(features)


def _add_columns(
    table: pd.DataFrame, task: Task, target_N: npt.NDArray[np.int64], prob_NC: npt.NDArray[np.floating]
) -> None:
    labels = [None if n == MISSING else task.classes[n] for n in target_N]
    table[f"{task.name}_true"] = pd.Series(labels, index=table.index, dtype=object)
    table[f"{task.name}_called"] = [task.classes[n] for n in prob_NC.argmax(axis=1)]
    for n, label in enumerate(task.classes):
        table[f"{task.name}_p_{label}"] = prob_NC[:, n].astype(np.float32)


def labelled(
    table: pd.DataFrame, task: Task
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.str_]]:
    """(N,) true classes, (N, C) probabilities and (N,) patients of the rows of a table that have a label of `task`."""
    known = table[table[f"{task.name}_true"].notna()]
    true_N = known[f"{task.name}_true"].map(task.classes.index).to_numpy(np.int64)
    prob_NC = known[[f"{task.name}_p_{label}" for label in task.classes]].to_numpy(np.float64)
    return true_N, prob_NC, known["patient"].to_numpy(str)


def task_confusions(table: pd.DataFrame, task: Task) -> npt.NDArray[np.int64]:
    """(P, C, C) counts of each patient of a table, patients in alphabetical order, also those without a label."""
    patients, patient_N = np.unique(table["patient"].to_numpy(str), return_inverse=True)
    known = table[f"{task.name}_true"].notna().to_numpy()
    true_N, called_N = (
        table.loc[known, f"{task.name}_{name}"].map(task.classes.index).to_numpy(np.int64)
        for name in ("true", "called")
    )
    return patient_confusions(true_N, called_N, patient_N[known], len(patients), len(task.classes))


def compared(
    task: Task, unit: str, runs: Sequence[Tables], baseline: Sequence[Tables] | None
) -> list[dict[str, object]]:
    """`statistics.comparison.Compared` of several trainings as rows with task and unit; of a no/yes task only `yes`."""
    runs_RPCC, baseline_RPCC = (
        None if tables is None else np.stack([task_confusions(one[unit], task) for one in tables])
        for tables in (runs, baseline)
    )
    assert runs_RPCC is not None
    found = compare(runs_RPCC, baseline_RPCC, task.classes, further=task.measures)
    return [{"task": task.name, "unit": unit, **asdict(one)} for one in found if not repeats(task, one.label)]


def repeats(task: Task, label: str) -> bool:
    """True for the class `no`, whose measures are those of `yes` the other way round."""
    return task.kind == "binary" and label == task.classes[0]
