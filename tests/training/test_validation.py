"""Measures on the validation vertebrae, against values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from spinemet.config import changed
from spinemet.model.aggregate import Rule
from spinemet.model.tasks import MISSING
from spinemet.training.dataset import Samples
from spinemet.training.validation import (
    balanced_log_loss,
    choose_rules,
    fit_offsets,
    fit_temperature,
    macro_sensitivity,
    tempered,
    validation_metrics,
    vertebra_calls,
)
from tests.training.lesions import small_recipe


def test_macro_sensitivity_counts_every_class_that_occurs_the_same() -> None:
    true_V = np.array([0, 0, 0, 0, 3])
    assert macro_sensitivity(true_V, np.array([0, 0, 0, 1, 0]), 4) == pytest.approx(0.375)
    assert math.isnan(macro_sensitivity(np.array([], int), np.array([], int), 4))


def test_balanced_log_loss_counts_every_class_that_occurs_the_same() -> None:
    prob_VC = np.array([[0.5, 0.5], [0.5, 0.5], [0.75, 0.25]])
    expected = (math.log(2) + math.log(4)) / 2
    assert balanced_log_loss(np.array([0, 0, 1]), prob_VC) == pytest.approx(expected)


def test_slices_are_combined_and_unlabelled_vertebrae_left_out() -> None:
    targets = np.array([1, 1, MISSING, 0])
    prob = np.array([[0.8, 0.2], [0.2, 0.8], [0.5, 0.5], [0.9, 0.1]])
    true_V, prob_VC = vertebra_calls(prob, targets, np.array([7, 7, 8, 9]), Rule(kind="mean"))
    assert true_V.tolist() == [1, 0]
    assert prob_VC == pytest.approx(np.array([[0.5, 0.5], [0.9, 0.1]]))


def test_a_rule_for_lesions_on_few_slices_is_chosen_if_it_helps() -> None:
    recipe = small_recipe()
    targets_TN = np.array([[1] * 6 + [0] * 6] * 2 + [[1] * 6 + [0] * 6] + [[MISSING] * 12])
    samples = Samples(
        hu_NHW=np.zeros((12, 32, 32), np.int16),
        rows_N=np.arange(12),
        targets_TN=targets_TN,
        weights_TN=np.ones((4, 12), np.float32),
        vertebra_N=np.repeat([0, 1], 6),
        vertebra_targets_TN=targets_TN,
    )
    few = np.array([[0.1, 0.9]] * 2 + [[0.9, 0.1]] * 10)
    every = np.array([[0.4, 0.6]] * 6 + [[0.6, 0.4]] * 3 + [[0.95, 0.05]] * 3)
    prob = {
        "blastic": few,
        "lytic": every,
        "bone_quality": np.hstack([few, np.zeros((12, 2))]),
        "posterolateral": np.full((12, 3), 1 / 3),
    }
    rules = choose_rules(prob, samples, recipe)
    assert rules["blastic"].kind == rules["bone_quality"].kind == "top"
    assert rules["lytic"].kind == rules["posterolateral"].kind == "mean"
    metrics = validation_metrics(prob, samples, recipe.model, rules, {})
    assert metrics["validation_macro_sensitivity_blastic"] == 1
    assert "validation_macro_sensitivity_posterolateral" not in metrics


@pytest.mark.parametrize("temperature", [0.7, 1.0, 2.5])
def test_a_known_temperature_is_found_again(temperature: float) -> None:
    rng = np.random.default_rng(0)
    honest = rng.dirichlet([0.6, 0.6, 0.6], 3000)
    true = np.array([rng.choice(3, p=one) for one in honest])
    spoiled = tempered(honest, 1 / temperature)
    found = fit_temperature(spoiled, true, np.arange(3000), Rule(kind="mean"))
    assert found == pytest.approx(temperature, rel=0.1)
    assert tempered(spoiled, temperature) == pytest.approx(honest, abs=1e-4)


def test_few_vertebrae_fit_no_temperature() -> None:
    prob, true = np.array([[0.6, 0.4]] * 19), np.zeros(19, int)
    assert fit_temperature(prob, true, np.arange(19), Rule(kind="mean")) == 1
    more = np.array([[0.6, 0.4]] * 20)
    assert fit_temperature(more, np.zeros(20, int), np.arange(20), Rule(kind="mean")) == pytest.approx(0.5, abs=0.01)


def subtask_evidence(count: int, correlation: float, seed: int) -> tuple[dict[str, np.ndarray], Samples]:
    """Blastic and lytic of vertebrae of one slice each, as independent sub-tasks say; in truth a vertebra is mixed by
    `correlation` more or less often than their product."""
    rng = np.random.default_rng(seed)
    blastic, lytic = rng.beta(0.5, 0.5, count), rng.beta(0.5, 0.5, count)
    product = np.stack([(1 - blastic) * (1 - lytic), blastic * (1 - lytic), blastic * lytic, (1 - blastic) * lytic], 1)
    product[:, 2] *= correlation
    product /= product.sum(axis=1, keepdims=True)
    true = np.array([rng.choice(4, p=one) for one in product])
    yes = np.stack([np.isin(true, (1, 2)), np.isin(true, (2, 3))])
    targets = np.stack([yes[0], yes[1], true, np.full(count, MISSING)]).astype(int)
    samples = Samples(
        hu_NHW=np.zeros((count, 32, 32), np.int16),
        rows_N=np.arange(count),
        targets_TN=targets,
        weights_TN=np.ones((4, count), np.float32),
        vertebra_N=np.arange(count),
        vertebra_targets_TN=targets,
    )
    prob = {"blastic": np.stack([1 - blastic, blastic], 1), "lytic": np.stack([1 - lytic, lytic], 1)}
    return prob | {"bone_quality": product, "posterolateral": np.full((count, 3), 1 / 3)}, samples


@pytest.mark.parametrize("correlation", [0.3, 1.0, 4.0])
def test_offsets_find_how_sub_tasks_depend_on_each_other(correlation: float) -> None:
    recipe = small_recipe()
    recipe = changed(recipe, model=changed(recipe.model, composed=True))
    prob, samples = subtask_evidence(1500, correlation, 0)
    rules = dict.fromkeys(prob, Rule())
    offsets = fit_offsets(prob, samples, rules, recipe)
    normal, blastic, mixed, lytic = offsets["bone_quality"]
    assert mixed - (normal + blastic + lytic) / 3 == pytest.approx(math.log(correlation), abs=0.4)
    before, after = (validation_metrics(prob, samples, recipe.model, rules, one) for one in ({}, offsets))
    assert after["validation_ece_bone_quality"] <= before["validation_ece_bone_quality"] + 0.01


def test_few_vertebrae_leave_the_product_almost_as_it_is_and_other_models_have_no_offsets() -> None:
    recipe = small_recipe()
    prob, samples = subtask_evidence(6, 1.0, 1)
    rules = dict.fromkeys(prob, Rule())
    assert fit_offsets(prob, samples, rules, recipe) == {}
    recipe = changed(recipe, model=changed(recipe.model, composed=True))
    assert np.abs(fit_offsets(prob, samples, rules, recipe)["bone_quality"]).max() < 1.5
