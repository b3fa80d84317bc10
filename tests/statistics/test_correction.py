import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from spinemet.statistics.correction import Corrected, Errors, correct
from spinemet.statistics.intervals import ClusterSums, beta_interval

CLASSES = ("normal", "blastic", "mixed", "lytic")
SHARES = np.array([[0.92, 0.04, 0.02, 0.02], [0.1, 0.8, 0.07, 0.03], [0.06, 0.12, 0.7, 0.12], [0.1, 0.03, 0.07, 0.8]])


def _errors(sensitivity: float, specificity: float, patients: int = 100) -> Errors:
    """Errors measured on so many patients of each kind, with one unit each."""
    shares = np.array([[specificity, 1 - specificity], [1 - sensitivity, sensitivity]])
    return Errors(shares, np.full(2, float(patients)), np.full(2, patients))


def _binary(called: float, size: float, errors: Errors) -> Corrected:
    return correct([1 - called, called], [size, size], errors)[1]


def test_two_classes_are_rogan_and_gladens_estimate() -> None:
    assert _binary(0.26, 500, _errors(0.9, 0.9)).share == pytest.approx((0.26 + 0.9 - 1) / (0.9 + 0.9 - 1))
    assert _binary(0.35, 500, _errors(0.7, 0.95)).share == pytest.approx((0.35 + 0.95 - 1) / (0.7 + 0.95 - 1))


def test_a_perfect_classifier_measured_on_endlessly_many_changes_nothing() -> None:
    found, wilson = _binary(0.2, 300, _errors(1, 1, 10**9)), stats.binomtest(60, 300).proportion_ci(method="wilson")
    assert found.share == pytest.approx(0.2)
    assert (found.low, found.high) == pytest.approx((wilson.low, wilson.high), abs=1e-6)


def test_four_classes_solve_the_equations() -> None:
    truth = np.array([0.7, 0.1, 0.05, 0.15])
    found = correct(truth @ SHARES, [1e6] * 4, Errors(SHARES, np.full(4, 1e6), np.full(4, 100)))
    assert [one.share for one in found] == pytest.approx(truth)
    assert all(one.low < share < one.high for one, share in zip(found, truth, strict=True))


@given(st.lists(st.integers(0, 50), min_size=4, max_size=4).filter(any), st.floats(0.3, 1))
def test_shares_stay_from_0_to_1_and_add_up(counts: list[int], right: float) -> None:
    called = np.array(counts) / sum(counts)
    shares = right * np.eye(4) + (1 - right) / 4
    found = correct(called, [float(sum(counts))] * 4, Errors(shares, np.full(4, 40.0), np.full(4, 40)))
    assert sum(one.share for one in found) == pytest.approx(1)
    for one in found:
        assert -1e-12 <= one.share <= 1 + 1e-12
        assert np.isnan(one.low) or 0 <= one.low <= one.share <= one.high <= 1


def test_outside_the_equations_the_most_likely_shares_are_taken() -> None:
    """Compared with a fine grid of two free shares."""
    called, shares = np.array([0.9, 0.02, 0.08]), np.array([[0.9, 0.05, 0.05], [0.1, 0.8, 0.1], [0.1, 0.2, 0.7]])
    assert np.linalg.solve(shares.T, called).min() < 0
    grid = np.array([(1 - a - b, a, b) for a in np.linspace(0, 0.2, 201) for b in np.linspace(0, 0.2, 201)])
    best = grid[np.argmax(np.log(grid @ shares) @ called)]
    found = correct(called, [1000.0] * 3, Errors(shares, np.full(3, 1000.0), np.full(3, 100)))
    assert [one.share for one in found] == pytest.approx(best, abs=1e-3)


def test_calls_that_the_errors_cannot_explain_have_no_interval() -> None:
    """With a specificity of 0.9 in 1,000 patients, 1 positive call among 100 others is too little by chance."""
    found = _binary(0.01, 1000, _errors(0.9, 0.9, 1000))
    assert found.share == 0
    assert np.isnan([found.low, found.high]).all()
    assert _binary(0.095, 1000, _errors(0.9, 0.9, 1000)).low == 0


def test_the_more_patients_were_evaluated_the_narrower_the_interval() -> None:
    widths = [(one := _binary(0.26, 1e6, _errors(0.9, 0.9, n))).high - one.low for n in (50, 200, 800)]
    assert widths[0] > 1.8 * widths[1] > 3 * widths[2]


def test_errors_are_counted_by_class_and_patients_by_cluster() -> None:
    true, called, patient = [0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1, 0], [0, 0, 1, 1, 1, 2, 2]
    found = Errors.of(true, called, patient, 2)
    assert found.shares_CC == pytest.approx(np.array([[3 / 4, 1 / 4], [1 / 3, 2 / 3]]))
    assert found.patients_C.tolist() == [2, 2]
    assert found.sizes_C[0] == ClusterSums.of([2, 1], [2, 2]).effective_size


