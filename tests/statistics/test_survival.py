from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from statsmodels.duration.survfunc import SurvfuncRight

from spinemet.statistics.survival import Curve, Windows, kaplan_meier
from tests.statistics.followed import seen, visits

HERE = Path(__file__).parent


def _curve(last: np.ndarray, first: np.ndarray) -> Curve:
    has = np.isfinite(first)
    day, place = np.unique(np.where(has, first, last), return_inverse=True)
    return kaplan_meier(day, np.bincount(place, has), np.bincount(place, ~has))


# ---- Kaplan and Meier -------------------------------------------------------------------------------------------


def test_10_000_patients_come_out_as_in_lifelines() -> None:
    expected = pd.read_csv(HERE / "kaplan_meier_of_lifelines.csv")
    found = _curve(*seen()).at(expected["day"])
    assert found.free_T == pytest.approx(expected["kaplan_meier"].to_numpy(), abs=1e-9)
    assert found.low_T == pytest.approx(expected["low"].to_numpy(), abs=1e-9)
    assert found.high_T == pytest.approx(expected["high"].to_numpy(), abs=1e-9)


def test_10_000_patients_come_out_as_in_statsmodels() -> None:
    last, first = seen()
    has = np.isfinite(first)
    expected = SurvfuncRight(np.where(has, first, last), has)
    found = _curve(last, first).at(expected.surv_times)
    assert found.free_T == pytest.approx(expected.surv_prob, abs=1e-9)
    assert found.at_risk_T.tolist() == expected.n_risk.tolist()
    assert np.diff(found.events_T, prepend=0).tolist() == expected.n_events.tolist()


def test_a_curve_between_and_beyond_its_days() -> None:
    found = kaplan_meier([10, 20, 50], [1, 0, 2], [0, 1, 2]).at([0, 10, 19.5, 30, 50, 51])
    assert found.free_T[:5] == pytest.approx([1, 5 / 6, 5 / 6, 5 / 6, 5 / 12])
    assert np.isnan(found.free_T[5])
    assert found.at_risk_T.tolist() == [6, 6, 5, 4, 4, 0]
    assert found.events_T.tolist() == [0, 1, 1, 1, 3, 3]


def test_without_an_event_or_a_patient_no_interval_is_made_up() -> None:
    nothing = kaplan_meier([5, 9], [0, 0], [3, 4])
    assert nothing.free_T.tolist() == [1, 1]
    assert np.isnan(nothing.low_T).all()
    assert np.isnan(kaplan_meier([], [], []).at([1]).free_T).all()
    everything = kaplan_meier([5], [3], [0])
    assert (everything.free_T.tolist(), np.isnan(everything.high_T).tolist()) == ([0], [True])


# ---- Turnbull ---------------------------------------------------------------------------------------------------


def test_10_000_patients_seen_at_visits_come_out_as_in_lifelines() -> None:
    expected = pd.read_csv(HERE / "turnbull_of_lifelines.csv")
    expected = expected[(expected["index"] % 30 == 0) & np.isfinite(expected["index"])]
    assert len(expected) > 20
    pairs, counts = np.unique(np.stack(seen(), axis=1), axis=0, return_counts=True)
    found = Windows.of(*pairs.T).fit(counts).free_after(expected["index"])
    assert found == pytest.approx(expected["NPMLE_estimate_lower"].to_numpy(), abs=1e-6)


def test_lesions_seen_at_visits_arose_between_them_and_kaplan_and_meier_do_not_know() -> None:
    _, _, onset = visits()
    last, first = seen()
    days = np.array([180, 360, 720, 1080])
    truth = np.array([(onset > one).mean() for one in days])
    assert Windows.of(last, first).fit(np.ones(len(last))).free_after(days) == pytest.approx(truth, abs=0.02)
    off = _curve(last, first).at(days).free_T - truth
    assert off[0] > 0.015
    assert off[3] < -0.05


def test_times_known_to_the_day_give_kaplan_and_meier() -> None:
    rng = np.random.default_rng(2)
    day, has = rng.integers(1, 40, 60).astype(float), rng.random(60) < 0.6
    found = Windows.of(np.where(has, day - 1, day), np.where(has, day, np.inf)).fit(np.ones(60))
    followed = _curve(day, np.where(has, day, np.inf))
    days = np.unique(day[has])
    assert found.free_after(days) == pytest.approx(followed.at(days).free_T, abs=1e-5)


def test_the_textbook_case_of_turnbull() -> None:
    """Four patients: (0, 1], (0, 2], (1, 3], (2, ∞): mass in (0, 1] and (2, 3], and what it is by hand."""
    found = Windows.of([0, 0, 1, 2], [1, 2, 3, np.inf]).fit([1, 1, 1, 1])
    assert found.start_C.tolist() == [0, 1, 2]
    # Of (0, 1], (1, 2] and (2, 3]: the likelihood a (a + b) (b + c) c is largest for b = 0 and a = c = 1 / 2.
    assert found.mass_C == pytest.approx([0.5, 0, 0.5], abs=1e-3)
    assert found.free_after([0, 0.5, 1, 2, 2.5, 3, 3.5])[:6] == pytest.approx([1, 0.75, 0.5, 0.5, 0.25, 0], abs=1e-3)
    assert np.isnan(found.free_after([3.5]))[0]


def test_counts_stand_for_patients_and_nobody_has_no_curve() -> None:
    twice = Windows.of([0, 30, 30], [30, 60, np.inf]).fit([2, 1, 3])
    single = Windows.of([0, 0, 30, 30, 30, 30], [30, 30, 60, np.inf, np.inf, np.inf]).fit(np.ones(6))
    assert twice.mass_C == pytest.approx(single.mass_C, abs=1e-9)
    assert np.isnan(Windows.of([], []).fit([]).free_after([10])).all()


def test_a_lesion_before_the_first_visit_is_no_new_one() -> None:
    """A quarter has it before; of the others half get it by day 100."""
    windows = Windows.of([-np.inf, 0, 100], [0, 100, np.inf])
    assert windows.fit([2, 3, 3]).free_after([0, 50, 100]) == pytest.approx([1, 0.75, 0.5], abs=1e-6)
