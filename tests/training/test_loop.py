"""The training loop on one process and on two threads: it learns, repeats exactly, and resumes."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import DenseNet

from spinemet.config import changed
from spinemet.errors import BadInput
from spinemet.model.checkpoint import untrained
from spinemet.model.doubt import MEASURES
from spinemet.model.loss import task_losses, weighted_loss
from spinemet.model.predictor import Predictor
from spinemet.model.tasks import MISSING, TASKS, Task
from spinemet.reading import Doubt
from spinemet.training import loop
from spinemet.training.crops import Crops
from spinemet.training.dataset import training_data
from spinemet.training.loop import Trained, learning_rate_factor, train
from spinemet.training.selfpaced import difficulty
from spinemet.training.validation import macro_sensitivity
from spinemet.training.workers import OneProcess
from spinemet.types import BONE_QUALITY, SliceStack
from tests.training.lesions import made_up_crops, small_recipe
from tests.training.together import two_threads

_COMPILE = nn.Module.compile
PACED = {"pacing": {"warm_epochs": 1, "first_share": 0.5, "full_at": 0.9}, "epochs": 4}


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_it_learns_and_classifies_unseen_patients() -> None:
    crops = made_up_crops(patients=24)
    recipe, workers = small_recipe(epochs=12), OneProcess()
    trained = train(data := training_data(crops, recipe), recipe, 0, workers)
    assert workers.history[-1]["loss"] < 0.5 * workers.history[0]["loss"]
    predictor = Predictor(trained.model, changed(trained.card, weights_sha256="0"))
    unseen = crops.table[crops.table["patient"].isin(data.split["test"])]
    stacks, truth = [], []
    for _, rows in unseen.groupby("vertebra"):
        offsets = rows["offset_mm"].to_numpy(np.float32)
        stacks.append(SliceStack("T1", crops.hu_NHW[rows.index], offsets, recipe.model.slices.pixel_mm))
        truth.append(BONE_QUALITY.index(rows["bone_quality"].iloc[0]))
    called = [BONE_QUALITY.index(call.label("bone_quality")) for call in predictor.predict(stacks)]
    assert macro_sensitivity(np.array(truth), np.array(called), 4) > 0.8


@pytest.mark.parametrize("task", ["bone_quality", "posterolateral"])
@pytest.mark.parametrize("prevalence", [0.05, 0.25, 0.5])
def test_calls_may_assume_that_disease_is_rare(task: str, prevalence: float) -> None:
    crops = made_up_crops(patients=12)
    words_N = np.where(crops.table["bone_quality"] == "mixed", "unilateral", "none")
    crops = replace(crops, table=crops.table.assign(posterolateral=words_N))

    def bias(**assumed: float) -> tuple[Trained, float]:
        recipe = small_recipe(epochs=2, prevalence=assumed)
        trained = train(training_data(crops, recipe), recipe, 0, OneProcess())
        linear = [layer for layer in trained.model.heads[task].modules() if isinstance(layer, nn.Linear)]
        return trained, float(linear[-1].bias.detach()[0])

    (balanced, before), (rare, after) = bias(), bias(**{task: prevalence})
    train_N = training_data(crops, small_recipe()).train
    number = [one.name for one in small_recipe().model.tasks].index(task)
    weights_N, is_positive_N = train_N.weights_TN[number], train_N.targets_TN[number] > 0
    taught = weights_N[is_positive_N].sum() / weights_N[~is_positive_N].sum()
    assert after - before == pytest.approx(np.log(taught / (prevalence / (1 - prevalence))), abs=1e-4)
    for name, tensor in balanced.model.state_dict().items():
        if f"heads.{task}" not in name:
            assert torch.equal(tensor, rare.model.state_dict()[name])


def test_what_training_never_showed_is_unsure_and_sets_hold_the_truth_of_unseen_patients() -> None:
    crops = made_up_crops(patients=60)
    recipe = changed(small_recipe(epochs=4), validation_share=0.3)
    trained = train(data := training_data(crops, recipe), recipe, 0, OneProcess())
    doubts = trained.card.doubts
    assert doubts is not None
    assert set(doubts.ranges) == set(MEASURES)
    assert (doubts.decides, doubts.unexplained is not None) == ("bone_quality", True)
    predictor = Predictor(trained.model, changed(trained.card, weights_sha256="0"))
    unseen = crops.table[crops.table["patient"].isin(data.split["test"])]
    held, sure = [], []
    for _, rows in unseen.groupby("vertebra"):
        offsets = rows["offset_mm"].to_numpy(np.float32)
        stack = SliceStack("T1", crops.hu_NHW[rows.index], offsets, recipe.model.slices.pixel_mm)
        call = predictor.predict([stack])[0]
        held.append(rows["bone_quality"].iloc[0] in call.plausible["bone_quality"])
        sure.append(call.doubt in {None, Doubt.AMBIGUOUS})
        dense = replace(stack, hu_NHW=stack.hu_NHW + np.int16(1500))
        assert predictor.predict([dense])[0].doubt is Doubt.HIGH_DENSITY
    assert np.mean(held) > 0.8
    assert np.mean(sure) > 0.9


def test_the_same_seed_gives_the_same_loss_to_the_last_bit() -> None:
    data, recipe = training_data(made_up_crops(), small_recipe(**PACED)), small_recipe(**PACED)
    first, second, other = OneProcess(), OneProcess(), OneProcess()
    one, again = train(data, recipe, 3, first), train(data, recipe, 3, second)
    train(data, recipe, 4, other)
    assert [epoch["loss"] for epoch in first.history] == [epoch["loss"] for epoch in second.history]
    assert same_weights(one.model, again.model)
    assert first.history[0]["loss"] != other.history[0]["loss"]


def test_crops_kept_on_the_device_give_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = small_recipe(epochs=1)
    data, copied, held = training_data(made_up_crops(patients=8), recipe), OneProcess(), OneProcess()
    one = train(data, recipe, 0, copied)
    monkeypatch.setattr(loop, "resident", lambda samples, device: samples.pixels(np.arange(len(samples))).to(device))
    assert same_weights(train(data, recipe, 0, held).model, one.model)
    assert held.history[0]["loss"] == copied.history[0]["loss"]


class InOneGroup(OneProcess):
    """One process with a model wrapped in DistributedDataParallel, as with several processes."""

    def wrap(self, model: nn.Module) -> nn.Module:
        return nn.parallel.DistributedDataParallel(model)


def test_a_composed_model_learns_and_stores_its_offsets() -> None:
    recipe = small_recipe(epochs=8)
    recipe = changed(recipe, model=changed(recipe.model, composed=True))
    workers = OneProcess()
    trained = train(training_data(made_up_crops(patients=24), recipe), recipe, 0, workers)
    assert workers.history[-1]["validation_macro_sensitivity_bone_quality"] > 0.8
    assert len(trained.card.offsets["bone_quality"]) == 4
    assert trained.card.temperatures["bone_quality"] == 1


@pytest.mark.parametrize("sharing", ["hard", "soft"])
def test_every_weight_gets_its_gradient_from_distributed_data_parallel(sharing: str, tmp_path: Path) -> None:
    """DistributedDataParallel refuses the second step if a weight had no gradient in the first."""
    recipe = small_recipe(epochs=2)
    recipe = changed(recipe, model=changed(recipe.model, sharing=sharing))
    data, plain, wrapped = training_data(made_up_crops(patients=8), recipe), OneProcess(), InOneGroup()
    train(data, recipe, 0, plain)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        train(data, recipe, 0, wrapped)
    finally:
        torch.distributed.destroy_process_group()
    assert wrapped.history[-1]["loss"] == pytest.approx(plain.history[-1]["loss"], rel=1e-3)


class Killed(Exception):
    pass


class KilledAfterTwoEpochs(OneProcess):
    """One process that ends after its second report, like one that is killed."""

    def report(self, metrics: Mapping[str, float], state: dict[str, Any]) -> None:
        super().report(metrics, state)
        if len(self.history) == 2:
            raise Killed


def test_a_killed_run_resumes_and_ends_with_the_same_weights() -> None:
    recipe = small_recipe(**PACED)
    recipe = changed(recipe, model=changed(recipe.model, dropout=0.3))
    data = training_data(made_up_crops(), recipe)
    whole = train(data, recipe, 0, OneProcess())
    killed = KilledAfterTwoEpochs()
    with pytest.raises(Killed):
        train(data, recipe, 0, killed)
    resumed = OneProcess(killed.state)
    assert same_weights(train(data, recipe, 0, resumed).model, whole.model)
    assert [epoch["epoch"] for epoch in resumed.history] == [2, 3]


def test_pacing_admits_a_growing_share() -> None:
    recipe = small_recipe(**PACED)
    workers = OneProcess()
    train(training_data(made_up_crops(), recipe), recipe, 0, workers)
    slices = [epoch["slices"] for epoch in workers.history]
    assert slices[0] == 126
    assert 60 <= slices[1] < slices[2] < slices[3] <= 126
    state = workers.resume()
    assert state is not None
    assert torch.isfinite(state["losses"]).all()
    entered = state["entered"].numpy()
    assert set(entered) <= {0, 1, 2, 3}
    assert 126 - (entered == 0).sum() >= slices[3]
    assert (entered == 1).sum() == slices[1]


def test_a_new_task_is_learned_by_configuration_alone() -> None:
    crops = made_up_crops(patients=16)
    fallen = (crops.table["level"].isin(["T1", "T2"])).map({True: "yes", False: "no"})
    crops.hu_NHW[(fallen == "yes").to_numpy(), :6] = 1500
    table = crops.table.assign(collapse=fallen.where(crops.table["patient"] != "p00", None))
    info = changed(crops.info, classes={"collapse": {}})
    recipe = small_recipe(epochs=6)
    tasks = (*recipe.model.tasks, Task(name="collapse", column="collapse", positive=("yes",)))
    recipe = changed(recipe, model=changed(recipe.model, tasks=tasks))
    workers = OneProcess()
    trained = train(training_data(Crops(crops.hu_NHW, table, info), recipe), recipe, 0, workers)
    assert trained.card.spec.tasks[-1].name == "collapse"
    assert workers.history[-1]["validation_macro_sensitivity_collapse"] > 0.9


def test_a_compiled_model_has_the_same_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.Module, "compile", lambda self: self._compiled(backend="eager"), raising=False)
    monkeypatch.setattr(nn.Module, "_compiled", _COMPILE, raising=False)
    histories = []
    for compiled in (False, True):
        recipe, workers = small_recipe(epochs=1, compiled=compiled), OneProcess()
        train(training_data(made_up_crops(patients=8), recipe), recipe, 0, workers)
        histories.append(workers.history[0]["loss"])
    assert histories[1] == pytest.approx(histories[0], rel=1e-3)


def test_coupled_trunks_learn() -> None:
    recipe = small_recipe(epochs=2)
    recipe = changed(recipe, model=changed(recipe.model, sharing="soft"))
    workers = OneProcess()
    trained = train(training_data(made_up_crops(patients=8), recipe), recipe, 0, workers)
    assert workers.history[1]["loss"] < workers.history[0]["loss"]
    assert trained.card.spec.sharing == "soft"


def test_two_workers_agree_and_learn_as_well_as_one() -> None:
    recipe = small_recipe(**PACED)
    data = training_data(made_up_crops(), recipe)
    workers = two_threads()
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda its: train(data, recipe, 0, its), workers)
    assert same_weights(one.model, other.model)
    assert workers[0].history[-1]["loss"] == workers[1].history[-1]["loss"]
    alone = OneProcess()
    train(data, recipe, 0, alone)
    assert [epoch["slices"] for epoch in alone.history] == [epoch["slices"] for epoch in workers[0].history]
    assert workers[0].history[-1]["loss"] == pytest.approx(alone.history[-1]["loss"], rel=0.3)


def losses_of_some_batch(tasks: tuple[Task, ...] = TASKS, count: int = 10) -> tuple[torch.Tensor, torch.Tensor]:
    """(T, N) losses and weights; some labels are missing."""
    rng = np.random.default_rng(0)
    targets = torch.from_numpy(np.stack([rng.integers(-1, len(task.classes), count) for task in tasks]))
    logits = {task.name: torch.randn(count, len(task.classes)) for task in tasks}
    return task_losses(logits, targets, tasks, 0.1), (targets >= 0) * torch.rand(len(tasks), count)


def test_the_losses_of_two_parts_add_up_to_that_of_the_batch() -> None:
    losses, weights = losses_of_some_batch()
    whole = weighted_loss(losses, weights, 10, TASKS)
    parts = [weighted_loss(losses[:, n::2], weights[:, n::2], 10, TASKS) for n in range(2)]
    assert float(sum(parts)) == pytest.approx(float(whole), rel=1e-5)


def test_a_sample_counts_the_same_in_every_batch() -> None:
    losses, weights = losses_of_some_batch()
    alone = [float(weighted_loss(losses[:, [n]], weights[:, [n]], 1, TASKS)) for n in range(10)]
    assert float(weighted_loss(losses, weights, 10, TASKS)) == pytest.approx(np.mean(alone), rel=1e-5)


def test_the_loss_does_not_grow_with_the_number_of_tasks() -> None:
    losses, weights = losses_of_some_batch(TASKS[:1])
    one = float(weighted_loss(losses, weights, 10, TASKS[:1]))
    four = float(weighted_loss(losses.expand(4, -1), weights.expand(4, -1), 10, TASKS[:1] * 4))
    heavy = (changed(TASKS[0], weight=3.0),)
    assert four == pytest.approx(one, rel=1e-5)
    assert float(weighted_loss(losses, weights, 10, heavy)) == pytest.approx(one, rel=1e-5)


def test_pacing_compares_losses_of_one_model_on_slices_as_they_are() -> None:
    recipe = small_recipe(**{**PACED, "label_smoothing": 0.1})
    recipe = changed(recipe, model=changed(recipe.model, dropout=0.5))
    data, killed = training_data(made_up_crops(patients=8), recipe), KilledAfterTwoEpochs()
    with pytest.raises(Killed):
        train(data, recipe, 0, killed)
    state = killed.state
    assert state is not None
    model = untrained(recipe.model, 0).eval()
    model.load_state_dict(state["averaged"])
    with torch.no_grad():
        logits = model(data.train.pixels(np.arange(len(data.train))))
    losses = task_losses(logits, torch.from_numpy(data.train.targets_TN), recipe.model.tasks, 0.0)
    expected = difficulty(losses.numpy(), data.train.targets_TN, recipe.model.tasks)
    assert state["losses"].numpy() == pytest.approx(expected, rel=1e-2)


def test_a_missing_label_gives_no_loss_and_no_gradient() -> None:
    logits = {task.name: torch.randn(2, len(task.classes), requires_grad=True) for task in TASKS}
    targets = torch.tensor([[0, MISSING]] * len(TASKS))
    losses = task_losses(logits, targets, TASKS, 0.1)
    assert (losses[:, 1] == 0).all()
    assert (losses[:, 0] > 0).all()
    losses.sum().backward()
    gradient = logits["blastic"].grad
    assert gradient is not None
    assert (gradient[1] == 0).all()
    assert (gradient[0] != 0).any()


def test_the_learning_rate_warms_up_and_falls_to_zero() -> None:
    recipe = small_recipe(epochs=10, warmup_epochs=2)
    factors = [learning_rate_factor(epoch, recipe) for epoch in np.linspace(0, 10, 41)]
    assert factors[0] == 0
    assert max(factors) == factors[8] == 1
    assert factors[8:] == sorted(factors[8:], reverse=True)
    assert factors[-1] == pytest.approx(0)


@pytest.mark.parametrize("sharing", ["hard", "soft"])
def test_training_starts_from_pretrained_weights(sharing: str, tmp_path: Path) -> None:
    spec = small_recipe().model
    whole = DenseNet(spec.backbone.growth_rate, spec.backbone.block_config, spec.backbone.init_features)
    torch.save(whole, tmp_path / "whole.pt")  # a pickled network, as of torchxrayvision
    still = small_recipe(
        pretrained=str(tmp_path / "whole.pt"),
        model={**spec.model_dump(), "sharing": sharing},
        epochs=1,
        learning_rate=1e-12,
        warmup_epochs=0,
    )
    trained = train(training_data(made_up_crops(), still), still, 0, OneProcess())
    expected = {name: value for name, value in whole.named_parameters() if name.startswith("features.")}
    for trunk in trained.model.trunks():
        found = dict(trunk.named_parameters())
        assert found.keys() == expected.keys()
        assert all(torch.allclose(found[name], value, atol=1e-6) for name, value in expected.items())


def test_missing_imagenet_weights_stop_before_the_first_epoch() -> None:
    recipe, workers = small_recipe(pretrained="/nowhere/densenet.pth"), OneProcess()
    with pytest.raises(BadInput, match=r"expected pretrained weights at /nowhere/densenet\.pth"):
        train(training_data(made_up_crops(), recipe), recipe, 0, workers)
    assert workers.history == []
