"""Sampling: sums, determinism, equal parts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spinemet.config import changed
from spinemet.model.tasks import MISSING, TASKS
from spinemet.training.config import PacingConfig
from spinemet.training.selfpaced import admitted, batches, difficulty, may_be_best, order, rank_part, share_at

SEEDS = st.integers(0, 10_000)


def some_losses(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.exponential(size=count), rng.choice(4, count, p=[0.7, 0.1, 0.05, 0.15])


def test_no_task_decides_alone_which_samples_are_hard() -> None:
    rng = np.random.default_rng(0)
    losses, targets = rng.exponential(size=(4, 50)), np.zeros((4, 50), int)
    found = difficulty(losses, targets, TASKS)
    assert found.mean() == pytest.approx(1)
    larger = losses * np.array([[1.0], [10.0], [0.1], [1.0]])
    assert difficulty(larger, targets, TASKS) == pytest.approx(found)


def test_a_missing_label_makes_a_sample_neither_easy_nor_hard() -> None:
    losses, targets = np.full((4, 6), 2.0), np.zeros((4, 6), int)
    targets[3, :3] = MISSING
    losses[3, :3] = 0.0
    assert difficulty(losses, targets, TASKS) == pytest.approx(np.ones(6))


def test_a_task_counts_by_its_weight() -> None:
    losses, targets = np.array([[1.0, 3.0], [3.0, 1.0]]), np.zeros((2, 2), int)
    tasks = (changed(TASKS[0], weight=3.0), TASKS[1])
    assert difficulty(losses, targets, tasks) == pytest.approx([0.75, 1.25])


@given(SEEDS, st.integers(1, 200), st.floats(0.01, 1))
def test_each_class_admits_its_share_easiest_first(seed: int, count: int, share: float) -> None:
    losses, classes = some_losses(seed, count)
    chosen = admitted(losses, classes, share)
    for one in np.unique(classes):
        own = classes == one
        assert chosen[own].sum() == math.ceil(share * own.sum() - 1e-9)
        if not chosen[own].all():
            assert losses[own & chosen].max() <= losses[own & ~chosen].min()
        alone = admitted(losses[own], classes[own], share)
        assert alone.tolist() == chosen[own].tolist()  # classes do not affect each other


def test_unseen_samples_come_last_and_the_full_share_admits_all() -> None:
    losses, classes = np.array([np.nan, 2.0, 1.0, np.nan]), np.zeros(4, int)
    assert admitted(losses, classes, 0.5).tolist() == [0, 1, 1, 0]
    assert admitted(losses, classes, 1.0).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("losses", [[2.0] * 4, [0.0] * 4, [1.0, np.nan, np.nan, np.nan], [0.0, 0.0, 0.0, 5.0]])
def test_the_share_is_kept_among_equal_and_unknown_losses(losses: list[float]) -> None:
    assert admitted(np.array(losses), np.zeros(4, int), 0.5).tolist() == [True, True, False, False]


@given(st.integers(3, 60), st.integers(1, 5), st.floats(0.1, 1), st.floats(0.1, 1))
def test_the_share_starts_and_ends_at_1_and_grows_in_between(
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
def test_a_model_is_kept_only_once_all_samples_stay_admitted(epochs: int, warm: int, full_at: float) -> None:
    pacing = PacingConfig(warm_epochs=warm, first_share=0.5, full_at=full_at)
    allowed = [may_be_best(epoch, epochs, pacing) for epoch in range(epochs)]
    assert allowed[-1]
    assert allowed == sorted(allowed)
    later = [share_at(epoch, epochs, pacing) for epoch in range(epochs - 1) if allowed[epoch]]
    assert all(share == 1 for share in later)
    assert may_be_best(0, epochs, None)


@given(SEEDS, st.integers(1, 100), st.integers(0, 5))
def test_an_order_has_each_admitted_sample_once_and_no_other(seed: int, count: int, epoch: int) -> None:
    chosen = np.random.default_rng(seed).random(count) < 0.5
    drawn = order(chosen, seed, epoch)
    assert sorted(drawn) == np.flatnonzero(chosen).tolist()
    assert order(chosen, seed, epoch).tolist() == drawn.tolist()


def test_each_epoch_and_seed_has_its_own_order() -> None:
    chosen = np.ones(50, bool)
    orders = {tuple(order(chosen, seed, epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


@given(SEEDS, st.integers(1, 60), st.integers(1, 80))
def test_a_smaller_draw_has_no_repeats(seed: int, count: int, size: int) -> None:
    drawn = order(np.ones(count, bool), seed, 0, size)
    assert len(set(drawn)) == len(drawn) == min(size, count)


def test_admitted_samples_are_drawn_equally_often() -> None:
    chosen = np.arange(1000) % 2 == 0
    drawn = np.concatenate([order(chosen, 0, epoch, 50) for epoch in range(100)])
    assert (drawn % 2 == 0).all()
    assert (drawn >= 500).mean() == pytest.approx(0.5, abs=0.02)


@given(SEEDS, st.integers(1, 300), st.integers(1, 64), st.integers(1, 9))
def test_workers_share_all_samples_without_repeats(seed: int, count: int, batch: int, world: int) -> None:
    drawn = order(np.ones(count, bool), seed, 0)
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
