"""Training speed of jobs/train.py on two workers, against plain PyTorch loops over the same model and slices.

All use the same crops, loss and optimiser, with `BATCH` slices per step, on all cores: the job as two processes, the
loops as one. Only steps count: starting Ray, reading crops, validation and the first epoch are left out. The figure of
a turn is the mean over its steps.

The job also augments, averages weights, clips and exchanges gradients, and keeps the loss of every sample. Its core is
timed without Ray too, as two processes of torch.distributed, because Ray's own twenty processes use part of a small
machine. The speed of a machine changes from minute to minute. So all take turns, with the bare loop before and after
the job, and the ratio is the median of the ratios of single turns.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
import torch.distributed
from torch.multiprocessing.spawn import spawn
from torch.utils.data import DataLoader, TensorDataset

from spinemet.config import changed, config_digest
from spinemet.model.checkpoint import untrained
from spinemet.model.inference import autocast
from spinemet.model.loss import task_losses, weighted_loss
from spinemet.on_ray.cluster import connect
from spinemet.on_ray.train import run_train
from spinemet.process.memory import KEEPING_ENVIRONMENT
from spinemet.training.config import TrainRecipe
from spinemet.training.crops import SCHEMA, CropsInfo, read_crops, write_manifest, write_shard
from spinemet.training.dataset import TrainingData, training_data
from spinemet.training.loop import train
from spinemet.training.recipes import recipe
from spinemet.training.workers import OneProcess
from spinemet.types import BONE_QUALITY, POSTEROLATERAL
from tests.bench.figures import Figures

WORKERS = 2
TURNS = 5
BATCH, EPOCHS = 32, 3
PATIENTS, LEVELS, SLICES = 32, 4, 3
"""256 of the slices are for training: eight steps an epoch. The first epoch is not timed."""


def run() -> Figures:
    """Slices per second of DenseNet-121 at 224 pixels, forward, backward and update; medians."""
    config = changed(recipe("final"), epochs=EPOCHS, batch=BATCH, pacing=None, test_share=0.0, validation_share=1 / 3)
    threads, cores = torch.get_num_threads(), os.cpu_count() or 1
    found: dict[str, list[float]] = {"job": [], "core": [], "plain": [], "slow": []}
    with tempfile.TemporaryDirectory() as folder:
        crops = str(Path(folder) / "crops")
        _write_crops(crops, config)
        data = training_data(read_crops(crops), config)
        torch.set_num_threads(cores)
        for turn in range(TURNS):
            before = _loop(config, data, steps=8)
            found["job"].append(_job(crops, str(Path(folder) / "runs"), str(turn), config))
            found["plain"].append(statistics.harmonic_mean([before, _loop(config, data, steps=8)]))
            found["core"].append(_core(crops, Path(folder) / f"core-{turn}", config))
            found["slow"].append(_slow_loop(config, data, steps=2))
        torch.set_num_threads(threads)
    figures = Figures(
        f"Training DenseNet-121 (recipe final) at {config.model.slices.size_px} pixels on {cores} cores",
        ("what learns", "slices/s", "least", "most", "jobs/train.py is faster by"),
        f"batch {BATCH}; medians of {TURNS} turns and of their ratios; start-up, validation and first epoch left out",
    )
    for name, what in (
        ("job", f"jobs/train.py, {WORKERS} workers"),
        ("core", f"its core without Ray, {WORKERS} processes"),
        ("plain", "bare PyTorch loop, bfloat16, channels last"),
        ("slow", "bare PyTorch loop, float32, channels first, DataLoader"),
    ):
        ratio = statistics.median(job / other for job, other in zip(found["job"], found[name], strict=True))
        figures.add(what, statistics.median(found[name]), min(found[name]), max(found[name]), ratio)
    return figures


def _job(crops: str, runs: str, name: str, config: TrainRecipe) -> float:
    """Slices per second of the timed epochs, on a Ray cluster of its own."""
    import ray

    connect()
    try:
        run_train(crops, runs, name, config, workers=WORKERS, device="cpu")
    finally:
        ray.shutdown()
    return statistics.harmonic_mean(_speeds(Path(runs) / name / "tensorboard")[1:])


class _Processes(OneProcess):
    """Several processes without Ray. Reports stay in memory, as with one process."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank, self.world = rank, WORKERS


def _core(crops: str, folder: Path, config: TrainRecipe) -> float:
    """Slices per second of the timed epochs of the loop that the job's workers run."""
    folder.mkdir()
    os.environ.update(KEEPING_ENVIRONMENT)  # inherited by the spawned processes, as by the job's workers
    spawn(_core_worker, (crops, str(folder), config), nprocs=WORKERS)
    for name in KEEPING_ENVIRONMENT:
        del os.environ[name]
    return float((folder / "slices_per_second").read_text())


