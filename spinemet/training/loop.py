"""The training loop: plain PyTorch on one process; other processes are reached through `Workers` only. Knows no Ray.

All random numbers follow from (seed, epoch, step, rank). So a run that is killed and resumed ends with the weights of
an undisturbed one, and two runs of one recipe and seed on the CPU agree to the last bit.
T tasks, N samples, C classes.
"""

import copy
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from spinemet.config import changed
from spinemet.model.checkpoint import FAMILIAR, ModelCard, untrained
from spinemet.model.inference import autocast
from spinemet.model.loss import task_losses, weighted_loss
from spinemet.model.multitask import MultiTask
from spinemet.model.predictor import Predictor
from spinemet.model.weights import load_pretrained
from spinemet.training import augment, selfpaced
from spinemet.training.config import TrainRecipe
from spinemet.training.dataset import Samples, TrainingData, resident
from spinemet.training.split import split_digest
from spinemet.training.validation import (
    choose_rules,
    fit_doubts,
    fit_offsets,
    fit_temperatures,
    tempered,
    validation_metrics,
)
from spinemet.training.workers import State, Workers

EVALUATION_BATCH = 64


@dataclass(frozen=True, eq=False)
class Trained:
    """The model of the best epoch, in evaluation mode on the CPU, and its card."""

    model: MultiTask
    card: ModelCard
    entered_N: npt.NDArray[np.int64]
    """The epoch in which self-pacing first admitted each training sample, after the warm epochs; 0 for never."""


def train(data: TrainingData, recipe: TrainRecipe, seed: int, workers: Workers) -> Trained:
    """Train `recipe` and keep the epoch that is best on the validation patients.

    Starts from `workers.resume()`. Every process gets the same result. Raises BadInput if the pretrained weights cannot
    be read, RuntimeError if the gradients are not finite.
    """
    run = _Run(data, recipe, seed, workers)
    for epoch in range(run.next_epoch, recipe.epochs):
        started = time.monotonic()
        metrics = run.one_epoch(epoch)
        metrics |= run.validate(epoch)
        metrics["seconds"] = time.monotonic() - started
        workers.report(metrics, run.state(epoch + 1))
    return run.finish()


def learning_rate_factor(epoch: float, recipe: TrainRecipe) -> float:
    """The part of the full learning rate at a fractional epoch: even warm-up, then a cosine down to 0."""
    if epoch < recipe.warmup_epochs:
        return epoch / recipe.warmup_epochs
    rest = (epoch - recipe.warmup_epochs) / max(recipe.epochs - recipe.warmup_epochs, 1e-9)
    return 0.5 * (1 + math.cos(math.pi * min(rest, 1.0)))


def log_odds_of(prevalence: float, targets_N: npt.NDArray[np.int64], weights_N: npt.NDArray[np.float32]) -> float:
    """What the negative class's logit needs for calls in which a share `prevalence` is diseased.

    The training samples teach the prevalence that they have as their loss weights them (Saerens et al. 2002).
    """
    diseased, healthy = float(weights_N[targets_N > 0].sum()), float(weights_N[targets_N == 0].sum())
    if min(diseased, healthy) == 0:
        return 0.0
    return math.log(diseased / healthy) - math.log(prevalence / (1 - prevalence))