def test_sampling_weights_count_and_make_the_size_smaller() -> None:
    rng = np.random.default_rng(1)
    true, called = np.repeat([0, 1], 100), rng.integers(0, 2, 200)
    weight, equal = np.tile([1.0, 3.0], 100), np.full(200, 7.0)
    plain, weighted = Errors.of(true, called, np.arange(200), 2), Errors.of(true, called, np.arange(200), 2, weight)
    assert weighted.shares_CC[1, 1] == pytest.approx(np.average(called[100:], weights=weight[100:]))
    assert weighted.sizes_C == pytest.approx([80, 80]), "Kish: 200² / 500"
    same = Errors.of(true, called, np.arange(200), 2, equal)
    assert same.sizes_C == pytest.approx(plain.sizes_C)


@pytest.mark.parametrize(
    ("errors", "words"),
    [
        (_errors(0.9, 0.9, 4), "only 4 evaluated patients are normal, and 5 are needed"),
        (_errors(0.3, 0.7), "30 % of the units that are lesion are called so, and 30 % of others"),
        (_errors(0.5, 0.4), "do not tell them apart"),
        (Errors(np.full((2, 2), np.nan), np.zeros(2), np.array([9, 0])), "only 0 evaluated patients are lesion"),
        (_errors(0.9, 0.9), ""),
        (_errors(0.31, 0.71), ""),
    ],
)
def test_errors_that_cannot_be_corrected_say_why(errors: Errors, words: str) -> None:
    found = errors.not_identifiable(("normal", "lesion"))
    assert words in found
    assert bool(found) == bool(words)


def test_classes_that_the_calls_confuse_are_not_told_apart() -> None:
    shares = SHARES.copy()
    shares[1] = shares[3] = [0.1, 0.4, 0.1, 0.4]
    assert "that are lytic" in Errors(shares, np.full(4, 99.0), np.full(4, 99)).not_identifiable(CLASSES)


@pytest.mark.parametrize("prevalence", [0.05, 0.2, 0.5])
def test_a_corrected_prevalence_is_unbiased_and_its_interval_covers(prevalence: float) -> None:
    """Sensitivity and specificity 0.9, measured on 200 patients; `make bench ONLY=coverage` has more."""
    rng, found, uncorrected = np.random.default_rng(2), [], 0
    for _ in range(1000):
        true = rng.permutation(np.repeat([0, 1], 100))
        errors = Errors.of(true, np.where(rng.random(200) < 0.9, true, 1 - true), np.arange(200), 2)
        called = rng.binomial(1000, 0.9 * prevalence + 0.1 * (1 - prevalence))
        found.append(_binary(called / 1000, 1000, errors))
        low, high = beta_interval(called, 1000)
        uncorrected += low <= prevalence <= high
    assert abs(np.mean([one.share for one in found]) - prevalence) < 0.01
    assert 0.93 <= np.mean([one.low <= prevalence <= one.high for one in found]) <= 0.97
    assert uncorrected < 100 or prevalence == 0.5, "at a half, errors of both kinds cancel"


def test_the_interval_of_alike_vertebrae_covers_too() -> None:
    """Four classes, vertebrae of a patient alike in truth and in error; 100 evaluated patients, a cohort of 300."""
    rng, truth, covered = np.random.default_rng(3), np.array([0.7, 0.1, 0.05, 0.15]), np.zeros(4)
    for _ in range(150):
        errors = Errors.of(*_vertebrae(100, np.array([0.6, 0.15, 0.1, 0.15]), rng), 4)
        _, called, patient = _vertebrae(300, truth, rng)
        sizes = np.bincount(patient)
        size_C = [ClusterSums.of(np.bincount(patient, called == n), sizes).effective_size for n in range(4)]
        found = correct(np.bincount(called, minlength=4) / len(called), size_C, errors)
        covered += [one.low <= share <= one.high for one, share in zip(found, truth, strict=True)]
    assert (covered / 150).min() >= 0.93


def _vertebrae(
    patients: int, share_C: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True class, called class and patient of the vertebrae of patients, correlated within a patient."""
    of_patient = rng.dirichlet(share_C * (1 / 0.3 - 1), patients)
    patient = np.repeat(np.arange(patients), rng.integers(8, 17, patients))
    true = _drawn(of_patient[patient], rng.random(len(patient)))
    alike = rng.random(len(patient)) < 0.3
    return true, _drawn(SHARES[true], np.where(alike, rng.random(patients)[patient], rng.random(len(patient)))), patient


def _drawn(share_NC: np.ndarray, level_N: np.ndarray) -> np.ndarray:
    return (share_NC.cumsum(axis=1) < level_N[:, None]).sum(axis=1).clip(max=share_NC.shape[1] - 1)
