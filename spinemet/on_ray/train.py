"""Training on a Ray cluster: data-parallel workers around `training.loop`, checkpoints to local or S3 storage.

A run is a folder RUNS/NAME: `run.json` (what was asked for), `progress.json` (what the workers tell the driver), Ray
Train's checkpoints, `tensorboard/`, and in the end `model/`. Asking for the same run again goes on where it stopped, or
finds it finished.
"""

from __future__ import annotations

import io
import os
import re
import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from spinemet.errors import BadInput
from spinemet.files import arrow_filesystem, exists, join, normalize, read_bytes, write_bytes
from spinemet.model.backbone import Trunk, load_pretrained
from spinemet.model.checkpoint import ModelCard, load_card, save_model
from spinemet.on_ray.cluster import connect
from spinemet.process.memory import KEEPING_ENVIRONMENT
from spinemet.progress import Progress, no_progress
from spinemet.training.crops import read_crops, read_info
from spinemet.training.dataset import TrainingData, admissions, check_crops, training_data
from spinemet.training.distributed import Distributed
from spinemet.training.pacing_figure import pacing_figure
from spinemet.training.recipes import TrainRecipe

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Device = Literal["auto", "cpu", "gpu"]

MAX_FAILURES = 3
"""Times that a run recovers by itself from lost workers."""
START_ATTEMPTS = 10
"""Of a minute each, to get the resources; an autoscaler needs some. Without a limit Ray Train would wait for ever."""
READ_EVERY_S = 2.0
"""How often the driver reads what workers tell; epochs are longer."""
MAX_CPU_WORKERS = 4
"""More processes on one machine's CPU do not train this faster: each has fewer threads."""
STATE_FILE = "state.pt"
PROGRESS_FILE = "progress.json"


class RunRequest(BaseModel):
    """What a run was asked for; a run of the same name must ask for the same."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: dict[str, Any]
    seed: int
    crops_digest: str


class RunProgress(BaseModel):
    """What the workers of one attempt at a run told so far: its epochs' metrics, or why they cannot train.

    A file and no actor between workers and driver: each Ray process wakes 100 times a second on the cores that train.
    """

    attempt: str
    epochs: list[dict[str, float]] = []
    refusal: str = ""


@dataclass(frozen=True)
class TrainRun:
    """A finished run: where its model is, its card, and whether it was finished before."""

    model_uri: str
    card: ModelCard
    found_finished: bool


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
    """Train `recipe` on the crops at `crops`; the model is at `out`/`name`/model in the end.

    workers: processes; by default one per GPU of the cluster, or up to MAX_CPU_WORKERS where there is none. `gpu`
    also waits for GPUs that the cluster does not show yet. Raises BadInput where crops, run or resources do not fit.
    """
    where = _claim(crops, out, name, recipe, seed)
    model_uri = join(where, "model")
    if exists(join(model_uri, "model.json")):
        return TrainRun(model_uri, load_card(model_uri), found_finished=True)
    connect()
    use_gpu, count = _resources(workers, device)
    job = {
        "crops": normalize(crops),
        "where": where,
        "recipe": recipe.model_dump(mode="json"),
        "seed": seed,
        "attempt": uuid.uuid4().hex,
    }
    with _told(job, progress) as told:
        _fit(job, normalize(out), name, use_gpu, count)
    if told.refusal:
        raise BadInput(told.refusal)
    return TrainRun(model_uri, load_card(model_uri), found_finished=False)


def _claim(crops: str, out: str, name: str, recipe: TrainRecipe, seed: int) -> str:
    """The folder of the run, with its request written or found there to be the same."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise BadInput(f"expected a run name of letters, digits, dots, dashes and underscores, found {name!r}.")
    info = read_info(crops)
    check_crops(info, recipe)
    if recipe.pretrained:
        load_pretrained(Trunk(recipe.model.backbone), recipe.pretrained)
    where = join(out, name)
    asked = RunRequest(recipe=recipe.model_dump(mode="json"), seed=seed, crops_digest=info.digest)
    place = join(where, "run.json")
    if not exists(place):
        write_bytes(place, (asked.model_dump_json(indent=2) + "\n").encode())
        return where
    try:
        found = RunRequest.model_validate_json(read_bytes(place))
    except ValidationError as error:
        raise BadInput(f"expected a run of SpineMet at {where}, found another run.json.") from error
    different = [field for field in RunRequest.model_fields if getattr(asked, field) != getattr(found, field)]
    if different:
        raise BadInput(
            f"expected the run {name} to ask for what it began with, found another {' and '.join(different)}; "
            f"give the run another name."
        )
    return where


