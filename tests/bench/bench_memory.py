"""Memory of the screening job: for studies of 1,000 slices of 512 x 512, and for 200 small studies in a row.

Runs the real job on a local Ray cluster with archive and results on S3 (moto) and DenseNet-121, and measures each of
its processes several times a second. Memory is proportional set size, which counts shared pages once.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import obstore
import psutil
import pydicom

from spinemet.config import SliceConfig
from spinemet.files import open_store
from spinemet.model.checkpoint import ModelCard, save_model, untrained
from spinemet.model.spec import DenseNetSpec, ModelSpec
from spinemet.phantom.dicom import ct_series, encode_one
from spinemet.phantom.plan import derived_uid
from spinemet.phantom.scan import render
from tests.bench.bench_fetch import s3_server
from tests.bench.figures import Figures
from tests.bench.fullsize import folder_of, phantom_plan, renamed, study_uids

LARGE, SMALL = 3, 200
"""How many studies of 1,000 slices, of which two are read at a time, and how many small ones."""
HALF = "500"
"""The phantom whose slices `doubled` makes 1,000 of."""
EARLY = 50
KINDS = {"ray::Map(read_row)": "reading task", "ray::MapWorker(": "model actor"}
PROJECT = Path(__file__).parents[2]


def run() -> Figures:
    """Peak memory of each kind of process, and how much 150 more studies add to the driver."""
    figures = Figures(
        "Memory of a screening", ("what", "MB", "limit MB"), "peaks of proportional set size, the largest of each kind"
    )
    with s3_server():
        boto3.client("s3").create_bucket(Bucket="memory")
        upload("s3://memory/large", list(doubled()), LARGE)
        upload("s3://memory/small", list(small()), SMALL)
        whole, small_model = ModelSpec(), _small_model()
        for name, spec in (("whole", whole), ("small", small_model)):
            save_model(f"s3://memory/{name}", untrained(spec, 0), ModelCard(spec=spec))
        peaks, _ = watched("large", "whole")
        for kind, peak in sorted(peaks.items()):
            figures.add(
                f"1,000 slices: {kind}", peak, {"object store": "1,000", "Ray": "", "driver": ""}.get(kind, "2,000")
            )
        _, by_done = watched("small", "small")
    early, late = (next(mb for done, mb in by_done if done >= least) for least in (EARLY, SMALL))
    figures.add(f"driver after {EARLY} small studies", early, "")
    figures.add(f"driver after {SMALL} small studies", late, round(early * 1.1))
    return figures


def watched(archive: str, model: str) -> tuple[dict[str, float], list[tuple[int, float]]]:
    """Peak MB by kind of process of a run, and (studies done, MB of the driver) during it."""
    places = [f"s3://memory/{name}" for name in (archive, f"results-{archive}", model)]
    driver = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.bench_memory", *places], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    )
    peaks: dict[str, float] = {}
    while driver.poll() is None:
        for process in _family(driver.pid):
            for kind, megabytes in _held(process, driver.pid):
                peaks[kind] = max(peaks.get(kind, 0.0), megabytes)
        time.sleep(0.2)
    assert driver.returncode == 0, f"expected the job to end with 0, found {driver.returncode}"
    assert driver.stdout is not None
    return peaks, json.loads(driver.stdout.read().splitlines()[-1])


def _family(pid: int) -> list[psutil.Process]:
    try:
        driver = psutil.Process(pid)
        return [driver, *driver.children(recursive=True)]
    except psutil.Error:
        return []


def _held(process: psutil.Process, driver: int) -> Iterator[tuple[str, float]]:
    """(kind, MB) of a process. The raylet's shared pages are the object store."""
    try:
        name = " ".join(process.cmdline())
        if "forkserver" in name:
            kind = "reading child"
        elif process.pid == driver:
            kind = "driver"
        else:
            kind = next((kind for start, kind in KINDS.items() if name.startswith(start)), "Ray")
        if "raylet/raylet" in name:
            yield "object store", process.memory_info().shared / 1e6
        else:
            yield kind, process.memory_full_info().pss / 1e6
    except psutil.Error:
        return


def doubled() -> Iterator[bytes]:
    """The phantom of 500 slices with the mean of two neighbours between them: 1,000 slices at half the distance."""
    slices = [pydicom.dcmread(path) for path in sorted(folder_of(HALF).iterdir())]
    for number, (one, following) in enumerate(zip(slices, [*slices[1:], slices[-1]], strict=True)):
        yield encode_one(one)
        between = pydicom.dcmread(BytesIO(encode_one(one)))
        pixels = (one.pixel_array.astype(np.uint32) + following.pixel_array) // 2
        between.PixelData = pixels.astype("<u2").tobytes()
        step = float(slices[1].ImagePositionPatient[2]) - float(slices[0].ImagePositionPatient[2])
        x, y, z = one.ImagePositionPatient
        between.ImagePositionPatient = [x, y, round(float(z) + step / 2, 4)]
        between.SOPInstanceUID = between.file_meta.MediaStorageSOPInstanceUID = derived_uid("between", number)
        yield encode_one(between)


def small() -> Iterator[bytes]:
    """A study of 40 slices of 128 x 128."""
    plan = phantom_plan(40)
    scan = plan.scans[0]
    _, row, column = scan.spacing
    coarse = replace(scan, shape=(40, 128, 128), spacing=(5.0, row * 2, column * 2), thickness=5.0)
    plan = replace(plan, scans=(coarse,))
    yield from map(encode_one, ct_series(plan, 0, render(plan.patient.anatomy, coarse).volume))


def upload(archive: str, objects: list[bytes], copies: int) -> None:
    """Put `copies` studies of the same `objects` below `archive`, each under its own UIDs."""
    store, uids = open_store(archive), study_uids(objects[0])
    with ThreadPoolExecutor(4) as pool:
        for copy in range(copies):
            contents = [renamed(content, uids, copy) for content in objects]
            keys = [f"study-{copy:04d}/{number:04d}.dcm" for number in range(len(objects))]
            list(pool.map(lambda key, content: obstore.put(store, key, content), keys, contents))


def _small_model() -> ModelSpec:
    network = DenseNetSpec(growth_rate=4, block_config=(1, 1, 1, 1), init_features=8)
    return ModelSpec(backbone=network, slices=SliceConfig(size_px=32, pixel_mm=3.5, step_mm=12.0))


def main() -> None:
    """Run the job as its driver. Print (studies done, MB of this process) during the run, as JSON."""
    from spinemet.on_ray.screen import run_screen
    from spinemet.screening.plan import ScreenOptions

    archive, results, model = sys.argv[1:]
    me, seen = psutil.Process(), []

    def progress(done: int, _total: int, _text: str = "") -> None:
        seen.append((done, me.memory_info().rss / 1e6))

    run: Any = run_screen(ScreenOptions(archive, results, model, b"a key for the benchmark only"), progress)
    assert run.studies, "expected studies"
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