def _core_worker(rank: int, crops: str, folder: str, config: TrainRecipe) -> None:
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // WORKERS))
    torch.distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=WORKERS)
    workers = _Processes(rank)
    train(training_data(read_crops(crops), config), config, 0, workers)
    if rank == 0:
        speed = statistics.harmonic_mean([epoch["slices_per_second"] for epoch in workers.history[1:]])
        (Path(folder) / "slices_per_second").write_text(str(speed))
    torch.distributed.destroy_process_group()


def _write_crops(uri: str, config: TrainRecipe) -> None:
    """Write crops of noise with labels: speed does not depend on the picture."""
    rng, size, shards = np.random.default_rng(0), config.model.slices.size_px, []
    for patient in range(PATIENTS):
        rows = [(f"T{level + 1}", n) for level in range(LEVELS) for n in range(SLICES)]
        columns: dict[str, list[object]] = {
            "patient": [f"p{patient:02d}"] * len(rows),
            "study": [f"s{patient:02d}"] * len(rows),
            "level": [level for level, _ in rows],
            "offset_mm": [3.0 * n for _, n in rows],
            "hu": [rng.normal(100, 200, (size, size)).astype("<i2").tobytes() for _ in rows],
            "bone_quality": [BONE_QUALITY[(patient + int(level[1:])) % 4] for level, _ in rows],
            "posterolateral": [POSTEROLATERAL[(patient + int(level[1:])) % 3] for level, _ in rows],
        }
        shards.append(write_shard(uri, pa.table(columns, schema=SCHEMA)))
    vertebrae = PATIENTS * LEVELS
    info = CropsInfo(
        slice_config=config.model.slices,
        config_digest=config_digest(config.model.slices),
        shards=tuple(shards),
        patients=PATIENTS,
        studies=PATIENTS,
        vertebrae=vertebrae,
        slices=vertebrae * SLICES,
        classes={},
    )
    write_manifest(uri, info)


def _speeds(curves: Path) -> list[float]:
    """Slices per second of each epoch, from the run's TensorBoard curves."""
    from tensorboard.backend.event_processing import event_accumulator  # type: ignore[import-untyped]

    found = event_accumulator.EventAccumulator(str(curves)).Reload()
    return [event.value for event in found.Scalars("slices_per_second")]


def _loop(config: TrainRecipe, data: TrainingData, steps: int) -> float:
    """Slices per second of a loop that a researcher could write for our model, with the crops in one tensor."""
    model = untrained(config.model, 0).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    train = data.train
    hu_NHW, targets_TN = train.pixels(np.arange(len(train))), torch.from_numpy(train.targets_TN)
    weights_TN = torch.from_numpy(train.weights_TN)
    times = []
    for step in range(steps + 1):
        picked = torch.randint(len(train), (BATCH,), generator=torch.Generator().manual_seed(step))
        start = time.perf_counter()
        with autocast(torch.device("cpu")):
            logits = model(hu_NHW[picked])
        losses_TN = task_losses(logits, targets_TN[:, picked], config.model.tasks, config.label_smoothing)
        weights = weights_TN[:, picked]
        optimizer.zero_grad(set_to_none=True)
        weighted_loss(losses_TN, weights, weights.sum(dim=1), config.model.tasks).backward()
        optimizer.step()
        times.append(time.perf_counter() - start)
    return BATCH / statistics.mean(times[1:])


def _slow_loop(config: TrainRecipe, data: TrainingData, steps: int) -> float:
    """The same without the hardware's help: float32, channels first, torch's own loader of samples."""
    model = untrained(config.model, 0).train().to(memory_format=torch.contiguous_format)
    windows = model.windows.forward
    model.windows.forward = lambda hu_NHW: windows(hu_NHW).contiguous()  # type: ignore[method-assign]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    train = data.train
    samples = TensorDataset(train.pixels(np.arange(len(train))), torch.from_numpy(train.targets_TN.T.copy()))
    batches = _forever(DataLoader(samples, batch_size=BATCH, shuffle=True, drop_last=True))
    times = []
    for _ in range(steps + 1):
        start = time.perf_counter()
        hu_NHW, targets_NT = next(batches)
        losses_TN = task_losses(model(hu_NHW), targets_NT.T, config.model.tasks, config.label_smoothing)
        optimizer.zero_grad(set_to_none=True)
        losses_TN.mean(dim=1).sum().backward()
        optimizer.step()
        times.append(time.perf_counter() - start)
    return BATCH / statistics.mean(times[1:])


def _forever(loader: DataLoader[tuple[torch.Tensor, ...]]) -> Iterator[tuple[torch.Tensor, ...]]:
    while True:
        yield from loader
