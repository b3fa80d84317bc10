"""Measures on the validation vertebrae, against values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from spinemet.model.aggregate import Rule
from spinemet.model.tasks import MISSING
from spinemet.training.dataset import Samples
from spinemet.training.validation import (
    balanced_log_loss,
    choose_rules,
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
    metrics = validation_metrics(prob, samples, recipe.model.tasks, rules)
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
