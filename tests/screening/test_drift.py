"""Control charts of a night: silent while nothing changes, and heard when something does."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from spinemet.dicom.pseudonym import Pseudonymizer
from spinemet.results.schemas import Row
from spinemet.screening.drift import LAST_RUNS, MIN_MEASURED, MIN_RUNS, POSITIVE, counted, drift
from spinemet.screening.outcome import MadeWith, study_rows
from tests.screening.readings import CALLS, REF, reading

NAMES = Pseudonymizer(b"a key for the tests only", "shifted")


def night(failed: int = 2, studies: int = 100, lytic: int = 20, mean_hu: float | None = 150.0) -> Row:
    """A `runs` row of `studies` studies with 10 vertebrae each."""
    row = {"screened": studies - failed, "excluded": 0, "failed": failed, "evaluable": 10 * studies, "lytic": lytic}
    return row | {"mean_hu": mean_hu, "hu_vertebrae": 10 * studies}


def names(run: Row, earlier: list[Row]) -> list[str]:
    return [alarm.name for alarm in drift(run, earlier)]


@pytest.mark.parametrize("runs", [0, 1, MIN_RUNS - 1])
def test_nothing_is_said_of_the_first_nights(runs: int) -> None:
    assert drift(night(failed=90), [night()] * runs) == []


def test_a_jump_is_told_with_its_limits() -> None:
    earlier = [night(mean_hu=150 + n % 2) for n in range(MIN_RUNS)]
    (alarm,) = drift(night(failed=12), earlier)
    assert (alarm.name, alarm.value, alarm.runs) == ("failed", 0.12, MIN_RUNS)
    assert 0 <= alarm.low < 0.02 < alarm.high < 0.12
    assert str(alarm) == f"failed: 12.0%, expected {alarm.low:.1%} to {alarm.high:.1%} after the last 8 runs"
    assert names(night(lytic=90), earlier) == ["lytic"]
    assert names(night(lytic=0), earlier) == ["lytic"]
    (hu,) = drift(night(mean_hu=240.0), earlier)
    assert (hu.low, hu.high) == pytest.approx((150.5 - 2.66, 150.5 + 2.66), abs=0.01)
    assert str(hu).startswith("mean hu: 240 HU, expected 148 HU to 153 HU")
    assert drift(night(), earlier) == []


def test_one_failure_after_none_is_no_news_and_many_are() -> None:
    clean = [night(failed=0)] * 10
    assert drift(night(failed=1, studies=30, lytic=6), clean) == []
    assert names(night(failed=4, studies=30, lytic=6), clean) == ["failed"]


def test_limits_are_the_binomial_quantiles_beyond_three_sigma() -> None:
    earlier = [night(failed=5, studies=100)] * 20
    mean = (100 + 0.5) / (2000 + 1)
    last_in = next(k for k in range(100) if binom.sf(k, 100, mean) <= 0.00135)
    assert names(night(failed=last_in), earlier) == []
    assert names(night(failed=last_in + 1), earlier) == ["failed"]


def test_a_share_that_always_scatters_has_wider_limits() -> None:
    steady = [night(lytic=100) for n in range(12)]
    restless = [night(lytic=100 + 60 * (-1) ** n) for n in range(12)]
    assert names(night(lytic=150), steady) == ["lytic"]
    assert names(night(lytic=150), restless) == []
    assert names(night(lytic=900), restless) == ["lytic"]


def test_what_earlier_versions_did_not_count_and_small_nights_are_left_out() -> None:
    old = {name: value for name, value in night().items() if name in {"screened", "excluded", "failed"}}
    assert names(night(failed=50, lytic=500), [old] * 10) == ["failed"]
    assert drift(night(studies=0, failed=0, lytic=0, mean_hu=None), [night()] * 10) == []
    few = night(mean_hu=400.0) | {"hu_vertebrae": MIN_MEASURED - 1}
    assert drift(few, [night()] * 10) == []


def test_a_lasting_change_becomes_what_is_usual() -> None:
    rows = [night(failed=2)] * 20
    told = 0
    for _ in range(3 * LAST_RUNS):
        rows.append(night(failed=30))
        told += bool(drift(rows[-1], rows[:-1]))
    assert 5 <= told <= LAST_RUNS
    assert drift(rows[-1], rows[:-1]) == []


@given(st.integers(0, 2**32 - 1), st.floats(0.001, 0.5), st.integers(20, 500))
def test_the_same_chances_every_night_are_rarely_called_drift(seed: int, chance: float, studies: int) -> None:
    rng = np.random.default_rng(seed)
    rows = [night(failed=int(rng.binomial(studies, chance)), studies=studies) for _ in range(60)]
    told = sum("failed" in names(rows[n], rows[:n]) for n in range(20, 60))
    assert told <= 6  # 0.1 expected; limits from 20 runs are themselves uncertain


@given(st.lists(st.integers(0, 50), min_size=0, max_size=40), st.integers(0, 50))
def test_limits_hold_the_usual_share_and_not_the_told_one(earlier: list[int], now: int) -> None:
    rows = [night(failed=each, studies=50) for each in earlier]
    for alarm in drift(night(failed=now, studies=50), rows):
        mean = sum(earlier[-LAST_RUNS:]) / (50 * alarm.runs)
        assert 0 <= alarm.low <= alarm.high <= 1
        assert alarm.low - 0.02 <= mean <= alarm.high + 0.02
        assert not alarm.low <= alarm.value <= alarm.high


def test_a_studys_vertebrae_are_counted_by_class() -> None:
    rows = study_rows(REF, reading(), CALLS, MadeWith("m", "c", "1", "r"), NAMES)["vertebrae"]
    sums = counted(rows)  # the first of the four is cut, its HU unknown
    assert sums["evaluable"] == 3
    assert {name: sums[name] for name in POSITIVE} == dict.fromkeys(POSITIVE, 1)
    assert (sums["hu_vertebrae"], sums["hu_sum"]) == (3, 450.0)
    assert math.isclose(counted([])["hu_sum"], 0.0)
