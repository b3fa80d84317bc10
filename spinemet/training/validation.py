"""Measures per vertebra on the validation patients, which pick the epoch, aggregation rules, temperatures, offsets
and doubts.

N slices, V vertebrae, C classes.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize, minimize_scalar

from spinemet.model.aggregate import Rule, aggregate, compose
from spinemet.model.doubt import (
    Doubts,
    appearance,
    fit_classes,
    fit_familiar,
    fit_ranges,
    fit_unexplained,
    unexplained_share,
)
from spinemet.model.predictor import Predictor
from spinemet.model.spec import ModelSpec
from spinemet.model.tasks import MISSING, Task
from spinemet.statistics.measures import OVERALL, calibration_error, confusion_matrix, sensitivity
from spinemet.training import augment
from spinemet.training.config import TrainRecipe
from spinemet.training.dataset import Samples, TrainingData

TEMPERATURES = (0.5, 4.0)
"""Allowed temperatures; a small set without errors would drive the temperature to 0."""
MIN_VERTEBRAE = 20
"""Labelled vertebrae that a fit of a temperature needs; on fewer, chance decides."""

FITTED = 500
"""Training vertebrae, evenly chosen, that say what the model knows; as many slices as a fraction of an epoch."""

Probabilities = Mapping[str, npt.NDArray[np.float64]]
Offsets = Mapping[str, Sequence[float]]


def vertebra_calls(
    prob_NC: npt.NDArray[np.float64], targets_N: npt.NDArray[np.int64], vertebra_N: npt.NDArray[np.int64], rule: Rule
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """(V,) true classes and (V, C) aggregated probabilities of the labelled vertebrae.

    targets_N: classes of the vertebrae, repeated for each of their slices.
    """
    known = np.flatnonzero(targets_N != MISSING)
    known = known[np.argsort(vertebra_N[known], kind="stable")]
    _, starts = np.unique(vertebra_N[known], return_index=True)
    parts = np.split(prob_NC[known], starts[1:]) if len(known) else []
    return targets_N[known][starts], np.array([aggregate(one, rule) for one in parts]).reshape(-1, prob_NC.shape[1])


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


def task_calls(
    task: Task, prob: Probabilities, samples: Samples, spec: ModelSpec, rules: Mapping[str, Rule], offsets: Offsets
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The same for `task` of a model; in a composed model, a fused task follows from the vertebrae's sub-tasks."""
    targets_N = samples.vertebra_targets_TN[spec.tasks.index(task)]
    if not (task.fuses and spec.composed):
        return vertebra_calls(prob[task.name], targets_N, samples.vertebra_N, rules[task.name])
    subtasks = {
        name: vertebra_calls(prob[name], targets_N, samples.vertebra_N, rules[name]) for name in spec.parts(task)
    }
    true_V = next(iter(subtasks.values()))[0]
    parts = [subtasks[name][1][:, means] for name, means in spec.parts(task).items()]
    return true_V, compose(parts, np.asarray(offsets.get(task.name, (0.0,) * len(task.classes))))


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
    """Task -> the temperature (Guo et al. 2017) with the lowest log loss of the vertebrae; 1 if there are too few.

    Also 1 for a composed task: it follows from its sub-tasks with theirs.
    """
    composed = {task.name for task in recipe.model.tasks if task.fuses and recipe.model.composed}
    return {
        task.name: 1.0
        if task.name in composed
        else fit_temperature(prob[task.name], targets_N, samples.vertebra_N, rules[task.name])
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


def fit_offsets(
    prob: Probabilities, samples: Samples, rules: Mapping[str, Rule], recipe: TrainRecipe
) -> dict[str, tuple[float, ...]]:
    """Composed task -> what corrects the product of its sub-tasks: the offset of each class with the lowest log loss of
    the vertebrae, held near 0.

    The sub-tasks of a vertebra are not independent: a lytic one is more often also blastic than a normal one. Without
    the penalty (a normal prior of deviation 1), a class that no validation vertebra has would be ruled out. prob: with
    the temperatures of the sub-tasks.
    """
    found = {}
    for task in recipe.model.tasks if recipe.model.composed else ():
        if not task.fuses:
            continue
        true_V, prob_VC = task_calls(task, prob, samples, recipe.model, rules, {})
        place_V = np.arange(len(true_V))

        def penalised(
            offsets: npt.NDArray[np.float64],
            true_V: npt.NDArray[np.int64] = true_V,
            prob_VC: npt.NDArray[np.float64] = prob_VC,
            place_V: npt.NDArray[np.int64] = place_V,
        ) -> float:
            loss_V = -np.log(np.maximum(compose([prob_VC], offsets)[place_V, true_V], 1e-3))
            return float(loss_V.sum() + 0.5 * (offsets**2).sum())

        best = minimize(penalised, np.zeros(len(task.classes)), method="L-BFGS-B")
        found[task.name] = tuple(float(one) for one in best.x)
    return found


def validation_metrics(
    prob: Probabilities, samples: Samples, spec: ModelSpec, rules: Mapping[str, Rule], offsets: Offsets
) -> dict[str, float]:
    """`validation_<measure>_<task>` for each task with labels: log_loss (balanced), macro_sensitivity, ece and the
    task's own measures."""
    found = {}
    for task in spec.tasks:
        true_V, prob_VC = task_calls(task, prob, samples, spec, rules, offsets)
        if len(true_V):
            found[f"validation_log_loss_{task.name}"] = balanced_log_loss(true_V, prob_VC)
            found[f"validation_macro_sensitivity_{task.name}"] = macro_sensitivity(
                true_V, prob_VC.argmax(axis=1), len(task.classes)
            )
            found[f"validation_ece_{task.name}"] = calibration_error(true_V, prob_VC)
            counts_CC = confusion_matrix(true_V, prob_VC.argmax(axis=1), len(task.classes))
            found |= {f"validation_{name}_{task.name}": float(OVERALL[name](counts_CC)) for name in task.measures}
    return found


# ---- when calls are unsure ------------------------------------------------------------------------------------


def fit_doubts(
    predictor: Predictor, data: TrainingData, recipe: TrainRecipe, seed: int
) -> tuple[Doubts, npt.NDArray[np.float32] | None]:
    """What makes calls of the trained `predictor` unsure, and the array of `model.doubt.fit_familiar`.

    The ranges of plain measures are those of training vertebrae as they are and as augmentation shows them, and of
    validation vertebrae. The other thresholds come from the validation vertebrae alone.
    """
    pixel_mm, measured, features = recipe.model.slices.pixel_mm, [], []
    for number, (_, hu_NHW) in enumerate(_stacks(data.train, FITTED)):
        predictor.predict_slices(hu_NHW)
        features.append(predictor.features().mean(axis=0))
        measured += [appearance(one, pixel_mm) for one in (hu_NHW, _augmented(hu_NHW, recipe, [seed, number]))]
    familiar = fit_familiar(np.array(features))
    shares, firsts = [], []
    prob: dict[str, list[npt.NDArray[np.float64]]] = {task.name: [] for task in recipe.model.tasks}
    for first, hu_NHW in _stacks(data.validation):
        slices_NC = predictor.predict_slices(hu_NHW)
        measured.append(appearance(hu_NHW, pixel_mm))
        if familiar is not None:
            shares.append(unexplained_share(predictor.features().mean(axis=0), familiar))
        firsts.append(first)
        for name, prob_C in predictor.card.of_vertebra(slices_NC).items():
            prob[name].append(np.asarray(prob_C, np.float64))
    classes = {}
    for task, targets_N in zip(recipe.model.tasks, data.validation.vertebra_targets_TN, strict=True):
        true_V = targets_N[firsts]
        known = true_V != MISSING
        if limits := fit_classes(true_V[known], np.array(prob[task.name])[known]):
            classes[task.name] = limits
    doubts = Doubts(
        ranges=fit_ranges(measured), unexplained=fit_unexplained(shares), classes=classes, decides=recipe.selects
    )
    return doubts, familiar


def _stacks(samples: Samples, most: int | None = None) -> Iterator[tuple[int, npt.NDArray[np.int16]]]:
    """For each vertebra, or evenly for at most `most`: the place of its first slice, and its (N, H, W) slices."""
    vertebrae, first_V = np.unique(samples.vertebra_N, return_index=True)
    chosen = np.unique(
        np.linspace(0, len(vertebrae) - 1, min(most or len(vertebrae), len(vertebrae))).round().astype(int)
    )
    for one in chosen:
        rows = np.flatnonzero(samples.vertebra_N == vertebrae[one])
        yield int(first_V[one]), samples.pixels(rows).numpy()


def _augmented(hu_NHW: npt.NDArray[np.int16], recipe: TrainRecipe, seed: Sequence[int]) -> npt.NDArray[np.float32]:
    """(1, H, W): the middle slice of a vertebra as one draw of the training's augmentation shows it."""
    number = int(np.random.default_rng(seed).integers(2**31))
    drawn = augment.draw(1, recipe.augment, number, recipe.model.slices.pixel_mm)
    middle = len(hu_NHW) // 2
    return np.asarray(augment.apply(torch.from_numpy(hu_NHW[middle : middle + 1]), drawn).numpy())
