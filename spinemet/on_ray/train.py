"""Training on a Ray cluster: data-parallel workers around `training.loop`, with checkpoints on local or S3 storage.

A run that is requested again continues where it stopped, or is found finished.
"""

import os
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Literal

from spinemet.errors import BadInput
from spinemet.files import arrow_filesystem, exists, join, normalize
from spinemet.machine import usable_cores
from spinemet.model.checkpoint import load_card, save_model
from spinemet.on_ray.cluster import connect
from spinemet.process.memory import KEEPING_ENVIRONMENT
from spinemet.progress import Progress, no_progress
from spinemet.training.config import TrainRecipe
from spinemet.training.crops import read_crops
from spinemet.training.dataset import training_data
from spinemet.training.run import RunProgress, TrainJob, TrainRun, claim_run, show_progress, write_curves, write_pacing
from spinemet.training.workers import State, Workers

Device = Literal["auto", "cpu", "gpu"]

MAX_FAILURES = 3
"""How often a run restarts lost workers by itself."""
RESOURCE_ATTEMPTS = 10
"""Attempts of a minute each to get the resources; an autoscaler needs some. Without a limit Ray Train waits for
ever."""
MAX_CPU_WORKERS = 4
"""More processes on one machine's CPU do not train faster: each has fewer threads."""
STATE_FILE = "state.pt"


def run_train(
    crops: str,
    out: str,
    name: str,
    recipe: TrainRecipe,
    *,
    seed: int = 0,
    workers: int | None = None,
    device: Device = "auto",
    progress: Progress = no_progress,
) -> TrainRun:
    """Train `recipe` on the crops at `crops` and store the model at `out`/`name`/model.

    workers: processes; by default one per GPU of the cluster, or up to MAX_CPU_WORKERS if it has none. device: `gpu`
    also waits for GPUs that the cluster does not have yet. Raises BadInput if crops, run or resources do not fit.
    """
    run = claim_run(crops, out, name, recipe, seed)
    model_uri = join(run, "model")
    if exists(join(model_uri, "model.json")):
        return TrainRun(model_uri, load_card(model_uri), found_finished=True)
    connect()
    use_gpu, count = _resources(workers, device)
    job = TrainJob(crops=normalize(crops), run=run, recipe=recipe, seed=seed)
    with show_progress(job, progress):
        _fit(job, normalize(out), name, use_gpu, count)
    return TrainRun(model_uri, load_card(model_uri), found_finished=False)


def _resources(workers: int | None, device: Device) -> tuple[bool, int]:
    """Whether to use GPUs, and how many workers."""
    import ray

    resources = ray.cluster_resources()
    gpus, cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 0))
    is_joined = bool(os.environ.get("RAY_ADDRESS"))
    use_gpu = device == "gpu" or (device == "auto" and gpus > 0)
    if workers is None:
        here = (cpus or MAX_CPU_WORKERS) if is_joined else usable_cores()
        workers = max(gpus, 1) if use_gpu else min(MAX_CPU_WORKERS, here)
    if workers < 1:
        raise BadInput(f"expected at least 1 worker, found {workers}.")
    # A cluster that was joined may grow; a local one never does.
    kind, there = ("GPU", gpus) if use_gpu else ("CPU", cpus)
    if workers > there and not is_joined:
        raise BadInput(f"expected at most {there} workers, one per {kind} of this machine, found {workers}.")
    return use_gpu, workers


def _fit(job: TrainJob, storage: str, name: str, use_gpu: bool, workers: int) -> None:
    # ray.train has these classes under the same names, but type checkers see those of version 1 there.
    from ray.train.torch import TorchConfig
    from ray.train.v2.api.config import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.torch.torch_trainer import TorchTrainer

    filesystem, path = arrow_filesystem(storage)
    trainer = TorchTrainer(
        partial(train_worker, job),
        torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo", timeout_s=600),
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=use_gpu),
        run_config=RunConfig(
            name=name,
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=MAX_FAILURES, controller_failure_limit=RESOURCE_ATTEMPTS),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            # A worker trains in its second thread; these settings keep that thread's freed memory too.
            worker_runtime_env={"env_vars": KEEPING_ENVIRONMENT},
        ),
    )
    trainer.fit()


def train_worker(job: TrainJob) -> None:
    """The work of each worker process; rank 0 stores the results.

    Data that cannot be used is reported in the progress file, because Ray retries exceptions.
    """
    import torch

    from spinemet.training.loop import train

    try:
        data = training_data(read_crops(job.crops), job.recipe)
    except BadInput as error:
        RunProgress(attempt=job.attempt, refusal=str(error)).write(job.run)
        return
    workers = _RayWorkers(job)
    if workers.device.type == "cpu":
        torch.set_num_threads(max(1, usable_cores() // workers.local_world))
    trained = train(data, job.recipe, job.seed, workers)
    if workers.rank == 0:
        if job.recipe.pacing:
            write_pacing(job.run, data, trained.entered_N, job.recipe)
        save_model(join(job.run, "model"), trained.model, trained.card, data.pseudonyms, data.pseudonym_key_id)


class _RayWorkers(Workers):
    """The workers of Ray Train."""

    def __init__(self, job: TrainJob) -> None:
        import ray.train
        import ray.train.torch

        context = ray.train.get_context()
        super().__init__(context.get_world_rank(), context.get_world_size(), ray.train.torch.get_device())
        self.local_world: int = context.get_local_world_size()
        self._run, self._progress = job.run, RunProgress(attempt=job.attempt)

    def report(self, metrics: Mapping[str, float], state: State) -> None:
        import ray.train
        import torch

        if self.rank != 0:
            ray.train.report(dict(metrics))
            return
        with tempfile.TemporaryDirectory() as folder:
            torch.save(state, Path(folder) / STATE_FILE)
            ray.train.report(dict(metrics), checkpoint=ray.train.Checkpoint.from_directory(folder))
        write_curves(self._run, metrics)
        self._progress.epochs.append(dict(metrics))
        self._progress.write(self._run)

    def resume(self) -> State | None:
        import ray.train
        import torch

        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return None
        with checkpoint.as_directory() as folder:
            state: State = torch.load(Path(folder) / STATE_FILE, map_location="cpu", weights_only=True)
        return state
