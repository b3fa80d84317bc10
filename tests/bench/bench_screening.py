"""Speed and useful share of the screening job on full-size studies from S3, against a plain script and MONAI.

Everything shares this machine's cores: a moto server in a process of its own, Ray with its processes, the model. The
job runs on eight studies and on all. The difference is the steady state; the rest of the first run is start-up (Ray,
torch, the model) and end. Useful work is the CPU time of each stage alone on one core: fetch (with the server's share),
decode, localise, cut, forward. The speed of a machine changes from minute to minute, so stages are measured before and
after the runs, and the mean counts.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import psutil

from spinemet.model.checkpoint import ModelCard, save_model, untrained
from spinemet.model.spec import ModelSpec
from spinemet.results.tables import connect
from tests.bench.bench_fetch import s3_server
from tests.bench.figures import Figures
from tests.bench.fullsize import CYCLE, SOURCES, folder_of, upload

STUDIES = 32
SHORT = len(CYCLE)
NIGHT = 500
ARCHIVE, MODEL = "s3://bench/archive", "s3://bench/model"
STAGES = ("fetch", "decode", "localise", "cut", "pictures", "forward")


@dataclass(frozen=True)
class Job:
    """One run of the job: wall seconds, and CPU seconds of every process of it and of the server."""

    seconds: float
    cpu_s: float


def run() -> Figures:
    """Seconds per study and studies per hour of the job and its rivals; the note says where the job's seconds go."""
    figures = Figures(
        f"Screening {STUDIES} full-size studies from S3 (moto), DenseNet-121 at 224 pixels",
        ("what", "s / study", "studies / h", "ratio"),
    )
    for source in SOURCES:
        folder_of(source)
    with s3_server():
        boto3.client("s3").create_bucket(Bucket="bench")
        spec = ModelSpec()
        save_model(MODEL, untrained(spec, 0), ModelCard(spec=spec))
        upload(ARCHIVE, STUDIES)
        server = next(p for p in psutil.Process().children() if "moto.server" in p.cmdline())
        before = stages_of_all(server)
        short, whole = screened(SHORT, server), screened(STUDIES, server)
        after = stages_of_all(server)
        keys = [f"study-{number:04d}" for number in range(SHORT)]
        slices = [after[0][source]["slices"] for source in CYCLE]
        plain, helped = (rival(name, ARCHIVE, json.dumps(keys)) for name in ("plain", "helped"))
        monai = rival("monai", ARCHIVE, json.dumps([keys[-1], *keys]), json.dumps([slices[-1], *slices]))
        forward = after[1]
    mean_slices = sum(slices) / SHORT
    each_time = [useful_seconds(stages, per_slice["spinemet"]) for stages, per_slice in (before, after)]
    useful = {name: statistics.mean(found[name] for found in each_time) for name in STAGES}
    server_s = statistics.mean(server_share(stages) for stages, _ in (before, after))
    steady = (whole.seconds - short.seconds) / (STUDIES - SHORT)
    start = short.seconds - SHORT * steady
    monai["seconds"] = monai["seconds"][1:]  # without the first, during which the workers start
    plain_s, helped_s, monai_s = (sum(each["seconds"]) / SHORT for each in (plain, helped, monai))
    for what, seconds in (
        ("spinemet, steady state", steady),
        (f"spinemet, a night of {NIGHT} with its start", steady + start / NIGHT),
        (f"spinemet, these {STUDIES} with their start", whole.seconds / STUDIES),
        ("plain script (boto3, pydicom, same localizer, torchvision float32)", plain_s),
        ("plain script with our fetch", helped_s),
        ("MONAI with our fetch (LoadImage, DenseNet121 2-D, 2 loader workers, no localizer)", monai_s),
    ):
        figures.add(what, seconds, 3600 / seconds, seconds / (steady + start / NIGHT))
    cores = os.cpu_count() or 1
    share = sum(useful.values()) / (steady * cores)
    parts = ", ".join(f"{name} {seconds:.2f}" for name, seconds in useful.items())
    cpu = (whole.cpu_s - short.cpu_s) / (STUDIES - SHORT)
    figures.note = (
        f"useful work per study, CPU s alone on one core: {parts} = {sum(useful.values()):.2f} "
        f"({' before and '.join(f'{sum(found.values()):.2f}' for found in each_time)} after the runs); over wall x "
        f"{cores} cores: {share:.2f} in the steady state, {share * steady * STUDIES / whole.seconds:.2f} with "
        f"the start; without the server's share of the fetch {share - server_s / (steady * cores):.2f}. "
        f"All processes used {cpu:.2f} CPU s per study. Start and end {start:.1f} s. {mean_slices:.0f} slices per "
        f"study classified; rivals' forward ms per slice on all cores: torchvision {forward['torchvision'] * 1e3:.0f}, "
        f"MONAI {forward['monai'] * 1e3:.0f}; ours on one core {forward['spinemet'] * 1e3:.0f}"
    )
    return figures


