"""Sampling: sums, determinism, balance."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spinemet.training.config import PacingConfig, Regularizer
from spinemet.training.selfpaced import admitted, batches, may_be_best, order, rank_part, share_at

SEEDS = st.integers(0, 10_000)


def some_losses(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.exponential(size=count), rng.choice(4, count, p=[0.7, 0.1, 0.05, 0.15])


@given(SEEDS, st.integers(1, 200), st.floats(0.01, 1))
def test_the_share_is_admitted_of_every_class_easiest_first(seed: int, count: int, share: float) -> None:
    losses, classes = some_losses(seed, count)
    weights = admitted(losses, classes, share)
    for one in np.unique(classes):
        own = classes == one
        assert weights[own].sum() == math.ceil(share * own.sum() - 1e-9)
        if (weights[own] == 0).any():
            assert losses[own & (weights == 1)].max() <= losses[own & (weights == 0)].min()


def test_samples_not_seen_yet_come_last_and_all_come_at_the_full_share() -> None:
    losses, classes = np.array([np.nan, 2.0, 1.0, np.nan]), np.zeros(4, int)
    assert admitted(losses, classes, 0.5).tolist() == [0, 1, 1, 0]
    assert admitted(losses, classes, 1.0).tolist() == [1, 1, 1, 1]


@given(SEEDS, st.integers(1, 200), st.floats(0.01, 1), st.sampled_from(["linear", "mixture"]))
def test_soft_weights_admit_the_same_samples_and_fall_with_the_loss(
    seed: int, count: int, share: float, regularizer: Regularizer
) -> None:
    losses, classes = some_losses(seed, count)
    hard, soft = admitted(losses, classes, share), admitted(losses, classes, share, regularizer)
    assert ((soft > 0) == (hard > 0)).all()
    assert (soft <= 1).all()
    assert admitted(losses, classes, 1.0, regularizer).tolist() == [1.0] * count
    for one in np.unique(classes):
        own = (classes == one) & (soft > 0)
        assert (np.diff(soft[own][np.argsort(losses[own])]) <= 1e-12).all()
        alone = admitted(losses[classes == one], classes[classes == one], share, regularizer)
        assert alone.tolist() == soft[classes == one].tolist()  # no class feels another


def test_soft_weights_are_those_of_the_formulas() -> None:
    losses, classes = np.array([1.0, 2.0, 3.0, 4.0, 8.0, 9.0]), np.zeros(6, int)
    assert admitted(losses, classes, 4 / 6, "linear") == pytest.approx([7 / 8, 6 / 8, 5 / 8, 4 / 8, 0, 0])
    zeta = 2 * 8 / (8 - 2)
    mixed = [1, 1, zeta * (1 / 3 - 1 / 8), zeta * (1 / 4 - 1 / 8), 0, 0]
    assert admitted(losses, classes, 4 / 6, "mixture") == pytest.approx(mixed)


@pytest.mark.parametrize("regularizer", ["linear", "mixture"])
@pytest.mark.parametrize("losses", [[2.0] * 4, [0.0] * 4, [1.0, np.nan, np.nan, np.nan], [0.0, 0.0, 0.0, 5.0]])
def test_soft_weights_keep_the_share_among_equal_and_unknown_losses(
    losses: list[float], regularizer: Regularizer
) -> None:
    weights = admitted(np.array(losses), np.zeros(4, int), 0.5, regularizer)
    assert np.isfinite(weights).all()
    assert (weights > 0).tolist() == [True, True, False, False]


@given(st.integers(3, 60), st.integers(1, 5), st.floats(0.1, 1), st.floats(0.1, 1))
def test_the_share_starts_and_ends_whole_and_never_falls_between(
    epochs: int, warm: int, first: float, full_at: float
) -> None:
    pacing = PacingConfig(warm_epochs=warm, first_share=first, full_at=full_at)
    shares = [share_at(epoch, epochs, pacing) for epoch in range(epochs)]
    assert shares[:warm] == [1.0] * min(warm, epochs)
    assert all(first <= share <= 1 for share in shares)
    paced = shares[warm:]
    assert paced == sorted(paced)
    assert share_at(epochs - 1, epochs, None) == 1
    assert share_at(epochs, epochs, pacing) == 1


@given(st.integers(1, 60), st.integers(1, 5), st.floats(0.1, 1))
def test_a_model_is_kept_only_after_all_were_admitted_for_good(epochs: int, warm: int, full_at: float) -> None:
    pacing = PacingConfig(warm_epochs=warm, first_share=0.5, full_at=full_at)
    allowed = [may_be_best(epoch, epochs, pacing) for epoch in range(epochs)]
    assert allowed[-1]
    assert allowed == sorted(allowed)
    later = [share_at(epoch, epochs, pacing) for epoch in range(epochs - 1) if allowed[epoch]]
    assert all(share == 1 for share in later)
    assert may_be_best(0, epochs, None)


@given(SEEDS, st.integers(1, 100), st.integers(0, 5))
def test_an_order_holds_each_admitted_sample_once_and_no_other(seed: int, count: int, epoch: int) -> None:
    weights = np.random.default_rng(seed).choice([0.0, 1.0], count)
    drawn = order(weights, seed, epoch)
    assert sorted(drawn) == np.flatnonzero(weights).tolist()
    assert order(weights, seed, epoch).tolist() == drawn.tolist()


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    weights = np.ones(50)
    orders = {tuple(order(weights, seed, epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


@given(SEEDS, st.integers(1, 60), st.integers(1, 80))
def test_a_smaller_draw_has_no_repeats(seed: int, count: int, size: int) -> None:
    drawn = order(np.ones(count), seed, 0, size)
    assert len(set(drawn)) == len(drawn) == min(size, count)


def test_heavier_samples_are_drawn_in_proportion() -> None:
    weights = np.repeat([1.0, 3.0], 500)
    drawn = np.concatenate([order(weights, 0, epoch, 50) for epoch in range(100)])
    assert (drawn >= 500).mean() == pytest.approx(0.75, abs=0.02)


@given(SEEDS, st.integers(1, 300), st.integers(1, 64), st.integers(1, 9))
def test_no_sample_is_lost_or_doubled_whatever_the_number_of_workers(
    seed: int, count: int, batch: int, world: int
) -> None:
    drawn = order(np.ones(count), seed, 0)
    if count < world:
        with pytest.raises(ValueError, match="expected at least"):
            batches(drawn, batch, world)
        return
    parts = batches(drawn, batch, world)
    assert np.concatenate(parts).tolist() == drawn.tolist()
    assert all(world <= len(part) <= max(batch, 2 * world) for part in parts)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    for part in parts:
        shares = [rank_part(part, rank, world).tolist() for rank in range(world)]
        assert all(shares)
        assert sorted(index for share in shares for index in share) == sorted(part)
