import numpy as np
import pytest
import statsmodels.api as sm

from spinemet.statistics.intervals import TOO_FEW, ClusterSums, proportion_interval
from spinemet.statistics.standardisation import StandardSums
from tests.statistics.clusters import STANDARD, STRATA_RISKS, in_strata


def test_share_and_variance_equal_statsmodels_on_10000_patients() -> None:
    """A regression on strata with patients as clusters; the standardised share is a contrast of its coefficients."""
    positive, sizes = in_strata(10_000, STRATA_RISKS[1], 0.3, True, np.random.default_rng(1))
    found = StandardSums.of(positive, sizes, STANDARD)
    patient, stratum = (np.repeat(axis.ravel(), sizes.ravel()) for axis in np.indices(sizes.shape))
    called = np.concatenate(
        [np.repeat([1, 0], [x, n - x]) for x, n in zip(positive.ravel(), sizes.ravel(), strict=True)]
    )
    groups = {"groups": patient, "use_correction": False}
    fit = sm.OLS(called, np.eye(4)[stratum]).fit(cov_type="cluster", cov_kwds=groups).t_test(STANDARD)
    assert found.share == pytest.approx(fit.effect[0], abs=1e-9)
    clusters = (sizes.sum(axis=1) > 0).sum()
    assert np.sqrt(found.variance * (clusters - 1) / clusters) == pytest.approx(fit.sd.item(), abs=1e-9)


def test_one_stratum_is_the_interval_of_a_share_in_clusters() -> None:
    positive, sizes = in_strata(60, STRATA_RISKS[1], 0.3, True, np.random.default_rng(2))
    one = StandardSums.of(positive.sum(axis=1, keepdims=True), sizes.sum(axis=1, keepdims=True), [1.0])
    plain = ClusterSums.of(positive.sum(axis=1), sizes.sum(axis=1))
    assert one.share == plain.positives / plain.units
    assert one.effective_size <= plain.effective_size
    independent = StandardSums.of(np.repeat([[1], [0]], [5, 15], axis=0), np.ones((20, 1)), [1.0]).interval
    plain_interval = proportion_interval([1] * 5 + [0] * 15, [1] * 20)
    assert (independent.low, independent.high) == pytest.approx((plain_interval.low, plain_interval.high))


def test_a_stratum_of_few_with_much_weight_makes_the_interval_wide() -> None:
    positive, sizes = np.zeros((100, 2)), np.zeros((100, 2))
    sizes[:95, 0], sizes[95:, 1] = 1, 1
    positive[95:97, 1] = 1
    light, heavy = (StandardSums.of(positive, sizes, weight).interval for weight in ([0.95, 0.05], [0.1, 0.9]))
    assert heavy.high - heavy.low > 4 * (light.high - light.low)


def test_a_finding_never_seen_has_an_upper_end_and_one_patient_no_interval() -> None:
    none = StandardSums.of(np.zeros((30, 2)), np.ones((30, 2)), [0.5, 0.5]).interval
    assert none.low == 0
    assert none.high == pytest.approx(1 - 0.025 ** (1 / 30)), "30 patients whose units are alike"
    assert StandardSums.of([[1, 0]], [[3, 2]], [0.5, 0.5]).interval.method == TOO_FEW


def test_strata_with_all_or_nothing_have_an_interval() -> None:
    found = StandardSums.of([[1, 0]] + [[0, 0]] * 9, [[1, 0]] + [[0, 1]] * 9, [0.5, 0.5])
    assert found.share == 0.5
    assert found.interval.low < 0.1, "one patient stands for half of the standard"
    assert found.interval.high > 0.9


@pytest.mark.parametrize(("patients", "several"), [(40, True), (150, True), (80, False)])
def test_the_interval_covers(patients: int, several: bool) -> None:
    """`make bench ONLY=coverage` has more settings."""
    rng, truth, found = np.random.default_rng(4), STANDARD @ np.array(STRATA_RISKS[1]), []
    while len(found) < 300:
        positive, sizes = in_strata(patients, STRATA_RISKS[1], 0.3, several, rng)
        if sizes.any(axis=0).all():
            interval = StandardSums.of(positive, sizes, STANDARD).interval
            found.append(interval.low <= truth <= interval.high)
    assert np.mean(found) >= 0.92
