"""Properties that all aggregation rules share, and their differences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spinemet.config import changed
from spinemet.model.aggregate import Rule, aggregate, compose, vertebra_probabilities
from spinemet.model.spec import ModelSpec

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


# A vertebra of six slices: three show a blastic focus, the other three a lytic one.
MIXED = {
    "blastic": np.array([[0.1, 0.9]] * 3 + [[0.9, 0.1]] * 3),
    "lytic": np.array([[0.9, 0.1]] * 3 + [[0.1, 0.9]] * 3),
    "posterolateral": np.full((6, 3), 1 / 3),
}
MIXED["bone_quality"] = np.array([[0.09, 0.81, 0.09, 0.01]] * 3 + [[0.09, 0.01, 0.09, 0.81]] * 3)
HALF = dict.fromkeys(MIXED, Rule(kind="top", share=0.5))


def test_a_vertebra_with_both_kinds_on_different_slices_is_mixed() -> None:
    """Normal, blastic, mixed, lytic."""
    composed = vertebra_probabilities(MIXED, ModelSpec(composed=True), HALF, {})
    assert composed["blastic"] == pytest.approx([0.1, 0.9])
    assert composed["bone_quality"] == pytest.approx([0.01, 0.09, 0.81, 0.09])
    by_slices = vertebra_probabilities(MIXED, ModelSpec(), HALF, {})
    assert by_slices["bone_quality"].argmax() != 2
    assert by_slices["bone_quality"] == pytest.approx(aggregate(MIXED["bone_quality"], HALF["bone_quality"]))


def test_offsets_multiply_the_odds_of_composed_tasks_only() -> None:
    spec, offsets = ModelSpec(composed=True), {"bone_quality": (0.0, 0.0, float(np.log(3)), 0.0)}
    plain, moved = (vertebra_probabilities(MIXED, spec, HALF, one) for one in ({}, offsets))
    assert moved["bone_quality"][2] / moved["bone_quality"][1] == pytest.approx(27)
    assert plain["bone_quality"][2] / plain["bone_quality"][1] == pytest.approx(9)
    assert moved["bone_quality"].sum() == pytest.approx(1)
    assert moved["lytic"] == pytest.approx(plain["lytic"])
    assert vertebra_probabilities(MIXED, changed(spec, composed=False), HALF, offsets)["bone_quality"].sum() == 1


def test_a_part_that_is_ruled_out_rules_out_the_class_without_an_error() -> None:
    found = compose([np.array([0.0, 1.0]), np.array([0.5, 0.5])], np.zeros(2))
    assert found == pytest.approx([0, 1])