def useful_seconds(stages: dict[str, Any], forward_s: float) -> dict[str, float]:
    """Stage -> CPU seconds per study, the mean over the mix of studies."""
    useful = dict.fromkeys(STAGES, 0.0)
    for source in CYCLE:
        for name, seconds in stages[source]["seconds"].items():
            useful[name] += seconds / SHORT
        useful["fetch"] += stages[source]["server"] / SHORT
        useful["forward"] += stages[source]["slices"] * forward_s / SHORT
    return useful


def server_share(stages: dict[str, Any]) -> float:
    """CPU seconds of the S3 server per study."""
    return sum(stages[source]["server"] for source in CYCLE) / SHORT


def stages_of_all(server: psutil.Process) -> tuple[dict[str, Any], dict[str, float]]:
    """`stages_of` each source, and the seconds per slice of each model's forward pass."""
    return {source: stages_of(source, server) for source in SOURCES}, rival("forward", MODEL)


def stages_of(source: str, server: psutil.Process) -> dict[str, Any]:
    """The result of `rivals.stages`, and the server's CPU seconds per fetch of the study."""
    study = f"study-{CYCLE.index(source):04d}"
    before = cpu_seconds(server)
    found = rival("stages", ARCHIVE, study, str(folder_of(source)))
    return {**found, "server": (cpu_seconds(server) - before) / found["fetches"]}


def rival(*arguments: str) -> dict[str, Any]:
    """The JSON that a process of tests.bench.rivals prints."""
    command = [sys.executable, "-m", "tests.bench.rivals", *arguments]
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return json.loads(printed.splitlines()[-1])


def screened(studies: int, server: psutil.Process) -> Job:
    """Run `python jobs/screen.py` on the first `studies` of the archive, into new results."""
    results = f"s3://bench/results-{studies}-{time.time_ns()}"
    before, start = cpu_seconds(server), time.perf_counter()
    options = {
        "--archive": ARCHIVE,
        "--results": results,
        "--model": MODEL,
        "--limit": str(studies),
        "--dates": "exact",
    }
    job = subprocess.Popen(
        [sys.executable, "jobs/screen.py", "--ephemeral-key", *(word for pair in options.items() for word in pair)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.DEVNULL,
    )
    used: dict[int, float] = {}
    while job.poll() is None:
        for process in psutil.Process(job.pid).children(recursive=True):
            used[process.pid] = cpu_seconds(process)
        time.sleep(0.5)
    seconds = time.perf_counter() - start
    assert job.returncode == 0, f"expected the job to end with 0, found {job.returncode}"
    done = connect(results).sql("SELECT source_key FROM studies WHERE state = 'screened'").fetchall()
    assert len(done) == studies, f"expected {studies} studies screened, found {len(done)}"
    return Job(seconds, sum(used.values()) + cpu_seconds(server) - before)


def cpu_seconds(process: psutil.Process) -> float:
    """User and system seconds of a process so far, 0 if it has ended."""
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)
