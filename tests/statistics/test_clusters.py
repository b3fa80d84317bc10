"""Against statsmodels, which gets every unit; the functions here get each patient's sums."""

import math

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from statsmodels.stats.inter_rater import cohens_kappa

from spinemet.statistics.clusters import clustered_mean, clustered_slope, difference, kappa, ratio


def _sums(patient_N: np.ndarray, *values_N: np.ndarray) -> list[np.ndarray]:
    return [np.bincount(patient_N, one) for one in values_N]


def _drawn(seed: int, patients: int = 80) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Patient, age and HU of each vertebra; those of a patient are alike."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), rng.integers(1, 15, patients))
    age = rng.normal(63, 11, patients)[patient] + rng.integers(0, 4, len(patient))
    hu = 260 - 1.8 * age + rng.normal(0, 25, patients)[patient] + rng.normal(0, 12, len(patient))
    return patient, age, hu


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_mean_and_the_slope_are_those_of_statsmodels(seed: int) -> None:
    patient, age, hu = _drawn(seed)
    x, y, one = age - 60, hu - 150, np.ones(len(age))
    for design, found, place in (
        (one[:, None], clustered_mean(*_sums(patient, one, y)), 0),
        (sm.add_constant(x), clustered_slope(*_sums(patient, one, x, y, x * x, x * y)), 1),
    ):
        fit = sm.OLS(y, design).fit(cov_type="cluster", cov_kwds={"groups": patient}, use_t=True)
        assert found.value == pytest.approx(fit.params[place], rel=1e-9)
        assert (found.low, found.high) == pytest.approx(tuple(fit.conf_int()[place]), rel=1e-9)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_difference_and_ratio_are_those_of_saturated_models(seed: int) -> None:
    """Also if patients have vertebrae on both sides."""
    rng = np.random.default_rng(seed)
    patient, _, _ = _drawn(seed)
    side = rng.integers(0, 2, len(patient))
    y = (rng.random(len(patient)) < (0.2 + 0.2 * side + 0.3 * (patient % 2))).astype(float)
    x_P2 = np.stack([np.bincount(patient, y * (side == one)) for one in (0, 1)], axis=1)
    n_P2 = np.stack([np.bincount(patient, (side == one).astype(float)) for one in (0, 1)], axis=1)
    patients = len(x_P2)
    t = stats.t.ppf(0.975, patients - 1) * math.sqrt(patients / (patients - 1))
    design = sm.add_constant(side.astype(float))
    plain = {"groups": patient, "use_correction": False}
    line = sm.OLS(y, design).fit(cov_type="cluster", cov_kwds=plain)
    found = difference(x_P2, n_P2)
    assert found.value == pytest.approx(line.params[1], rel=1e-9)
    assert found.high - found.value == pytest.approx(t * line.bse[1], rel=1e-9)
    rates = sm.GLM(y, design, family=sm.families.Poisson()).fit(cov_type="cluster", cov_kwds=plain, tol=1e-14)
    found = ratio(x_P2, n_P2)
    assert found.value == pytest.approx(math.exp(rates.params[1]), rel=1e-9)
    assert math.log(found.high / found.value) == pytest.approx(t * rates.bse[1], rel=1e-8)


def test_kappa_of_one_vertebra_per_patient_has_the_classic_variance() -> None:
    rng = np.random.default_rng(3)
    first = rng.integers(0, 4, 300)
    second = np.where(rng.random(300) < 0.7, first, rng.integers(0, 4, 300))
    counts = np.zeros((300, 4, 4))
    counts[np.arange(300), first, second] = 1
    known = cohens_kappa(counts.sum(axis=0))
    found = kappa(counts)
    assert found.value == pytest.approx(known.kappa, rel=1e-9)
    half = stats.t.ppf(0.975, 299) * math.sqrt(known.var_kappa * 300 / 299)
    assert found.high - found.value == pytest.approx(half, rel=1e-9)


def test_vertebrae_of_one_patient_count_as_one_observation() -> None:
    rng = np.random.default_rng(4)
    counts = np.zeros((60, 2, 2))
    counts[np.arange(60), rng.integers(0, 2, 60), rng.integers(0, 2, 60)] = 1
    once, tenfold = kappa(counts), kappa(10 * counts)
    assert (once.low, once.high) == pytest.approx((tenfold.low, tenfold.high))


def test_what_cannot_be_known_is_nan() -> None:
    assert math.isnan(clustered_mean([], []).value)
    assert clustered_mean([3], [300]).value == 100
    assert math.isnan(clustered_mean([3], [300]).low), "one patient has no spread"
    assert math.isnan(clustered_slope([2, 2], [10, 10], [5, 6], [50, 50], [25, 30]).value), "one age has no slope"
    assert math.isnan(kappa([[[5, 0], [0, 0]]]).value), "one class for all"
    few = difference([[1, 1], [0, 0], [0, 1]], [[3, 3], [3, 3], [3, 3]])
    assert few.value == pytest.approx(1 / 9)
    assert math.isnan(few.low), "too few patients with a finding"
    assert math.isnan(ratio([[0, 1]] * 9, [[3, 3]] * 9).value), "nothing positive on the first side"