def _resources(workers: int | None, device: Device) -> tuple[bool, int]:
    """Whether to use GPUs, and how many workers."""
    import ray

    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0))
    use_gpu = device == "gpu" or (device == "auto" and gpus > 0)
    if workers is None:
        workers = max(gpus, 1) if use_gpu else min(MAX_CPU_WORKERS, os.cpu_count() or 1)
    if workers < 1:
        raise BadInput(f"expected at least 1 worker, found {workers}.")
    # A cluster that was joined may grow; a local one never does.
    kind, there = ("GPU", gpus) if use_gpu else ("CPU", int(resources.get("CPU", 0)))
    if workers > there and not os.environ.get("RAY_ADDRESS"):
        raise BadInput(f"expected at most {there} workers, one per {kind} of this machine, found {workers}.")
    return use_gpu, workers


def _fit(job: dict[str, Any], storage: str, name: str, use_gpu: bool, workers: int) -> None:
    # TorchTrainer and the rest are what ray.train has under the same names, which types show as V1's.
    from ray.train.torch import TorchConfig
    from ray.train.v2.api.config import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.torch.torch_trainer import TorchTrainer

    filesystem, path = arrow_filesystem(storage)
    trainer = TorchTrainer(
        _work,
        train_loop_config=job,
        torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo", timeout_s=600),
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=use_gpu),
        run_config=RunConfig(
            name=name,
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=MAX_FAILURES, controller_failure_limit=START_ATTEMPTS),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            # Ray Train trains in a second thread of the worker.
            worker_runtime_env={"env_vars": KEEPING_ENVIRONMENT},
        ),
    )
    trainer.fit()


# ---- in the workers -------------------------------------------------------------------------------------------


def _work(job: dict[str, Any]) -> None:
    """What each worker does. Data that cannot be used is told to the driver: raised, it would be tried again."""
    import torch

    from spinemet.training.loop import train

    recipe = TrainRecipe.model_validate(job["recipe"])
    try:
        data = training_data(read_crops(job["crops"]), recipe)
    except BadInput as error:
        _tell(job["where"], RunProgress(attempt=job["attempt"], refusal=str(error)))
        return
    workers = _RayWorkers(job)
    if workers.device.type == "cpu":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers.local_world))
    trained = train(data, recipe, job["seed"], workers)
    if workers.rank == 0:
        if recipe.pacing:
            _write_pacing(job["where"], data, trained.entered_N, recipe)
        save_model(join(job["where"], "model"), trained.model, trained.card)


def _write_pacing(where: str, data: TrainingData, entered_N: npt.NDArray[np.int64], recipe: TrainRecipe) -> None:
    """pacing.parquet (one row per training slice: its row in the crops, its class, the epoch in which self-pacing
    first admitted it) and pacing.png."""
    table = admissions(data.train, entered_N, recipe)
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    write_bytes(join(where, "pacing.parquet"), buffer.getvalue())
    write_bytes(join(where, "pacing.png"), pacing_figure(table, recipe.model.task(recipe.selects).classes))


