import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spinemet.statistics.intervals import format_interval, proportion_interval

CLUSTERS = st.lists(
    st.integers(1, 24).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), min_size=1, max_size=30
)


def test_one_unit_per_cluster_is_wilson() -> None:
    # Wilson 1927 for 8 of 20, as in Newcombe 1998's worked arithmetic: (8 + z²/2 ± …) / (20 + z²).
    interval = proportion_interval([1] * 8 + [0] * 12, [1] * 20)
    assert (interval.low, interval.high) == pytest.approx((0.2188, 0.6134), abs=5e-4)
    assert interval.method == "wilson"


@given(CLUSTERS)
def test_the_interval_holds_the_proportion_and_stays_in_bounds(clusters: list[tuple[int, int]]) -> None:
    positive, examined = np.array(clusters).T
    interval = proportion_interval(positive, examined)
    assert -1e-9 <= interval.low <= positive.sum() / examined.sum() + 1e-9
    assert positive.sum() / examined.sum() - 1e-9 <= interval.high <= 1 + 1e-9
    assert interval.low < interval.high


def test_no_finding_in_many_vertebrae_of_few_patients_leaves_a_wide_interval() -> None:
    few_patients = proportion_interval([0, 0, 0], [17, 17, 17])
    many_patients = proportion_interval([0] * 51, [1] * 51)
    assert few_patients.high > 0.4
    assert many_patients.high < 0.1


def test_without_an_examined_unit_there_is_no_interval() -> None:
    assert np.isnan(proportion_interval([0, 0], [0, 0]).low)
    assert np.isnan(proportion_interval([], []).high)


def test_it_covers_clustered_findings_and_an_interval_of_independent_vertebrae_does_not() -> None:
    """40 patients of 12 vertebrae, prevalence 0.15, intraclass correlation about 0.3 (beta-binomial)."""
    generator = np.random.default_rng(5)
    truth, spread = 0.15, 1 / 0.3 - 1
    hits = naive_hits = 0
    repeats = 400
    for _ in range(repeats):
        risk = generator.beta(truth * spread, (1 - truth) * spread, 40)
        found = generator.binomial(12, risk)
        interval = proportion_interval(found, np.full(40, 12))
        hits += interval.low <= truth <= interval.high
        single = proportion_interval(np.repeat([1, 0], [found.sum(), 480 - found.sum()]), np.ones(480))
        naive_hits += single.low <= truth <= single.high
    assert hits / repeats > 0.91
    assert naive_hits / repeats < 0.75


@pytest.mark.parametrize(
    ("ends", "options", "text"),
    [
        ((0.834, 0.71, 0.925), {}, "0.83 [0.71, 0.93]"),
        ((0.834, 0.71, 0.925), {"percent": True}, "83.4 [71.0, 92.5]"),
        ((0.042, -0.003, 0.081), {"percent": True, "signed": True}, "+4.2 [-0.3, +8.1]"),
        ((0.5, np.nan, np.nan), {}, "0.50"),
        ((0.5, None, None), {}, "0.50"),
        ((np.nan, np.nan, np.nan), {}, "–"),
        ((None, None, None), {"percent": True}, "–"),
    ],
)
def test_the_text_of_an_interval(
    ends: tuple[float | None, float | None, float | None], options: dict[str, bool], text: str
) -> None:
    assert format_interval(*ends, **options) == text
