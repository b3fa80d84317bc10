"""Paired differences: correct, zero against the method itself, and as wide as patients and seeds make them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from spinemet.statistics.comparison import Compared, compare
from spinemet.statistics.measures import patient_confusions, quadratic_weighted_kappa

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
