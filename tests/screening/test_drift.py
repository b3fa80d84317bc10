"""Control charts of a night: no alarm while nothing changes, an alarm when something does."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from spinemet.dicom.pseudonym import Pseudonymizer
from spinemet.model.marks import UNMARKED
from spinemet.results.schemas import Row
from spinemet.screening.drift import LAST_RUNS, MIN_MEASURED, MIN_RUNS, POSITIVE, counted, drift
from spinemet.screening.outcome import MadeWith, study_rows
from tests.readings import CALLS, READING, REF

NAMES = Pseudonymizer(b"a key for the tests only", "shifted")


def night(failed: int = 2, studies: int = 100, lytic: int = 20, mean_hu: float | None = 150.0) -> Row:
    """A `runs` row of `studies` studies with 10 vertebrae each."""
    row = {"screened": studies - failed, "excluded": 0, "failed": failed, "evaluable": 10 * studies, "lytic": lytic}
    return row | {"mean_hu": mean_hu, "hu_vertebrae": 10 * studies}


def alarms(run: Row, earlier: list[Row]) -> list[str]:
    return [alarm.name for alarm in drift(run, earlier)]


@pytest.mark.parametrize("runs", [0, 1, MIN_RUNS - 1])
def test_the_first_nights_raise_no_alarm(runs: int) -> None:
    assert drift(night(failed=90), [night()] * runs) == []


def test_a_jump_raises_an_alarm_with_its_limits() -> None:
    earlier = [night(mean_hu=150 + n % 2) for n in range(MIN_RUNS)]
    (alarm,) = drift(night(failed=12), earlier)
    assert (alarm.name, alarm.value, alarm.runs) == ("failed", 0.12, MIN_RUNS)
    assert 0 <= alarm.low < 0.02 < alarm.high < 0.12
    assert str(alarm) == f"failed: 12.0%, expected {alarm.low:.1%} to {alarm.high:.1%} after the last 8 runs"
    assert alarms(night(lytic=90), earlier) == ["lytic"]
    assert alarms(night(lytic=0), earlier) == ["lytic"]
    (hu,) = drift(night(mean_hu=240.0), earlier)
    assert (hu.low, hu.high) == pytest.approx((150.5 - 2.66, 150.5 + 2.66), abs=0.01)
    assert str(hu).startswith("mean hu: 240 HU, expected 148 HU to 153 HU")
    assert drift(night(), earlier) == []


def test_one_failure_after_none_raises_no_alarm_and_many_do() -> None:
    clean = [night(failed=0)] * 10
    assert drift(night(failed=1, studies=30, lytic=6), clean) == []
    assert alarms(night(failed=4, studies=30, lytic=6), clean) == ["failed"]


def test_limits_are_the_binomial_quantiles_beyond_three_sigma() -> None:
    earlier = [night(failed=5, studies=100)] * 20
    mean = (100 + 0.5) / (2000 + 1)
    last_inside = next(k for k in range(100) if binom.sf(k, 100, mean) <= 0.00135)
    assert alarms(night(failed=last_inside), earlier) == []
    assert alarms(night(failed=last_inside + 1), earlier) == ["failed"]


def test_a_share_that_always_scatters_has_wider_limits() -> None:
    steady = [night(lytic=100) for n in range(12)]
    scattering = [night(lytic=100 + 60 * (-1) ** n) for n in range(12)]
    assert alarms(night(lytic=150), steady) == ["lytic"]
    assert alarms(night(lytic=150), scattering) == []
    assert alarms(night(lytic=900), scattering) == ["lytic"]


def test_rows_of_earlier_versions_and_small_nights_are_left_out() -> None:
    old = {name: value for name, value in night().items() if name in {"screened", "excluded", "failed"}}
    assert alarms(night(failed=50, lytic=500), [old] * 10) == ["failed"]
    assert drift(night(studies=0, failed=0, lytic=0, mean_hu=None), [night()] * 10) == []
    few = night(mean_hu=400.0) | {"hu_vertebrae": MIN_MEASURED - 1}
    assert drift(few, [night()] * 10) == []


def test_a_lasting_change_is_reported_for_weeks_then_becomes_the_baseline() -> None:
    rows = [night(failed=2)] * 20
    raised = 0
    for _ in range(3 * LAST_RUNS):
        rows.append(night(failed=30))
        raised += bool(drift(rows[-1], rows[:-1]))
    assert 5 <= raised <= LAST_RUNS
    assert drift(rows[-1], rows[:-1]) == []


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.floats(0.001, 0.5), st.integers(20, 500))
def test_constant_rates_rarely_raise_an_alarm(seed: int, chance: float, studies: int) -> None:
    rng = np.random.default_rng(seed)
    rows = [night(failed=int(rng.binomial(studies, chance)), studies=studies) for _ in range(60)]
    raised = sum("failed" in alarms(rows[n], rows[:n]) for n in range(20, 60))
    assert raised <= 6  # 0.1 expected; limits from 20 runs are themselves uncertain


@given(st.lists(st.integers(0, 50), min_size=0, max_size=40), st.integers(0, 50))
def test_limits_hold_the_usual_share_and_not_the_reported_one(earlier: list[int], now: int) -> None:
    rows = [night(failed=each, studies=50) for each in earlier]
    for alarm in drift(night(failed=now, studies=50), rows):
        mean = sum(earlier[-LAST_RUNS:]) / (50 * alarm.runs)
        assert 0 <= alarm.low <= alarm.high <= 1
        assert alarm.low - 0.02 <= mean <= alarm.high + 0.02
        assert not alarm.low <= alarm.value <= alarm.high


def test_a_studys_vertebrae_are_counted_by_class() -> None:
    rows = study_rows(REF, READING, CALLS, MadeWith("m", "c", "1", "r"), NAMES, UNMARKED)["vertebrae"]
    sums = counted(rows)  # the first of the four is cut, its HU unknown
    assert sums["evaluable"] == 3
    assert {name: sums[name] for name in POSITIVE} == dict.fromkeys(POSITIVE, 1)
    assert (sums["hu_vertebrae"], sums["hu_sum"]) == (3, 450.0)
    assert math.isclose(counted([])["hu_sum"], 0.0)


def test_a_night_of_unsure_calls_raises_an_alarm() -> None:
    usual = [{**night(), "evaluable": 95 + n % 2, "unsure": 5 - n % 2} for n in range(12)]
    names = {alarm.name for alarm in drift({**night(), "evaluable": 50, "unsure": 50}, usual)}
    assert "unsure" in names
    assert "unsure" not in {alarm.name for alarm in drift({**night(), "evaluable": 94, "unsure": 6}, usual)}
