"""The fits of an ablation on a Ray cluster: one task each, as many at a time as the cluster has room for."""

from collections.abc import Iterator, Sequence
from functools import cache

from spinemet.errors import BadInput
from spinemet.evaluation.ablation import Fit, ablate, run_fit
from spinemet.evaluation.page import Page
from spinemet.evaluation.sources import Source, read_source
from spinemet.files import normalize
from spinemet.on_ray.cluster import connect, parallel_tasks
from spinemet.progress import Progress, no_progress
from spinemet.training.config import TrainRecipe

Data = tuple[str, str, int, tuple[int, ...]]
"""The arguments of `read_source`."""
MAX_RETRIES = 3
"""For a fit that loses its machine or process; it goes on from its stored state."""


def run_ablation(
    data: Data, out: str, recipes: Sequence[TrainRecipe], seeds: Sequence[int], progress: Progress = no_progress
) -> Page:
    """Do what `ablate` does to the data of `read_source`, with the fits run on the Ray cluster."""
    out, (crops, truth, folds, sizes) = normalize(out), data
    data = (normalize(crops), normalize(truth), folds, sizes)

    def run_fits(fits: Sequence[Fit]) -> Iterator[Fit]:
        connect()
        return _run_fits(fits, data, out)

    return ablate(read_source(*data), out, recipes, seeds, run_fits, progress)


def _run_fits(fits: Sequence[Fit], data: Data, out: str) -> Iterator[Fit]:
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
            running[task.remote(fit, data, out)] = fit
        (ended, *_), _ = ray.wait(list(running), num_returns=1)
        fit = running.pop(ended)
        try:
            ray.get(ended)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, BadInput):
                raise error.cause from error
            raise
        yield fit


def _fit(fit: Fit, data: Data, out: str) -> None:
    import torch

    from spinemet.model.inference import best_device

    device = best_device()
    if device.type == "cpu":
        torch.set_num_threads(1)
    run_fit(fit, _source(data), out, str(device))


@cache
def _source(data: Data) -> Source:
    """The data, read once per worker process: Ray runs many fits in the same one."""
    return read_source(*data)
