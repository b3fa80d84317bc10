import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from spinemet.statistics.intervals import TOO_FEW, format_interval, format_share, proportion_interval
from tests.statistics.clusters import Patients

CLUSTERS = st.lists(
    st.integers(1, 24).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), min_size=2, max_size=30
)


def test_one_unit_per_cluster_is_the_exact_interval() -> None:
    interval = proportion_interval([1] * 8 + [0] * 12, [1] * 20)
    assert (interval.low, interval.high) == pytest.approx(proportion_confint(8, 20, method="beta"), abs=1e-12)
    assert interval.method == "clopper_pearson"
    assert proportion_interval([0], [1]).high == pytest.approx(0.975)


def test_several_units_per_cluster_are_korn_and_graubards_interval() -> None:
    """8 clusters of 4 units: the cluster-robust variance of a mean of clusters is that of their shares."""
    positive, share = np.array([0, 1, 4, 2, 0, 3, 1, 1]), 12 / 32
    variance = np.var(positive / 4, ddof=1) / 8
    few = (1.959963984540054 / stats.t.ppf(0.975, 6)) ** 2
    size = share * (1 - share) / variance * few
    interval = proportion_interval(positive, np.full(8, 4))
    ends = stats.beta.ppf(
        [0.025, 0.975], [share * size, share * size + 1], [(1 - share) * size + 1, (1 - share) * size]
    )
    assert (interval.low, interval.high) == pytest.approx(tuple(ends), abs=1e-9)
    assert interval.method == "korn_graubard"


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


@pytest.mark.parametrize("sizes", [[], [0, 0], [9], [9, 0]])
def test_without_a_unit_or_from_one_patient_alone_there_is_no_interval(sizes: list[int]) -> None:
    interval = proportion_interval([min(size, 3) for size in sizes], sizes)
    assert np.isnan([interval.low, interval.high]).all()
    assert interval.method == TOO_FEW


@pytest.mark.parametrize(
    "patients",
    [
        Patients(50, 0.01, 0.5),
        Patients(100, 0.01, 0.5, sizes="more if ill"),
        Patients(20, 0.05, 0.2, "two kinds", "fewer if ill"),
        Patients(100, 0.2, 0.2, sizes="skewed"),
        Patients(200, 0.1, 0.0),
    ],
)
def test_it_covers_rare_findings_in_few_patients(patients: Patients) -> None:
    """`make bench ONLY=coverage` has all settings. The interval by all patients' degrees of freedom covers 85 %."""
    rng = np.random.default_rng(5)
    truth = patients.prevalence(rng)
    found = [proportion_interval(*cohort) for cohort in zip(*patients.draw(400, rng), strict=True)]
    assert np.mean([one.low <= truth <= one.high for one in found]) >= 0.93


def test_an_interval_of_independent_vertebrae_does_not_cover() -> None:
    rng = np.random.default_rng(5)
    positive, sizes = Patients(40, 0.15, 0.3).draw(400, rng)
    ends = [proportion_confint(x, n, method="beta") for x, n in zip(positive.sum(1), sizes.sum(1), strict=True)]
    assert np.mean([low <= 0.15 <= high for low, high in ends]) < 0.75


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


def test_a_share_without_an_interval_says_too_few() -> None:
    assert format_share(0.429, 0.158, 0.75, "korn_graubard") == "42.9 [15.8, 75.0]"
    assert format_share(1.0, np.nan, np.nan, TOO_FEW) == "100.0 (too few)"
    assert format_share(np.nan, np.nan, np.nan, TOO_FEW) == "–"
