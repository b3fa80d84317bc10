"""The fits of an ablation spread over a Ray cluster: one task each, as many at a time as there is room for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from spinemet.errors import BadInput
from spinemet.evaluation.ablation import Fit, Plan, check_truth, run_fit, unfinished, write_ablation
from spinemet.files import claim, join, normalize
from spinemet.on_ray.cluster import connect, parallel_tasks
from spinemet.progress import Progress, no_progress
from spinemet.training.config import TrainRecipe
from spinemet.training.crops import Crops, read_crops
from spinemet.training.dataset import check_crops

MAX_RETRIES = 3
"""Of a fit whose machine or process is lost; it goes on from its stored state."""


def run_ablation(
    crops: str,
    truth: str,
    out: str,
    recipes: Sequence[TrainRecipe],
    folds: int,
    seeds: Sequence[int],
    progress: Progress = no_progress,
) -> str:
    """Fit every recipe to every fold with every seed, and write what comes out to `out`; gives it as Markdown.

    crops: what is learned from; truth: the same slices with the labels to be measured against. The first recipe is
    the baseline. A fit that has a result below `out` is not repeated. Raises BadInput where the sets do not fit each
    other or the recipes, or `out` holds other fits.
    """
    crops, truth, out = normalize(crops), normalize(truth), normalize(out)
    learned, measured = read_crops(crops), read_crops(truth)
    check_truth(learned, measured)
    for one in recipes:
        check_crops(learned.info, one)
    plan = Plan(crops_digest=learned.digest, truth_digest=measured.digest, folds=folds)
    claim(join(out, "plan.json"), plan)
    # Seeds outermost: stopped early, there is a comparison of all recipes for the seeds that are through.
    fits = [Fit(one, fold, seed) for seed in seeds for fold in range(folds) for one in recipes]
    run_fits(crops, truth, out, fits, folds, progress)
    return write_ablation(out, fits, plan)


def run_fits(
    crops: str, truth: str, out: str, fits: Sequence[Fit], folds: int, progress: Progress = no_progress
) -> None:
    """Run those of `fits` that have no result below `out` yet, in their order: on a GPU each, or a core where there is
    none; each is stored as it ends."""
    import ray

    waiting = unfinished(out, fits)
    done = len(fits) - len(waiting)
    progress(done, len(fits), "found finished" if done else "")
    if not waiting:
        return
    connect()
    gpus = int(ray.cluster_resources().get("GPU", 0))
    task = ray.remote(num_cpus=1, num_gpus=1 if gpus else 0, max_retries=MAX_RETRIES)(_fit)
    room = len(waiting) if gpus else (parallel_tasks() or len(waiting))
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
        done += 1
        progress(done, len(fits), fit.key.removeprefix("fits/"))


def _fit(fit: Fit, folds: int, crops: str, truth: str, out: str) -> None:
    import torch

    from spinemet.model.precision import best_device

    device = best_device()
    if device.type == "cpu":
        torch.set_num_threads(1)
    run_fit(fit, folds, _crops(crops), _crops(truth), out, str(device))


@cache
def _crops(uri: str) -> Crops:
    """This worker process's copy: Ray reuses its workers, so the crops are read once for many fits."""
    return read_crops(uri)
