"""Aggregation rules: what holds for all of them, and what sets each apart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spinemet.model.aggregate import Rule, aggregate

RULES = [Rule(kind="mean"), Rule(kind="top", share=1 / 3), Rule(kind="noisy_or"), Rule(kind="vote", share=0.25)]


def slices(seed: int, count: int, classes: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(classes), count)


@given(st.integers(0, 1000), st.integers(1, 12), st.integers(2, 4), st.sampled_from(RULES))
def test_probabilities_sum_to_one_whatever_the_order_of_slices(seed: int, count: int, classes: int, rule: Rule) -> None:
    prob_NC = slices(seed, count, classes)
    prob_C = aggregate(prob_NC, rule)
    assert prob_C.shape == (classes,)
    assert prob_C.min() >= 0
    assert prob_C.sum() == pytest.approx(1)
    assert aggregate(prob_NC[::-1], rule) == pytest.approx(prob_C)


@given(st.integers(0, 1000), st.integers(1, 6), st.sampled_from([RULES[0], RULES[1], RULES[3]]))
def test_doubling_every_slice_changes_nothing(seed: int, count: int, rule: Rule) -> None:
    prob_NC = slices(seed, count * 3, 4)
    assert aggregate(np.repeat(prob_NC, 2, axis=0), rule) == pytest.approx(aggregate(prob_NC, rule))


def test_a_lesion_on_a_third_of_the_slices_is_lost_by_the_mean_and_kept_by_the_top() -> None:
    prob_NC = np.array([[0.9, 0.1]] * 6 + [[0.1, 0.9]] * 3)
    assert aggregate(prob_NC, Rule(kind="mean")).argmax() == 0
    assert aggregate(prob_NC, Rule(kind="top", share=1 / 3)) == pytest.approx([0.1, 0.9])


def test_noisy_or_is_negative_only_if_every_slice_is() -> None:
    assert aggregate(np.array([[0.5, 0.5]] * 3), Rule(kind="noisy_or")) == pytest.approx([0.125, 0.875])


def test_votes_count_from_the_minimum_share_on() -> None:
    prob_NC = np.array([[1, 0, 0]] * 6 + [[0, 1, 0], [0, 0, 1]])
    assert aggregate(prob_NC, Rule(kind="vote", share=0.25)) == pytest.approx([0, 0.5, 0.5])
    assert aggregate(prob_NC, Rule(kind="vote", share=0.3)) == pytest.approx([1, 0, 0])


def test_no_slice_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one slice"):
        aggregate(np.zeros((0, 4)), Rule())
