"""The fits of an ablation on a Ray cluster: one task each, as many at a time as the cluster has room for."""

from collections.abc import Iterator, Sequence
from functools import cache

from spinemet.errors import BadInput
from spinemet.evaluation.ablation import Fit, ablate, run_fit
from spinemet.evaluation.page import Page
from spinemet.files import normalize
from spinemet.on_ray.cluster import connect, parallel_tasks
from spinemet.progress import Progress, no_progress
from spinemet.training.config import TrainRecipe
from spinemet.training.crops import Crops, read_crops

MAX_RETRIES = 3
"""For a fit that loses its machine or process; it goes on from its stored state."""


def run_ablation(
    crops: str,
    truth: str,
    out: str,
    recipes: Sequence[TrainRecipe],
    folds: int,
    seeds: Sequence[int],
    progress: Progress = no_progress,
) -> Page:
    """Do what `ablate` does, with the fits run on the Ray cluster."""
    crops, truth, out = normalize(crops), normalize(truth), normalize(out)

    def run_fits(fits: Sequence[Fit]) -> Iterator[Fit]:
        connect()
        return _run_fits(fits, folds, crops, truth, out)

    return ablate(read_crops(crops), read_crops(truth), out, recipes, folds, seeds, run_fits, progress)


def _run_fits(fits: Sequence[Fit], folds: int, crops: str, truth: str, out: str) -> Iterator[Fit]:
    """Start the fits in their order, one per GPU (without GPUs: per core); yields each fit when it is stored."""
    import ray

    gpus = int(ray.cluster_resources().get("GPU", 0))
    task = ray.remote(num_cpus=1, num_gpus=1 if gpus else 0, max_retries=MAX_RETRIES)(_fit)
    room = len(fits) if gpus else (parallel_tasks() or len(fits))
    waiting = list(fits)
    running: dict[ray.ObjectRef[None], Fit] = {}
    while waiting or running:
        while waiting and len(running) < room:
            fit = waiting.pop(0)
            running[task.remote(fit, folds, crops, truth, out)] = fit
        (ended, *_), _ = ray.wait(list(running), num_returns=1)
        fit = running.pop(ended)
        try:
            ray.get(ended)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, BadInput):
                raise error.cause from error
            raise
        yield fit


def _fit(fit: Fit, folds: int, crops: str, truth: str, out: str) -> None:
    import torch

    from spinemet.model.inference import best_device

    device = best_device()
    if device.type == "cpu":
        torch.set_num_threads(1)
    run_fit(fit, folds, _crops(crops), _crops(truth), out, str(device))


@cache
def _crops(uri: str) -> Crops:
    """The crops, read once per worker process: Ray runs many fits in the same one."""
    return read_crops(uri)
