import numpy as np
import pytest
from statsmodels.stats.rates import confint_poisson

from spinemet.statistics.rates import rate, rate_interval


@pytest.mark.parametrize("events", [0, 1, 7, 250, 90_000])
def test_the_interval_is_that_of_statsmodels(events: int) -> None:
    expected = confint_poisson(events, 1234.5, method="exact-c")
    found = rate_interval(events, 1234.5)
    assert np.array(found) == pytest.approx(100_000 * np.array(expected), rel=1e-9)


def test_the_rate_lies_in_its_interval_and_nothing_seen_has_none() -> None:
    events, years = np.array([0, 3, 12, 0]), np.array([10.0, 0.5, 800.0, 0.0])
    low, high = rate_interval(events, years)
    found = rate(events, years)
    assert found[:3] == pytest.approx([0, 600_000, 1500])
    assert ((low <= found) & (found <= high))[:3].all()
    assert np.isnan([low[3], found[3], high[3]]).all()


def test_it_covers_a_rare_rate() -> None:
    rng = np.random.default_rng(4)
    events = rng.poisson(2.5, 4000)
    low, high = rate_interval(events, 1.0)
    assert ((low <= 250_000) & (high >= 250_000)).mean() >= 0.95
