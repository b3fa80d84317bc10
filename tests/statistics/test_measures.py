"""Measures agree with scikit-learn and hand counts, and intervals resample whole patients."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score, recall_score, roc_auc_score
from sklearn.metrics import confusion_matrix as reference_confusion
from statsmodels.stats.proportion import proportion_confint

from spinemet.statistics.intervals import percentile_interval, resample_patients, wilson_interval
from spinemet.statistics.measures import (
    Measure,
    auc,
    calibration_error,
    confusion_matrix,
    macro_sensitivity,
    measure,
    quadratic_weighted_kappa,
    reliability,
    sensitivity,
    specificity,
    threshold_for,
)

CLASSES = ("normal", "blastic", "mixed", "lytic")


def sample(seed: int, n: int = 120) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 4, n)
    prob = rng.dirichlet(np.ones(4), n)
    prob[np.arange(n), true] += 0.3
    return true, prob / prob.sum(axis=1, keepdims=True)


def find(found: list[Measure], name: str, label: str = "") -> Measure:
    return next(one for one in found if (one.name, one.label) == (name, label))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60))
def test_points_agree_with_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    true, predicted = np.array(pairs).T
    table = confusion_matrix(true, predicted, 4)
    np.testing.assert_array_equal(table, reference_confusion(true, predicted, labels=range(4)))
    np.testing.assert_allclose(
        sensitivity(table), recall_score(true, predicted, labels=range(4), average=None, zero_division=np.nan)
    )
    for n in range(4):
        expected = recall_score(true != n, predicted != n, zero_division=np.nan)
        np.testing.assert_allclose(specificity(table)[n], expected)
    assert math.isnan(macro_sensitivity(table)) == (len(set(true)) < 4)
    if len({*true, *predicted}) > 1:
        kappa = cohen_kappa_score(true, predicted, labels=range(4), weights="quadratic")
        np.testing.assert_allclose(quadratic_weighted_kappa(table), kappa, atol=1e-12)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 3)), min_size=2, max_size=40))
def test_weighted_auc_agrees_with_scikit_learn(rows: list[tuple[int, bool, int]]) -> None:
    score, positive, weight = (np.array(column) for column in zip(*rows, strict=True))
    areas = auc(score, positive, np.stack([weight, np.ones_like(weight)]))
    for area, weights in zip(areas, (weight, np.ones_like(weight)), strict=True):
        if weights[positive].sum() and weights[~positive].sum():
            assert area == pytest.approx(roc_auc_score(positive, score, sample_weight=weights))
        else:
            assert math.isnan(area)


def test_auc_in_blocks_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    score, positive, weight = rng.normal(size=30), rng.random(30) < 0.5, rng.integers(0, 3, (17, 30))
    whole = auc(score, positive, weight)
    monkeypatch.setattr("spinemet.statistics.measures.AUC_BLOCK", 100)
    np.testing.assert_array_equal(auc(score, positive, weight), whole)


@given(st.integers(1, 200), st.data())
def test_wilson_agrees_with_statsmodels(n: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, n))
    assert wilson_interval(successes, n) == pytest.approx(proportion_confint(successes, n, method="wilson"), abs=1e-9)


@given(st.integers(1, 10**6))
def test_wilson_ends_exactly_at_a_share_of_0_or_1(n: int) -> None:
    assert wilson_interval(0, n)[0] == 0
    assert wilson_interval(n, n)[1] == 1


def test_wilson_without_a_trial_is_undefined() -> None:
    assert all(math.isnan(end) for end in wilson_interval(0, 0))


def test_resampling_draws_as_many_patients_and_is_repeatable() -> None:
    draws = resample_patients(7, 50, seed=3)
    assert draws.shape == (50, 7)
    assert (draws.sum(axis=1) == 7).all()
    np.testing.assert_array_equal(draws, resample_patients(7, 50, seed=3))
    assert (draws != resample_patients(7, 50, seed=4)).any()


def test_measures_equal_a_plain_resampling_loop() -> None:
    true, prob = sample(1)
    patients = np.array([f"p{n // 10}" for n in range(len(true))])
    found = measure(true, prob, patients, CLASSES, resamples=200, seed=5)
    names = np.unique(patients)
    loop = []
    for draw in resample_patients(len(names), 200, seed=5):
        rows = np.concatenate(
            [np.flatnonzero(patients == name) for name, k in zip(names, draw, strict=True) for _ in range(k)]
        )
        loop.append(macro_sensitivity(confusion_matrix(true[rows], prob[rows].argmax(axis=1), 4)))
    macro = find(found, "macro_sensitivity")
    assert (macro.low, macro.high) == pytest.approx(percentile_interval(macro.value, np.array(loop)))
    assert macro.low < macro.value < macro.high
    assert (macro.n, macro.patients) == (120, 12)
    lytic = find(found, "sensitivity", "lytic")
    assert lytic.n == (true == 3).sum()
    assert find(found, "auc", "lytic").value == pytest.approx(roc_auc_score(true == 3, prob[:, 3]))


def test_further_measures_are_measured_once_and_have_an_interval() -> None:
    true, prob = sample(2)
    names = ("quadratic_weighted_kappa", "macro_sensitivity")
    found = measure(true, prob, [f"p{n // 10}" for n in range(len(true))], CLASSES, further=names, resamples=100)
    kappa = find(found, "quadratic_weighted_kappa")
    assert kappa.value == pytest.approx(cohen_kappa_score(true, prob.argmax(axis=1), weights="quadratic"))
    assert kappa.low < kappa.value < kappa.high
    assert [one.name for one in found].count("macro_sensitivity") == 1


def test_intervals_are_wider_when_a_patients_vertebrae_agree() -> None:
    """120 vertebrae of 12 patients, each patient all right or all wrong, hold the information of 12 vertebrae."""
    right = np.repeat(np.arange(12) % 3 > 0, 10)
    prob = np.where(right[:, None], [0.1, 0.9], [0.9, 0.1])
    true = np.ones(120, int)
    clustered = find(measure(true, prob, [f"p{n // 10}" for n in range(120)], ("no", "yes")), "sensitivity", "yes")
    single = find(measure(true, prob, [f"p{n}" for n in range(120)], ("no", "yes")), "sensitivity", "yes")
    assert clustered.value == single.value == pytest.approx(2 / 3)
    assert clustered.high - clustered.low > 2.5 * (single.high - single.low)


def test_coverage_of_the_clustered_interval() -> None:
    """About 95 % of the intervals hold the truth, although the vertebrae of a patient agree."""
    rng, held, trials = np.random.default_rng(0), 0, 200
    for trial in range(trials):
        rate = rng.beta(4, 2, 40)  # mean 2/3
        right = rng.random((40, 8)) < rate[:, None]
        prob = np.where(right.reshape(-1, 1), [0.1, 0.9], [0.9, 0.1])
        patients = np.repeat([f"p{n}" for n in range(40)], 8)
        one = find(
            measure(np.ones(320, int), prob, patients, ("no", "yes"), resamples=300, seed=trial), "sensitivity", "yes"
        )
        held += one.low <= 2 / 3 <= one.high
    assert 0.89 <= held / trials <= 0.99


def test_all_right_is_not_certain() -> None:
    found = measure(np.ones(50, int), np.tile([0.1, 0.9], (50, 1)), [f"p{n // 10}" for n in range(50)], ("no", "yes"))
    one = find(found, "sensitivity", "yes")
    assert (one.value, one.high) == (1.0, pytest.approx(1.0))
    assert one.low == pytest.approx(wilson_interval(5, 5)[0])


def test_a_measure_without_a_sample_is_undefined() -> None:
    found = measure(np.zeros(4, int), np.tile([0.7, 0.1, 0.1, 0.1], (4, 1)), list("abcd"), CLASSES)
    missing = find(found, "sensitivity", "lytic")
    assert math.isnan(missing.value)
    assert math.isnan(missing.low)
    assert (missing.n, missing.patients) == (0, 0)
    assert math.isnan(find(found, "macro_sensitivity").value)
    assert find(found, "specificity", "lytic").value == 1.0


@given(st.integers(0, 10_000), st.integers(1, 80), st.floats(0, 1))
def test_a_threshold_reaches_the_specificity_and_no_lower_one_does(seed: int, count: int, least: float) -> None:
    rng = np.random.default_rng(seed)
    score, positive = rng.integers(0, 20, count) / 20, rng.random(count) < 0.4
    threshold = threshold_for(score, positive, least)
    negative = score[~positive]
    if not len(negative):
        assert math.isnan(threshold)
        return
    assert (negative < threshold).mean() >= least - 1e-9
    lower = [one for one in np.unique(score) if one < threshold]
    assert all((negative < one).mean() < least for one in lower)


def test_calibration_error_is_the_distance_of_confidence_from_the_share_called_right() -> None:
    prob = np.array([[0.95, 0.05]] * 4 + [[0.3, 0.7]] * 2)
    true = np.array([0, 0, 0, 1, 1, 0])
    confidence, right, count = reliability(true, prob)
    assert confidence[[7, 9]] == pytest.approx([0.7, 0.95])
    assert right[[7, 9]] == pytest.approx([0.5, 0.75])
    assert count.tolist() == [0] * 7 + [2, 0, 4]
    assert np.isnan(confidence[:7]).all()
    assert calibration_error(true, prob) == pytest.approx((4 * 0.2 + 2 * 0.2) / 6)
    assert calibration_error(np.array([1]), np.array([[0.0, 1.0]])) == 0
