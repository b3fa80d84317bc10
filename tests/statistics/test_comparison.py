"""Paired differences: correct, zero against the method itself, and as wide as patients and seeds make them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from spinemet.statistics.comparison import Compared, LesionCalls, compare, compare_lesions
from spinemet.statistics.measures import auc, patient_confusions, quadratic_weighted_kappa

CLASSES = ("no", "yes")


def runs(rng: np.random.Generator, right: float, count: int = 1, patients: int = 60) -> np.ndarray:
    """(R, P, 2, 2) counts of 5 vertebrae per patient; the share `right` of them is called right."""
    true_N = rng.integers(0, 2, patients * 5)
    patient_N = np.repeat(np.arange(patients), 5)
    called = [np.where(rng.random(len(true_N)) < right, true_N, 1 - true_N) for _ in range(count)]
    return np.stack([patient_confusions(true_N, one, patient_N, patients, 2) for one in called])


def one(found: list[Compared], name: str, label: str = "") -> Compared:
    return next(row for row in found if (row.name, row.label) == (name, label))


def test_a_method_does_not_differ_from_itself() -> None:
    same = runs(np.random.default_rng(0), 0.8)
    row = one(compare(same, same, CLASSES), "macro_sensitivity")
    assert (row.difference, row.difference_low, row.difference_high) == (0, 0, 0)
    assert row.low < row.value < row.high


def test_values_are_the_mean_over_the_runs() -> None:
    several = runs(np.random.default_rng(1), 0.7, count=3)
    row = one(compare(several, None, CLASSES), "sensitivity", "yes")
    confusion = several.sum(axis=1)
    assert row.value == pytest.approx(np.mean(confusion[:, 1, 1] / confusion[:, 1].sum(axis=1)))
    assert math.isnan(row.difference)


def test_only_a_true_difference_is_found() -> None:
    better, worse, alike = (runs(np.random.default_rng(2), right) for right in (0.9, 0.7, 0.7))
    found = one(compare(better, worse, CLASSES), "macro_sensitivity")
    assert found.difference_low > 0
    nothing = one(compare(alike, worse, CLASSES), "macro_sensitivity")
    assert nothing.difference_low < 0.05


def test_a_measure_that_the_task_names_is_compared_too() -> None:
    better, worse = (runs(np.random.default_rng(2), right) for right in (0.9, 0.7))
    row = one(compare(better, worse, CLASSES, further=("quadratic_weighted_kappa",)), "quadratic_weighted_kappa")
    assert row.value == pytest.approx(float(quadratic_weighted_kappa(better[0].sum(axis=0))))
    assert 0 < row.difference_low < row.difference < row.difference_high


def test_runs_that_disagree_widen_the_interval() -> None:
    steady = np.concatenate([runs(np.random.default_rng(4), 0.8)] * 2)
    low, high = (runs(np.random.default_rng(5), right)[0] for right in (0.6, 1.0))
    spread = np.stack([low, high])
    widths = [
        row.high - row.low for row in (one(compare(x, None, CLASSES), "macro_sensitivity") for x in (steady, spread))
    ]
    assert widths[1] > 2 * widths[0]


def lesion_calls(rng: np.random.Generator, shift: float, patients: int = 80) -> LesionCalls:
    """Scores of 5 vertebrae per patient, those of lesions higher by `shift`; called from a score of 1.3."""
    lesion_N = np.arange(patients * 5) % 3 == 0
    score_N = rng.normal(size=patients * 5) + shift * lesion_N
    patient_N = np.repeat(np.arange(patients), 5)
    counts = patient_confusions(lesion_N.astype(int), (score_N > 1.3).astype(int), patient_N, patients, 2)
    return LesionCalls(score_N, lesion_N, patient_N, counts)


def test_lesions_are_compared_by_their_scores_and_at_the_threshold() -> None:
    rng = np.random.default_rng(0)
    better, worse = ([lesion_calls(rng, shift) for _ in range(2)] for shift in (2.0, 0.8))
    found = compare_lesions(better, worse, CLASSES)
    area = one(found, "lesion_auc")
    assert area.value == pytest.approx(np.mean([auc(run.score_N, run.lesion_N)[0] for run in better]))
    assert 0 < area.difference_low < area.difference < area.difference_high
    macro = one(found, "macro_lesion_sensitivity_at_threshold")
    counts = sum(run.called_PCC.sum(axis=0) for run in better)
    assert macro.value == pytest.approx(counts[1, 1] / counts[1].sum())
    assert macro.difference_low > 0
    assert one(found, "specificity_at_threshold").value == pytest.approx(counts[0, 0] / counts[0].sum())
    same = one(compare_lesions(better[:1], better[:1], CLASSES), "lesion_auc")
    assert (same.difference, same.difference_low, same.difference_high) == (0, 0, 0)
    assert same.low < same.value < same.high