class _RayWorkers(Distributed):
    """`training.loop.Workers` on torch.distributed and Ray Train."""

    def __init__(self, job: dict[str, Any]) -> None:
        import ray.train
        import ray.train.torch

        context = ray.train.get_context()
        super().__init__(context.get_world_rank(), context.get_world_size(), ray.train.torch.get_device())
        self.local_world: int = context.get_local_world_size()
        self._where: str = job["where"]
        self._told = RunProgress(attempt=job["attempt"])

    def report(self, metrics: Mapping[str, float], state: dict[str, Any]) -> None:
        import ray.train
        import torch

        if self.rank != 0:
            ray.train.report(dict(metrics))
            return
        with tempfile.TemporaryDirectory() as folder:
            torch.save(state, Path(folder) / STATE_FILE)
            ray.train.report(dict(metrics), checkpoint=ray.train.Checkpoint.from_directory(folder))
        write_curves(join(self._where, "tensorboard"), metrics)
        self._told.epochs.append(dict(metrics))
        _tell(self._where, self._told)

    def resume(self) -> dict[str, Any] | None:
        import ray.train
        import torch

        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return None
        with checkpoint.as_directory() as folder:
            state: dict[str, Any] = torch.load(Path(folder) / STATE_FILE, map_location="cpu", weights_only=True)
        return state


def write_curves(uri: str, metrics: Mapping[str, float]) -> None:
    """Add one epoch's `metrics` to the TensorBoard curves at `uri`, as one event file of its own.

    A file per epoch needs no appending, which object stores do not have, and a resumed run overwrites its epochs.
    """
    from torch.utils.tensorboard import SummaryWriter

    epoch = int(metrics["epoch"])
    with tempfile.TemporaryDirectory() as folder:
        with SummaryWriter(folder) as writer:
            for name, value in metrics.items():
                if name != "epoch":
                    writer.add_scalar(name.replace("validation_", "validation/", 1), value, epoch)
        for file in Path(folder).iterdir():
            write_bytes(join(uri, f"events.out.tfevents.{epoch:06d}"), file.read_bytes())


# ---- from the workers to the driver ---------------------------------------------------------------------------


def _tell(where: str, told: RunProgress) -> None:
    write_bytes(join(where, PROGRESS_FILE), told.model_dump_json().encode())


class _Told:
    """The driver's side: shows each epoch once, and keeps a refusal."""

    def __init__(self, job: Mapping[str, Any], progress: Progress) -> None:
        self.refusal = ""
        self._place, self._attempt = join(job["where"], PROGRESS_FILE), job["attempt"]
        self._recipe, self._progress = TrainRecipe.model_validate(job["recipe"]), progress
        self._shown = 0
        progress(0, self._recipe.epochs, "starting")

    def read(self) -> None:
        """Take in what was told since the last time; nothing is told yet where the file is missing or of before."""
        try:
            told = RunProgress.model_validate_json(read_bytes(self._place))
        except (BadInput, ValidationError):
            return
        if told.attempt != self._attempt:
            return
        self.refusal = told.refusal
        for metrics in told.epochs:
            if (done := int(metrics["epoch"]) + 1) > self._shown:
                self._progress(done, self._recipe.epochs, _note(metrics, self._recipe.selects))
                self._shown = done

    def keep_reading(self, stop: threading.Event) -> None:
        while not stop.wait(READ_EVERY_S):
            self.read()


@contextmanager
def _told(job: Mapping[str, Any], progress: Progress) -> Iterator[_Told]:
    """What the workers tell, read by a thread while the driver waits for the run, and once more at its end."""
    told, stop = _Told(job, progress), threading.Event()
    reader = threading.Thread(target=told.keep_reading, args=(stop,), daemon=True)
    reader.start()
    try:
        yield told
    finally:
        stop.set()
        reader.join()
    told.read()


def _note(metrics: Mapping[str, float], selects: str) -> str:
    log_loss, macro = (metrics[f"validation_{name}_{selects}"] for name in ("log_loss", "macro_sensitivity"))
    return f"loss {metrics['loss']:.2f}, validation log loss {log_loss:.2f}, macro sensitivity {macro:.2f}"
