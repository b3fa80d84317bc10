import math

import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis

from spinemet.statistics.standardised import of_means, of_shares


def test_of_means_is_the_difference_in_mean_deviations() -> None:
    first, second = np.array([50.0, 60.0, 70.0]), np.array([55.0, 65.0, 90.0])
    pooled = math.sqrt((first.var(ddof=1) + second.var(ddof=1)) / 2)
    found = of_means((first.mean(), second.mean()), (first.std(ddof=1), second.std(ddof=1)))
    assert found == pytest.approx((second.mean() - first.mean()) / pooled, rel=1e-12)


def test_of_two_shares_it_is_the_usual_formula() -> None:
    expected = (0.3 - 0.2) / math.sqrt((0.3 * 0.7 + 0.2 * 0.8) / 2)
    assert of_shares([[20, 80], [30, 70]]) == pytest.approx(expected, rel=1e-12)


def test_of_many_shares_it_is_the_distance_of_mahalanobis_whichever_category_is_left_out() -> None:
    counts = np.array([[20, 50, 30], [40, 35, 25]])
    shares = counts / counts.sum(axis=1, keepdims=True)
    for left_out in range(3):
        one, two = np.delete(shares, left_out, axis=1)
        spread = (np.diag(one) - np.outer(one, one) + np.diag(two) - np.outer(two, two)) / 2
        assert of_shares(counts) == pytest.approx(mahalanobis(one, two, np.linalg.inv(spread)), rel=1e-9)
        assert of_shares(np.roll(counts, left_out, axis=1)) == pytest.approx(of_shares(counts), rel=1e-9)


def test_what_cannot_be_known_is_nan() -> None:
    assert math.isnan(of_means((50.0, 60.0), (0.0, 0.0)))
    assert math.isnan(of_shares([[5, 0], [7, 0]])), "one category"
    assert math.isnan(of_shares([[5, 5], [0, 0]])), "an empty group"
    assert of_shares([[5, 0], [0, 5]]) == math.inf
