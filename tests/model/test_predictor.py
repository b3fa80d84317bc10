"""Predictions: one call per stack, which does not depend on the other stacks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from spinemet.config import changed
from spinemet.errors import BadInput, StudyFailed
from spinemet.model.aggregate import Rule, aggregate
from spinemet.model.checkpoint import FAMILIAR, ModelCard, save_model, untrained
from spinemet.model.doubt import ClassLimits, Doubts, appearance, fit_familiar
from spinemet.model.multitask import MultiTask
from spinemet.model.predictor import BATCH, Predictor, canary_slices
from spinemet.model.spec import ModelSpec
from spinemet.reading import Doubt
from spinemet.types import BONE_QUALITY, SliceStack

Pair = tuple[MultiTask, ModelCard]


def stack(seed: int, count: int, size: int = 32, pixel_mm: float = 2.0) -> SliceStack:
    hu_NHW = np.random.default_rng(seed).integers(-300, 1500, (count, size, size)).astype(np.int16)
    return SliceStack("L1", hu_NHW, np.arange(count, dtype=np.float32), pixel_mm)


def test_calls_come_in_order_with_a_probability_for_every_class_and_slice(model: Pair) -> None:
    stacks = [stack(seed, count) for seed, count in enumerate((7, 1, 30, 12))]
    calls = Predictor(*model).predict(stacks)
    assert len(calls) == 4
    for one, call in zip(stacks, calls, strict=True):
        assert list(call.probabilities) == ["blastic", "lytic", "bone_quality", "posterolateral"]
        assert list(call.probabilities["bone_quality"]) == ["normal", "blastic", "mixed", "lytic"]
        for task, classes in call.probabilities.items():
            assert sum(classes.values()) == pytest.approx(1)
            assert call.slices_NC[task].shape == (len(one.hu_NHW), len(classes))
            mean = call.slices_NC[task].mean(axis=0)
            assert list(classes.values()) == pytest.approx(mean.tolist(), abs=1e-6)


def test_a_call_is_the_same_to_the_last_bit_however_stacks_are_batched(model: Pair) -> None:
    predictor = Predictor(*model)
    stacks = [stack(seed, 9) for seed in range(8)]
    assert sum(len(one.hu_NHW) for one in stacks) > 2 * BATCH
    together = predictor.predict(stacks)
    alone = [predictor.predict([one])[0] for one in stacks]
    backwards = predictor.predict(stacks[::-1])[::-1]
    for calls in (alone, backwards):
        for one, other in zip(together, calls, strict=True):
            assert one.probabilities == other.probabilities


def test_each_task_follows_its_rule(model: Pair) -> None:
    net, card = model
    rules = {"blastic": Rule(kind="top"), "posterolateral": Rule(kind="top", share=1.0)}
    call = Predictor(net, changed(card, rules=rules)).predict([stack(0, 9)])[0]
    for task, rule in {**rules, "lytic": Rule()}.items():
        expected = aggregate(call.slices_NC[task], rule)
        assert list(call.probabilities[task].values()) == pytest.approx(expected.tolist())


def test_a_saved_model_predicts_as_the_one_in_memory(model: Pair, tmp_path_factory: pytest.TempPathFactory) -> None:
    uri = str(tmp_path_factory.mktemp("model"))
    save_model(uri, *model)
    saved = Predictor.load(uri)
    assert saved.predict([stack(1, 5)])[0].probabilities == Predictor(*model).predict([stack(1, 5)])[0].probabilities
    assert len(saved.digest) == 12
    assert saved.slices.size_px == 32


def test_no_stacks_give_no_calls(model: Pair) -> None:
    assert Predictor(*model).predict([]) == []


@pytest.mark.parametrize("wrong", [stack(0, 3, size=64), stack(0, 3, pixel_mm=1.0), stack(0, 0)])
def test_stacks_with_another_shape_are_refused(model: Pair, wrong: SliceStack) -> None:
    with pytest.raises(BadInput, match="expected"):
        Predictor(*model).predict([stack(0, 2), wrong])


def test_a_temperature_softens_only_its_task(model: Pair) -> None:
    net, card = model
    plain = Predictor(*model).predict([stack(0, 9)])[0]
    warm = Predictor(net, changed(card, temperatures={"bone_quality": 2.0})).predict([stack(0, 9)])[0]
    power = plain.slices_NC["bone_quality"] ** 0.5
    expected = power / power.sum(axis=1, keepdims=True)
    assert warm.slices_NC["bone_quality"] == pytest.approx(expected, abs=1e-6)
    assert warm.probabilities["blastic"] == plain.probabilities["blastic"]


def test_a_composed_model_calls_a_vertebra_by_its_sub_tasks_and_its_offsets(
    spec: ModelSpec, tmp_path_factory: pytest.TempPathFactory
) -> None:
    spec, uri = changed(spec, composed=True), str(tmp_path_factory.mktemp("composed"))
    card = ModelCard(spec=spec, offsets={"bone_quality": (0.0, 0.0, 1.0, 0.0)})
    save_model(uri, untrained(spec, seed=0), card)
    call = Predictor.load(uri).predict([stack(0, 9)])[0]
    blastic, lytic = (call.probabilities[name]["yes"] for name in ("blastic", "lytic"))
    odds = np.array([(1 - blastic) * (1 - lytic), blastic * (1 - lytic), blastic * lytic * np.e, (1 - blastic) * lytic])
    assert list(call.probabilities["bone_quality"].values()) == pytest.approx((odds / odds.sum()).tolist(), abs=1e-6)
    assert call.slices_NC["bone_quality"].shape == (9, 4)


def test_a_composed_model_of_an_earlier_version_is_refused(
    spec: ModelSpec, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """It had an MLP, whose weights a composed model no longer has."""
    uri, old = str(tmp_path_factory.mktemp("old")), untrained(spec, seed=0)
    old.spec = changed(spec, composed=True)
    save_model(uri, old, ModelCard(spec=old.spec))
    with pytest.raises(BadInput, match=r"do not fit the model that model\.json describes"):
        Predictor.load(uri)


def test_a_model_without_doubts_says_nothing_of_them(model: Pair) -> None:
    call = Predictor(*model).predict([stack(0, 9)])[0]
    assert (call.doubt, call.is_judged, call.plausible) == (None, False, {})


def test_doubts_of_the_card_and_the_weights_reach_the_calls(model: Pair, tmp_path: Path) -> None:
    net, card = model
    stacks = [stack(seed, 9) for seed in range(4)]
    flat = SliceStack("L1", np.full((9, 32, 32), 40, np.int16), np.arange(9, dtype=np.float32), 2.0)
    bones = [appearance(one.hu_NHW, 2.0)["bone_hu"] for one in stacks]
    everything = ClassLimits(negative=1, positive=1, kind=1, coverage=1)
    predictor = Predictor(*model)
    features = [predictor.predict([one]) and predictor.features().mean(axis=0) for one in (*stacks, *stacks)]
    net.register_buffer(FAMILIAR, torch.from_numpy(fit_familiar(np.array(features))))
    for doubts, reason, of_flat in (
        (Doubts(ranges={"bone_hu": (min(bones), max(bones))}, decides="bone_quality"), None, Doubt.LOW_DENSITY),
        (Doubts(unexplained=0.0, decides="bone_quality"), Doubt.UNFAMILIAR, Doubt.UNFAMILIAR),
        (Doubts(unexplained=1e9, decides="bone_quality"), None, None),
        (Doubts(classes={"bone_quality": everything}, decides="bone_quality"), Doubt.AMBIGUOUS, Doubt.AMBIGUOUS),
    ):
        save_model(str(tmp_path), net, changed(card, doubts=doubts))
        calls = Predictor.load(str(tmp_path)).predict([*stacks, flat])
        assert [call.doubt for call in calls] == [*[reason] * 4, of_flat]
        assert all(call.is_judged for call in calls)
    assert calls[0].plausible == {"bone_quality": BONE_QUALITY}


# ---- a model that is not sound ------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [float("nan"), float("inf"), 1e38])
def test_values_that_are_not_numbers_are_no_call(model: Pair, factor: float) -> None:
    net, card = model
    with torch.no_grad():
        for weights in net.heads.parameters():
            weights.mul_(factor).mul_(factor)
    with pytest.raises(StudyFailed, match="values that are not numbers"):
        Predictor(net, card).predict([stack(0, 9)])


def test_a_model_that_calls_otherwise_than_where_it_was_trained_is_refused(model: Pair, tmp_path: Path) -> None:
    net, card = model
    save_model(str(tmp_path), net, changed(card, canary=Predictor(net, card).canary()))
    assert Predictor.load(str(tmp_path)).predict([stack(0, 9)])
    other = untrained(card.spec, seed=9)
    save_model(str(tmp_path), other, changed(card, canary=Predictor(net, card).canary()))
    with pytest.raises(BadInput, match="calls test slices otherwise than where it was trained"):
        Predictor.load(str(tmp_path))


def test_the_test_slices_fit_every_size_and_hold_hu(spec: ModelSpec) -> None:
    for size in (32, 64, 224):
        slices = canary_slices(changed(spec.slices, size_px=size))
        assert slices.shape == (8, size, size)
        assert slices.min() >= -400
        assert slices.max() <= 999
        assert len({one.tobytes() for one in slices}) == 8
