"""The rivals of a screening: a plain script, and MONAI. Also the stages of our own reading alone. Prints JSON.

    python -m tests.bench.rivals plain|helped|monai|stages|forward ARCHIVE MODEL KEY…

The rivals' start-up does not count: their clock starts at the first byte of the first study, after imports, the model
and a batch to warm up. MONAI and the script `helped` use the fastest fetch that we know (obstore, threads). The script
`plain` requests one object after another, as boto3's documentation does.
"""

from __future__ import annotations

import io
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import boto3
import numpy as np
import numpy.typing as npt
import obstore
import pydicom

from spinemet.archive.layouts.folder import READ_THREADS
from spinemet.archive.listing import study_at
from spinemet.config import StudyConfig
from spinemet.files import open_store
from spinemet.process.memory import keep_memory
from spinemet.spine.canal import straighten
from spinemet.spine.localize import localize
from spinemet.spine.slices import cut_slices
from spinemet.study import read_volume_of
from spinemet.types import Volume

T = TypeVar("T")
SIZE = 224
BATCH = 32


def fetched(archive: str, study: str) -> dict[str, bytes]:
    """Every object of the study, by name."""
    store = open_store(archive)
    keys = [meta["path"] for page in obstore.list(store, prefix=f"{study}/") for meta in page]
    with ThreadPoolExecutor(READ_THREADS) as pool:
        return dict(zip(keys, pool.map(lambda key: bytes(obstore.get(store, key).bytes()), keys), strict=True))


def fetched_plainly(archive: str, study: str) -> dict[str, bytes]:
    """The same objects, requested one after another."""
    bucket, _, root = archive.removeprefix("s3://").partition("/")
    client = boto3.client("s3")
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{root}/{study}/")
    keys = [each["Key"] for page in pages for each in page["Contents"]]
    return {key: client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}


def plain(archive: str, studies: list[str], fetch: Callable[[str, str], dict[str, bytes]]) -> dict[str, Any]:
    """Seconds per study of a loop: pydicom, the same localizer, torchvision in float32, all cores for torch."""
    forward = _forward(_torchvision())
    seconds, slices = [], []
    for study in studies:
        start = time.perf_counter()
        volume = _volume([pydicom.dcmread(io.BytesIO(content)) for content in fetch(archive, study).values()])
        stacks = cut_slices(volume, localize(volume), StudyConfig().slices)
        forward(np.concatenate([stack.hu_NHW for stack in stacks]))
        seconds.append(time.perf_counter() - start)
        slices.append(sum(len(stack.hu_NHW) for stack in stacks))
    return {"seconds": seconds, "slices": slices}


def with_monai(archive: str, studies: list[str], slices: list[int]) -> dict[str, Any]:
    """Seconds per study: LoadImage in two DataLoader workers, DenseNet121 in 2-D on the given number of slices."""
    import torch
    from monai.networks.nets import DenseNet121

    forward = _forward(DenseNet121(2, 3, 4))
    loader = torch.utils.data.DataLoader(
        _Monai(archive, studies, slices), batch_size=None, num_workers=2, multiprocessing_context="spawn"
    )
    arrivals = []
    for stack in loader:
        if arrivals == []:
            arrivals.append(time.perf_counter())  # leaves out the workers' start and their first study
        forward(stack.numpy())
        arrivals.append(time.perf_counter())
    return {"seconds": np.diff(arrivals).tolist()}


class _Monai:
    """A map-style data set: slices of a study as MONAI reads them, 224 x 224 pixels around the centre."""

    def __init__(self, archive: str, studies: list[str], slices: list[int]) -> None:
        self.archive, self.studies, self.slices = archive, studies, slices

    def __len__(self) -> int:
        return len(self.studies)

    def __getitem__(self, number: int) -> Any:
        from monai.transforms import LoadImage

        with tempfile.TemporaryDirectory() as folder:
            for key, content in fetched(self.archive, self.studies[number]).items():
                (Path(folder) / Path(key).name).write_bytes(content)
            image_WHD = LoadImage(reader="PydicomReader", image_only=True)(folder)
        places = np.linspace(0, image_WHD.shape[2] - 1, self.slices[number]).round().astype(int)
        low = (image_WHD.shape[0] - SIZE) // 2
        window = slice(low, low + SIZE)
        return image_WHD[window, window][..., places].permute(2, 1, 0).contiguous().as_tensor()


