"""Lesions against normal: the threshold of a model, its calls at it, and the comparison of methods by both.

A task's first class is the negative one; every other class is a lesion. The score of a vertebra is one minus its
probability of the negative class. N vertebrae, C classes, P patients.
"""

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd

from spinemet.evaluation.predictions import Tables, labelled
from spinemet.model.tasks import Task
from spinemet.statistics.comparison import LesionCalls, compare_lesions
from spinemet.statistics.measures import patient_confusions, threshold_for

SPECIFICITY = 0.9
"""That the threshold reaches on the validation patients. At one specificity, a method that calls more lesions of
everything gains nothing: choosing the most probable class would compare how often methods call at all."""


def lesion_threshold(table: pd.DataFrame, task: Task) -> float:
    """The lowest score to call a lesion from, for SPECIFICITY on the vertebrae of `table`; infinite if there is none.

    table: of `predictions`, for the validation patients.
    """
    true_N, prob_NC, _ = labelled(table, task)
    threshold = threshold_for(1 - prob_NC[:, 0], true_N > 0, SPECIFICITY)
    return float("inf") if np.isnan(threshold) else threshold


def called_at(table: pd.DataFrame, task: Task, threshold: float) -> list[str]:
    """The call of each row of `table`: from `threshold` on the most probable lesion, else the negative class."""
    prob_NC = table[[f"{task.name}_p_{label}" for label in task.classes]].to_numpy(np.float64)
    lesion_N = 1 + prob_NC[:, 1:].argmax(axis=1)
    return [task.classes[n] for n in np.where(1 - prob_NC[:, 0] >= threshold, lesion_N, 0)]


def compared_lesions(task: Task, runs: Sequence[Tables], baseline: Sequence[Tables] | None) -> list[dict[str, object]]:
    """`statistics.comparison.compare_lesions` of the vertebrae of several trainings, as rows with task and unit."""
    found = compare_lesions(
        [_lesion_calls(one["vertebra"], task) for one in runs],
        None if baseline is None else [_lesion_calls(one["vertebra"], task) for one in baseline],
        task.classes,
    )
    return [{"task": task.name, "unit": "vertebra", **asdict(one)} for one in found]


def _lesion_calls(table: pd.DataFrame, task: Task) -> LesionCalls:
    true_N, prob_NC, patients_N = labelled(table, task)
    names = np.unique(table["patient"].to_numpy(str))
    patient_N = np.searchsorted(names, patients_N)
    known = table[f"{task.name}_true"].notna()
    called_N = table.loc[known, f"{task.name}_at_threshold"].map(task.classes.index).to_numpy(np.int64)
    counts_PCC = patient_confusions(true_N, called_N, patient_N, len(names), len(task.classes))
    return LesionCalls(1 - prob_NC[:, 0], true_N > 0, patient_N, counts_PCC)
