"""Properties that all aggregation rules share, and their differences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spinemet.model.aggregate import Rule, aggregate

RULES = [Rule(kind="mean"), Rule(kind="top", share=1 / 3)]


def slices(seed: int, count: int, classes: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(classes), count)


@given(st.integers(0, 1000), st.integers(1, 12), st.integers(2, 4), st.sampled_from(RULES))
def test_probabilities_have_the_sum_1_in_any_order_of_slices(seed: int, count: int, classes: int, rule: Rule) -> None:
    prob_NC = slices(seed, count, classes)
    prob_C = aggregate(prob_NC, rule)
    assert prob_C.shape == (classes,)
    assert prob_C.min() >= 0
    assert prob_C.sum() == pytest.approx(1)
    assert aggregate(prob_NC[::-1], rule) == pytest.approx(prob_C)


@given(st.integers(0, 1000), st.integers(1, 6), st.sampled_from(RULES))
def test_doubling_every_slice_changes_nothing(seed: int, count: int, rule: Rule) -> None:
    prob_NC = slices(seed, count * 3, 4)
    assert aggregate(np.repeat(prob_NC, 2, axis=0), rule) == pytest.approx(aggregate(prob_NC, rule))


def test_the_mean_misses_a_lesion_on_a_third_of_the_slices_and_top_finds_it() -> None:
    prob_NC = np.array([[0.9, 0.1]] * 6 + [[0.1, 0.9]] * 3)
    assert aggregate(prob_NC, Rule(kind="mean")).argmax() == 0
    assert aggregate(prob_NC, Rule(kind="top", share=1 / 3)) == pytest.approx([0.1, 0.9])


def test_no_slice_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one slice"):
        aggregate(np.zeros((0, 4)), Rule())