def stages(archive: str, study: str, folder: str) -> dict[str, Any]:
    """CPU seconds of one study on one core, by stage: medians of three runs after one that warms caches."""
    os.sched_setaffinity(0, {0})
    keep_memory()  # as the child process that reads studies does
    found: list[dict[str, float]] = []
    slices = 0
    for _ in range(4):
        clock = _Stages()
        clock.take("fetch", lambda: fetched(archive, study))
        volume = clock.take("decode", lambda: read_volume_of(study_at(folder), StudyConfig()))
        spine = clock.take("localise", lambda volume=volume: localize(volume))
        stacks = clock.take("cut", lambda volume=volume, spine=spine: cut_slices(volume, spine, StudyConfig().slices))
        clock.take("pictures", lambda volume=volume, spine=spine: straighten(volume, spine.curve))
        found.append(clock.seconds)
        slices = sum(len(stack.hu_NHW) for stack in stacks)
    medians = {name: statistics.median(each[name] for each in found[1:]) for name in found[0]}
    return {"seconds": medians, "slices": slices, "fetches": len(found)}


class _Stages:
    """CPU seconds of this process, all threads, by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def take(self, name: str, work: Callable[[], T]) -> T:
        start = time.process_time()
        result = work()
        self.seconds[name] = time.process_time() - start
        return result


def forward_alone(model: str) -> dict[str, Any]:
    """CPU seconds per slice of our forward pass on one core, and wall seconds per slice of the rivals' on all."""
    import torch
    from monai.networks.nets import DenseNet121

    from spinemet.model.predictor import Predictor

    hu_NHW = np.random.default_rng(0).normal(100, 200, (64, SIZE, SIZE)).astype(np.int16)
    found = {}
    for name, net in (("torchvision", _torchvision()), ("monai", DenseNet121(2, 3, 4))):
        forward = _forward(net)
        found[name] = _median(partial(forward, hu_NHW), time.perf_counter) / len(hu_NHW)
    keep_memory()  # as the job's model actors do
    torch.set_num_threads(1)
    predictor = Predictor.load(model)
    found["spinemet"] = _median(lambda: predictor.predict_slices(hu_NHW), time.process_time) / len(hu_NHW)
    return found


def _median(work: Callable[[], object], clock: Callable[[], float]) -> float:
    times = []
    for _ in range(4):
        start = clock()
        work()
        times.append(clock() - start)
    return statistics.median(times[1:])


def _torchvision() -> Any:
    from torchvision.models import densenet121

    return densenet121(weights=None)


def _forward(net: Any) -> Callable[[npt.NDArray[Any]], npt.NDArray[np.float32]]:
    """A function from (N, H, W) HU to (N, classes) in float32, warmed up."""
    import torch

    net.eval()

    @torch.inference_mode()
    def forward(hu_NHW: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        parts = []
        for start in range(0, len(hu_NHW), BATCH):
            image_NHW = torch.from_numpy(hu_NHW[start : start + BATCH].astype(np.float32)).clamp(-500, 1300) / 450 - 1
            parts.append(net(image_NHW[:, None].expand(-1, 3, -1, -1)).numpy())
        return np.concatenate(parts)

    forward(np.zeros((BATCH, SIZE, SIZE), np.float32))
    return forward


def _volume(slices: list[pydicom.Dataset]) -> Volume:
    """The volume as a script would make it: slices sorted by z, spacing from the first two."""
    slices.sort(key=lambda each: float(each.ImagePositionPatient[2]))
    hu_DHW = np.stack(
        [
            (each.pixel_array * float(each.RescaleSlope) + float(each.RescaleIntercept)).astype(np.int16)
            for each in slices
        ]
    )
    first, second = (np.array(each.ImagePositionPatient, float) for each in slices[:2])
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 3] = second - first, first
    affine[:3, 1] = np.array(slices[0].ImageOrientationPatient[3:], float) * float(slices[0].PixelSpacing[0])
    affine[:3, 2] = np.array(slices[0].ImageOrientationPatient[:3], float) * float(slices[0].PixelSpacing[1])
    return Volume(hu_DHW, affine)


def main() -> None:
    """Run what the first argument names and print its figures as JSON."""
    what, *rest = sys.argv[1:]
    work: dict[str, Callable[..., dict[str, Any]]] = {
        "plain": lambda archive, studies: plain(archive, json.loads(studies), fetched_plainly),
        "helped": lambda archive, studies: plain(archive, json.loads(studies), fetched),
        "monai": lambda archive, studies, slices: with_monai(archive, json.loads(studies), json.loads(slices)),
        "stages": stages,
        "forward": forward_alone,
    }
    print(json.dumps(work[what](*rest)))


if __name__ == "__main__":
    main()
