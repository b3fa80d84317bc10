import numpy as np
import pytest

from spinemet.statistics.correction import Errors
from spinemet.statistics.transitions import by_error, corrected, true_shares

ERRORS = np.array([[0.9, 0.1], [0.2, 0.8]])


def test_calls_made_from_true_changes_give_these_back() -> None:
    true = np.array([[0.6, 0.1], [0.05, 0.25]])
    assert true_shares(ERRORS.T @ true @ ERRORS, ERRORS) == pytest.approx(true, abs=1e-4)


def test_shares_stay_from_0_to_1_where_the_equations_would_leave_them() -> None:
    called = np.array([[0.97, 0.01], [0.01, 0.01]])
    solved = np.linalg.inv(ERRORS.T) @ called @ np.linalg.inv(ERRORS)
    assert solved.min() < 0
    found = true_shares(called, ERRORS)
    assert found.min() >= 0
    assert found.sum() == pytest.approx(1)


def test_errors_alone_make_changes_of_both_kinds_alike() -> None:
    found = by_error(np.array([[0.5, 0.2], [0.0, 0.3]]), ERRORS)
    assert found[0, 1] == found[1, 0] == pytest.approx(0.7 * 0.9 * 0.1 + 0.3 * 0.2 * 0.8)
    assert found[0, 0] == pytest.approx(0.7 * 0.81 + 0.3 * 0.04)
    assert found.sum() == pytest.approx(1)


def test_the_interval_covers_the_true_share() -> None:
    """20 cohorts of 150 patients with 1 to 4 vertebrae each: of the normal ones 15 % change."""
    rng = np.random.default_rng(6)
    true = np.array([[0.85, 0.15], [0.05, 0.95]])
    hits = 0
    for _ in range(20):
        patterns = np.zeros((150, 2, 2), np.int64)
        for patient in range(150):
            for _ in range(rng.integers(1, 5)):
                before = int(rng.random() < 0.3)
                after = rng.choice(2, p=true[before])
                patterns[patient, rng.choice(2, p=ERRORS[before]), rng.choice(2, p=ERRORS[after])] += 1
        measured = np.array([rng.multinomial(200, row) / 200 for row in ERRORS])
        errors = Errors(measured, np.full(2, 200.0), np.full(2, 100))
        _, low, high, _ = corrected(patterns, np.ones(150, np.int64), errors)
        hits += bool(np.isnan(low[0, 1]) or low[0, 1] <= 0.15 <= high[0, 1])
    assert hits >= 18


def test_a_change_that_never_happens_has_no_interval_and_nobody_no_share() -> None:
    errors = Errors(ERRORS, np.full(2, 100.0), np.full(2, 50))
    share, low, _, alone = corrected(np.array([[[9, 0], [0, 0]]]), np.array([20]), errors)
    assert share[0].tolist() == [1, 0]
    assert np.isnan(low[0]).all()
    assert alone.sum() == pytest.approx(180)
    assert all(np.isnan(one).all() for one in corrected(np.zeros((0, 2, 2), int), np.zeros(0, int), errors))
