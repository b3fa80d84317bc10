"""Measures per vertebra on the validation patients, which pick the epoch, aggregation rules and temperatures.

N slices, V vertebrae, C classes.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

from spinemet.model.aggregate import Rule, aggregate
from spinemet.model.tasks import MISSING, Task
from spinemet.statistics.measures import OVERALL, calibration_error, confusion_matrix, sensitivity
from spinemet.training.config import TrainRecipe
from spinemet.training.dataset import Samples

TEMPERATURES = (0.5, 4.0)
"""Allowed temperatures; a small set without errors would drive the temperature to 0."""
MIN_VERTEBRAE = 20
"""Labelled vertebrae that a fit of a temperature needs; on fewer, chance decides."""

Probabilities = Mapping[str, npt.NDArray[np.float64]]


def vertebra_calls(
    prob_NC: npt.NDArray[np.float64], targets_N: npt.NDArray[np.int64], vertebra_N: npt.NDArray[np.int64], rule: Rule
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """(V,) true classes and (V, C) aggregated probabilities of the labelled vertebrae.

    targets_N: classes of the vertebrae, repeated for each of their slices.
    """
    known = targets_N != MISSING
    vertebrae, first = np.unique(vertebra_N[known], return_index=True)
    prob_VC = [aggregate(prob_NC[known][vertebra_N[known] == vertebra], rule) for vertebra in vertebrae]
    return targets_N[known][first], np.array(prob_VC).reshape(len(vertebrae), prob_NC.shape[1])


def macro_sensitivity(true_V: npt.NDArray[np.int64], called_V: npt.NDArray[np.int64], classes: int) -> float:
    """The mean sensitivity of the classes that occur (few patients may lack one); NaN for no vertebra."""
    shares = sensitivity(confusion_matrix(true_V, called_V, classes))
    return float(np.nanmean(shares)) if len(true_V) else float("nan")


def balanced_log_loss(true_V: npt.NDArray[np.int64], prob_VC: npt.NDArray[np.float64]) -> float:
    """The mean log loss of each class's vertebrae, averaged over the classes that occur; NaN for no vertebra.

    Choices use this and not macro sensitivity: on few validation patients, a single vertebra of a rare class changes
    macro sensitivity by 5 points.
    """
    loss_V = -np.log(np.maximum(prob_VC[np.arange(len(true_V)), true_V], 1e-3))
    per_class = [float(loss_V[true_V == one].mean()) for one in np.unique(true_V)]
    return float(np.mean(per_class)) if per_class else float("nan")


def choose_rules(prob: Probabilities, samples: Samples, recipe: TrainRecipe) -> dict[str, Rule]:
    """Task -> the recipe's rule with the lowest balanced log loss; the first rule for a task without labels."""
    chosen = {}
    for task, targets_N in zip(recipe.model.tasks, samples.vertebra_targets_TN, strict=True):
        called = [vertebra_calls(prob[task.name], targets_N, samples.vertebra_N, rule) for rule in recipe.rules]
        chosen[task.name] = recipe.rules[int(np.argmin([balanced_log_loss(*one) for one in called]))]
    return chosen


def tempered(prob_NC: npt.NDArray[np.float64], temperature: float) -> npt.NDArray[np.float64]:
    """(N, C) probabilities of the logits behind `prob_NC`, divided by `temperature`."""
    power = np.maximum(prob_NC, 1e-12) ** (1 / temperature)
    return np.asarray(power / power.sum(axis=1, keepdims=True))


def fit_temperatures(
    prob: Probabilities, samples: Samples, rules: Mapping[str, Rule], recipe: TrainRecipe
) -> dict[str, float]:
    """Task -> the temperature (Guo et al. 2017) with the lowest log loss of the vertebrae; 1 if there are too few."""
    return {
        task.name: fit_temperature(prob[task.name], targets_N, samples.vertebra_N, rules[task.name])
        for task, targets_N in zip(recipe.model.tasks, samples.vertebra_targets_TN, strict=True)
    }


def fit_temperature(
    prob_NC: npt.NDArray[np.float64], targets_N: npt.NDArray[np.int64], vertebra_N: npt.NDArray[np.int64], rule: Rule
) -> float:
    """The temperature of the slices, within TEMPERATURES, with the lowest mean log loss of the vertebrae."""

    def log_loss(log_temperature: float) -> float:
        scaled_NC = tempered(prob_NC, float(np.exp(log_temperature)))
        true_V, prob_VC = vertebra_calls(scaled_NC, targets_N, vertebra_N, rule)
        return float(-np.log(np.maximum(prob_VC[np.arange(len(true_V)), true_V], 1e-3)).mean())

    if len(np.unique(vertebra_N[targets_N != MISSING])) < MIN_VERTEBRAE:
        return 1.0
    best = minimize_scalar(log_loss, bounds=tuple(np.log(TEMPERATURES)), method="bounded", options={"xatol": 1e-3})
    return float(np.exp(best.x))


def validation_metrics(
    prob: Probabilities, samples: Samples, tasks: Sequence[Task], rules: Mapping[str, Rule]
) -> dict[str, float]:
    """`validation_<measure>_<task>` for each task with labels: log_loss (balanced), macro_sensitivity, ece and the
    task's own measures."""
    found = {}
    for task, targets_N in zip(tasks, samples.vertebra_targets_TN, strict=True):
        true_V, prob_VC = vertebra_calls(prob[task.name], targets_N, samples.vertebra_N, rules[task.name])
        if len(true_V):
            found[f"validation_log_loss_{task.name}"] = balanced_log_loss(true_V, prob_VC)
            found[f"validation_macro_sensitivity_{task.name}"] = macro_sensitivity(
                true_V, prob_VC.argmax(axis=1), len(task.classes)
            )
            found[f"validation_ece_{task.name}"] = calibration_error(true_V, prob_VC)
            counts_CC = confusion_matrix(true_V, prob_VC.argmax(axis=1), len(task.classes))
            found |= {f"validation_{name}_{task.name}": float(OVERALL[name](counts_CC)) for name in task.measures}
    return found
