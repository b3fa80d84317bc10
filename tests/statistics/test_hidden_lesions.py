import itertools
import math

import numpy as np
import pytest
from scipy import optimize, special

from spinemet.statistics.hidden_lesions import NOT_SEEN, CallErrors, Histories, rates
from spinemet.statistics.rates import rate_interval

SURE = special.logit([0.9, 0.8])
PER_DAY = 4e-4


def _simulate(
    rng: np.random.Generator, patients: int, sensitivity: float, specificity: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Patient, days since the visit before and call of up to 5 visits; a fifth has a lesion at the first."""
    gaps = rng.integers(30, 300, (patients, 5))
    gaps[:, 0] = 0
    came = np.cumprod(rng.random((patients, 5)) < 0.85, axis=1).astype(bool)
    came[:, 0] = True
    onset = np.where(rng.random(patients) < 0.2, -1, rng.exponential(1 / PER_DAY, patients))
    has = onset[:, None] <= gaps.cumsum(axis=1)
    called = np.where(has, rng.random(has.shape) < sensitivity, rng.random(has.shape) >= specificity)
    return np.repeat(np.arange(patients)[:, None], 5, axis=1)[came], gaps[came], called[came].astype(int)


def test_the_likelihood_is_the_sum_over_every_path() -> None:
    days, called = [0, 100, 40, 200], [0, 1, NOT_SEEN, 0]
    histories = Histories([3] * 4, days, called, [0, 0, 1, 0])
    theta = np.array([-1.0, -0.3, math.log(2e-3), math.log(5e-3)])
    rate = np.exp(theta[2:])
    total = 0.0
    for path in itertools.product([0, 1], repeat=4):
        chance = special.expit(-1.0) if path[0] else special.expit(1.0)
        for k, (has, call) in enumerate(zip(path, called, strict=True)):
            if k:
                stay = math.exp(-rate[[0, 0, 1, 0][k]] * days[k])
                chance *= has if path[k - 1] else 1 - stay if has else stay
            chance *= 1 if call == NOT_SEEN else (0.9 if call else 0.1) if has else (0.2 if call else 0.8)
        total += chance
    assert histories.likelihood(theta, SURE)[0] == pytest.approx(math.log(total), abs=1e-12)


def test_the_slope_is_that_of_the_likelihood() -> None:
    patient, days, called = _simulate(np.random.default_rng(1), 200, 0.9, 0.9)
    histories = Histories(patient, days, called, patient % 2)
    theta = np.array([-1.0, -1.2, -8.0, -8.5])
    expected = optimize.approx_fprime(theta, lambda at: histories.likelihood(at, SURE)[0], 1e-6)
    assert histories.likelihood(theta, SURE)[1] == pytest.approx(expected, abs=1e-3)


def test_without_errors_it_is_the_rate_of_exponential_times_seen_at_visits() -> None:
    """2,000 patients with one visit after 500 days: the likelihood has its top at -log(share free) / 500."""
    had = np.arange(2000) < 400
    patient, days = np.repeat(np.arange(2000), 2), np.tile([0, 500], 2000)
    called = np.stack([np.zeros(2000, int), had.astype(int)], axis=1).ravel()
    (found,) = rates(Histories(patient, days, called, 0 * patient), CallErrors(1 - 1e-9, 1 - 1e-9, 1e12, 1e12))
    assert found.per_day == pytest.approx(-math.log(0.8) / 500, rel=1e-4)
    # As wide as the exact interval of 400 events, or nearly: times are known less well.
    low, high = (math.log(end / 100_000) for end in rate_interval(400, 1.0))
    assert math.log(found.high / found.low) == pytest.approx(high - low, rel=0.15)


def test_the_rate_is_right_and_its_interval_covers_it_although_calls_err() -> None:
    """50 cohorts of 500 patients, errors measured on 100 visits: counted as called, the rate would be too high."""
    rng = np.random.default_rng(2)
    found, hits, naive = [], 0, []
    for _ in range(50):
        errors = [(rng.binomial(100, share) + 1) / 102 for share in (0.9, 0.9)]
        patient, days, called = _simulate(rng, 500, 0.9, 0.9)
        (one,) = rates(Histories(patient, days, called, 0 * patient), CallErrors(*errors, 102, 102))
        found.append(one.per_day)
        hits += one.low <= PER_DAY <= one.high
        after = (patient[1:] == patient[:-1]) & (called[:-1] == 0)
        naive.append(called[1:][after].sum() / days[1:][after].sum())
    assert np.mean(found) == pytest.approx(PER_DAY, rel=0.08)
    assert 45 <= hits <= 50
    assert np.mean(naive) > 1.7 * PER_DAY


def test_groups_have_rates_of_their_own_and_time_without_a_visit_counts() -> None:
    rng = np.random.default_rng(5)
    patient, days, called = _simulate(rng, 4000, 0.95, 0.95)
    halves = np.repeat(days // 2, 2) + np.tile([0, 1], len(days)) * np.repeat(days % 2, 2)
    keep = np.ones(len(halves), bool)
    keep[::2] = np.append(True, patient[1:] != patient[:-1]) == 0
    split = Histories(
        np.repeat(patient, 2)[keep],
        halves[keep],
        np.stack([np.full(len(called), NOT_SEEN), called], axis=1).ravel()[keep],
        np.zeros(keep.sum(), int),
    )
    errors = CallErrors(0.95, 0.95, 1000, 1000)
    (whole,), (parts,) = rates(Histories(patient, days, called, 0 * patient), errors), rates(split, errors)
    assert parts.per_day == pytest.approx(whole.per_day, rel=1e-4)
    even, odd = rates(Histories(patient, days, called, patient % 2), errors)
    assert even.low < PER_DAY < even.high
    assert odd.low < PER_DAY < odd.high


def test_calls_that_are_all_errors_have_no_rate_and_too_few_no_interval() -> None:
    (found,) = rates(Histories([1, 1, 2, 2], [0, 90, 0, 90], [0, 0, 0, 1], [0] * 4), CallErrors(0.9, 0.9, 50, 50))
    assert found.per_day >= 0
    assert math.isnan(found.low)
    assert rates(Histories([], [], [], []), CallErrors(0.9, 0.9, 50, 50)) == []
