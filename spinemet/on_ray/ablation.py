"""The fits of an ablation on a Ray cluster: one task each, as many at a time as the cluster has room for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from spinemet.errors import BadInput
from spinemet.evaluation.ablation import Fit, Plan, check_truth, run_fit, unfinished, write_ablation
from spinemet.evaluation.page import Page
from spinemet.files import claim, join, normalize
from spinemet.on_ray.cluster import connect, parallel_tasks
from spinemet.progress import Progress, no_progress
from spinemet.training.config import TrainRecipe
from spinemet.training.crops import Crops, read_crops
from spinemet.training.dataset import check_crops

MAX_RETRIES = 3
"""Of a fit that loses its machine or process; it goes on from its stored state."""


def run_ablation(
    crops: str,
    truth: str,
    out: str,
    recipes: Sequence[TrainRecipe],
    folds: int,
    seeds: Sequence[int],
    progress: Progress = no_progress,
) -> Page:
    """Fit every recipe to every fold with every seed, write the comparison to `out` and give its page.

    crops: the slices to learn from. truth: the same slices with the labels to measure against. The first recipe is the
    baseline. Fits already stored below `out` are kept. Raises BadInput if the two sets do not match each other or the
    recipes, or if `out` holds other fits.
    """
    crops, truth, out = normalize(crops), normalize(truth), normalize(out)
    to_learn, to_measure = read_crops(crops), read_crops(truth)
    check_truth(to_learn, to_measure)
    for recipe in recipes:
        check_crops(to_learn.info, recipe)
    plan = Plan(crops_digest=to_learn.digest, truth_digest=to_measure.digest, folds=folds)
    claim(join(out, "plan.json"), plan)
    # Seeds in the outer loop: after an early stop, all recipes can be compared over the finished seeds.
    fits = [Fit(recipe, fold, seed) for seed in seeds for fold in range(folds) for recipe in recipes]
    run_fits(crops, truth, out, fits, folds, progress)
    return write_ablation(out, fits, plan)


def run_fits(
    crops: str, truth: str, out: str, fits: Sequence[Fit], folds: int, progress: Progress = no_progress
) -> None:
    """Run the fits that have no result below `out`, in their order and one per GPU (without GPUs: per core)."""
    import ray

    waiting = unfinished(out, fits)
    done = len(fits) - len(waiting)
    progress(done, len(fits), "finished before" if done else "")
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
    """The crops, read once per worker process: Ray runs many fits in the same one."""
    return read_crops(uri)