class _Run:
    """One training run on one process: model, optimiser, how hard each sample is, and the best epoch so far."""

    def __init__(self, data: TrainingData, recipe: TrainRecipe, seed: int, workers: Workers) -> None:
        self.data, self.recipe, self.seed, self.workers = data, recipe, seed, workers
        self.tasks = recipe.model.tasks
        self.selecting = [task.name for task in self.tasks].index(recipe.selects)
        self.model = untrained(recipe.model, seed)
        if recipe.pretrained:
            for trunk in self.model.trunks():
                load_pretrained(trunk, recipe.pretrained)
        self.model.to(workers.device)
        # Copied before the model is wrapped. The tensors are looked up once: to look them up in every step, as torch's
        # AveragedModel does, takes four times as long as to average them.
        self.averaged = copy.deepcopy(self.model)
        self.parameters = list(self.model.parameters())
        self.floats, self.averaged_floats = _floats(self.model), _floats(self.averaged)
        self.resident = {id(samples): resident(samples, workers.device) for samples in (data.train, data.validation)}
        self.wrapped = workers.wrap(self.model)
        if recipe.compiled:
            self.wrapped.compile()
        self.optimizer = torch.optim.AdamW(_parameter_groups(self.model, recipe), lr=recipe.learning_rate, fused=True)
        self.losses_N = np.full(len(data.train), np.nan)
        self.entered_N = np.zeros(len(data.train), np.int64)
        self.best: State = {"score": math.inf, "epoch": -1, "model": {}}
        self.next_epoch = 0
        if saved := workers.resume():
            self.next_epoch = int(saved["epoch"])
            self.model.load_state_dict(saved["model"])
            self.averaged.load_state_dict(saved["averaged"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.losses_N = saved["losses"].numpy()
            self.entered_N = saved["entered"].numpy()
            self.best = saved["best"]

    def state(self, next_epoch: int) -> State:
        return {
            "epoch": next_epoch,
            "model": self.model.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "losses": torch.from_numpy(self.losses_N),
            "entered": torch.from_numpy(self.entered_N),
            "best": self.best,
        }

    # ---- training --------------------------------------------------------------------------------------------

    def one_epoch(self, epoch: int) -> dict[str, float]:
        """Train on the slices that self-pacing admits in `epoch`; gives the training metrics."""
        recipe, workers, train = self.recipe, self.workers, self.data.train
        share = selfpaced.share_at(epoch, recipe.epochs, recipe.pacing)
        admitted_N = selfpaced.admitted(self.losses_N, train.targets_TN[self.selecting], share)
        if recipe.pacing and epoch >= recipe.pacing.warm_epochs:
            self.entered_N[(self.entered_N == 0) & admitted_N] = epoch
        order = selfpaced.order(admitted_N, self.seed, epoch, recipe.epoch_slices)
        batches = selfpaced.batches(order, recipe.batch, workers.world)
        self.wrapped.train()
        started = time.monotonic()
        total = torch.zeros((), dtype=torch.float64, device=workers.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_mix(self.seed, epoch, workers.rank))  # dropout
            for step, batch in enumerate(batches):
                rate = recipe.learning_rate * learning_rate_factor(epoch + (step + 1) / len(batches), recipe)
                mine = selfpaced.rank_part(batch, workers.rank, workers.world)
                loss = self._step(len(batch), mine, rate, _mix(self.seed, epoch, step, workers.rank))
                total += loss * len(batch)
                self._average(first=epoch == step == 0)
        mean_loss = float(workers.sum(total)) / len(order)
        seconds = time.monotonic() - started
        self._average_buffers()
        if recipe.pacing and selfpaced.share_at(epoch + 1, recipe.epochs, recipe.pacing) < 1:
            self.losses_N = self._difficulty()
        return {
            "epoch": float(epoch),
            "loss": mean_loss,
            "learning_rate": rate,
            "admitted_share": share,
            "slices": float(len(order)),
            "slices_per_second": len(order) / seconds,
        }

    def _step(self, count: int, mine: npt.NDArray[np.int64], rate: float, augment_seed: int) -> Tensor:
        """One step on a batch of `count` samples, of which this process computes `mine`; gives its part of the loss."""
        train, device = self.data.train, self.workers.device
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        drawn = augment.draw(len(mine), self.recipe.augment, augment_seed, self.recipe.model.slices.pixel_mm)
        hu_NHW = augment.apply(self._pixels(train, mine), drawn)
        with autocast(device):
            logits = self.wrapped(hu_NHW)
        losses_TN = task_losses(logits, _to(train.targets_TN[:, mine], device), self.tasks, self.recipe.label_smoothing)
        # The loss is a mean over the whole batch. `wrapped` averages gradients over the processes: hence the factor.
        loss = weighted_loss(losses_TN, _to(train.weights_TN[:, mine], device), count, self.tasks)
        self.optimizer.zero_grad(set_to_none=True)
        (loss * self.workers.world).backward()
        nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip_norm, error_if_nonfinite=True)
        self.optimizer.step()
        return loss.detach()

    def _average(self, first: bool) -> None:
        """Update the averaged weights and running statistics; the first step copies the model's."""
        update = get_ema_multi_avg_fn(0.0 if first else self.recipe.average_decay)
        update(self.averaged_floats, self.floats, None)

    def _pixels(self, samples: Samples, indices: npt.NDArray[np.int64]) -> Tensor:
        """(len(indices), H, W) int16 HU on the device."""
        held_NHW = self.resident[id(samples)]
        if held_NHW is None:
            return samples.pixels(indices).to(self.workers.device)
        return held_NHW[torch.from_numpy(indices).to(held_NHW.device)]

    def _difficulty(self) -> npt.NDArray[np.float64]:
        """(N,) how hard each training sample is for the averaged weights, without augmentation, dropout or smoothing.

        The same model measures all samples: losses seen while training are of augmented slices and of many models.
        """
        samples = self.data.train
        losses_TN = torch.zeros(samples.targets_TN.shape, dtype=torch.float32, device=self.workers.device)
        for places, logits in self._evaluate(self.averaged, samples, np.arange(len(samples))):
            targets_TN = _to(samples.targets_TN[:, places], self.workers.device)
            losses_TN[:, places] = task_losses(logits, targets_TN, self.tasks, label_smoothing=0.0)
        return selfpaced.difficulty(self.workers.sum(losses_TN).cpu().numpy(), samples.targets_TN, self.tasks)

    def _average_buffers(self) -> None:
        """Give every process the mean of all processes' running statistics of the batch norms."""
        buffers = [*self.model.buffers(), *self.averaged.buffers()]
        running = [buffer for buffer in buffers if buffer.is_floating_point()]
        means = self.workers.sum(torch.cat([buffer.flatten() for buffer in running])) / self.workers.world
        for buffer, mean in zip(running, means.split([buffer.numel() for buffer in running]), strict=True):
            buffer.copy_(mean.view_as(buffer))

    # ---- validation -----------------------------------------------------------------------------------------

    def _evaluate(
        self, model: nn.Module, samples: Samples, indices: npt.NDArray[np.int64]
    ) -> Iterator[tuple[npt.NDArray[np.int64], dict[str, Tensor]]]:
        """Yields (positions in `indices`, logits of the samples there) for this process's part of `indices`."""
        model.eval()
        mine = selfpaced.rank_part(np.arange(len(indices)), self.workers.rank, self.workers.world)
        with torch.no_grad(), autocast(self.workers.device):
            for start in range(0, len(mine), EVALUATION_BATCH):
                places = mine[start : start + EVALUATION_BATCH]
                yield places, model(self._pixels(samples, indices[places]))

    def _probabilities(self, model: nn.Module) -> dict[str, npt.NDArray[np.float64]]:
        """Task -> (N, C) probabilities of all validation samples."""
        samples, device = self.data.validation, self.workers.device
        found = {task.name: torch.zeros((len(samples), len(task.classes)), device=device) for task in self.tasks}
        for places, logits in self._evaluate(model, samples, np.arange(len(samples))):
            for name, logits_NC in logits.items():
                found[name][places] = torch.softmax(logits_NC.float(), dim=1)
        return {name: self.workers.sum(prob_NC).cpu().double().numpy() for name, prob_NC in found.items()}

    def validate(self, epoch: int) -> dict[str, float]:
        """Measure the averaged weights on the validation patients and keep them if they are the best so far."""
        samples = self.data.validation
        prob = self._probabilities(self.averaged)
        rules = choose_rules(prob, samples, self.recipe)
        metrics = validation_metrics(prob, samples, self.recipe.model, rules, {})
        score = metrics[f"validation_log_loss_{self.recipe.selects}"]
        allowed = selfpaced.may_be_best(epoch, self.recipe.epochs, self.recipe.pacing)
        if allowed and score <= self.best["score"]:
            weights = {name: tensor.detach().cpu().clone() for name, tensor in self.averaged.state_dict().items()}
            self.best = {"score": score, "epoch": epoch, "model": weights}
        return metrics

    def finish(self) -> Trained:
        """The model of the best epoch, with all that is fitted on the validation patients."""
        model = self.model
        model.load_state_dict(self.best["model"])
        for number, task in enumerate(self.tasks):
            if task.name in self.recipe.prevalence:
                taught = (one[number] for one in (self.data.train.targets_TN, self.data.train.weights_TN))
                model.favour_negative(task.name, log_odds_of(self.recipe.prevalence[task.name], *taught))
        prob = self._probabilities(model)
        rules = choose_rules(prob, self.data.validation, self.recipe)
        temperatures = fit_temperatures(prob, self.data.validation, rules, self.recipe)
        prob = {name: tempered(prob_NC, temperatures[name]) for name, prob_NC in prob.items()}
        offsets = fit_offsets(prob, self.data.validation, rules, self.recipe)
        metrics = validation_metrics(prob, self.data.validation, self.recipe.model, rules, offsets)
        card = ModelCard(
            spec=self.recipe.model,
            rules=rules,
            temperatures=temperatures,
            offsets=offsets,
            recipe=self.recipe.model_dump(mode="json"),
            seed=self.seed,
            crops_digest=self.data.crops_digest,
            trained_on=self.data.trained_on,
            patients={part: len(its) for part, its in self.data.split.items()},
            split_digest=split_digest(self.data.split),
            metrics={**metrics, "best_epoch": float(self.best["epoch"])},
        )
        predictor = Predictor(model, card, self.workers.device)
        card = changed(card, canary=predictor.canary())
        doubts, familiar = fit_doubts(predictor, self.data, self.recipe, self.seed)
        if familiar is not None:
            model.register_buffer(FAMILIAR, torch.from_numpy(familiar))
        return Trained(model.cpu().eval(), changed(card, doubts=doubts), self.entered_N)


def _parameter_groups(model: nn.Module, recipe: TrainRecipe) -> list[dict[str, Any]]:
    """Weight decay for weights, none for biases and batch norms."""
    parameters = list(model.parameters())
    return [
        {"params": [one for one in parameters if one.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [one for one in parameters if one.ndim <= 1], "weight_decay": 0.0},
    ]


def _floats(model: nn.Module) -> list[Tensor]:
    """The weights and running statistics of `model`, without the batch norms' counters."""
    return [tensor.detach() for tensor in (*model.parameters(), *model.buffers()) if tensor.is_floating_point()]


def _to(array: npt.NDArray[Any], device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)


def _mix(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
