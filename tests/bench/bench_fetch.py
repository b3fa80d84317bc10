"""A real series from S3: the reader against obstore alone fetching the same bytes, with a moto server of its own.

The reader decodes while it fetches. If decoding needs the cores as well, it cannot keep obstore's rate. Compare it then
with the bound, which fetching alone and decoding alone set.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import boto3
import obstore
import psutil
from botocore.exceptions import BotoCoreError, ClientError

from spinemet import files
from spinemet.archive.layouts.folder import READ_THREADS
from spinemet.archive.listing import study_at
from spinemet.config import StudyConfig
from spinemet.dicom.decoding import decoding_threads
from spinemet.study import read_volume_of
from spinemet.types import StudyRef
from tests.bench.bench_reading import decode, interleaved, slices_of
from tests.bench.figures import Figures
from tests.bench.series import SLICES, SYNTAXES, folder_of

REPEATS = 5
START_LIMIT_S = 60.0


def run() -> Figures:
    """Seconds per series, the reader's share of obstore's rate, and of what the cores allow."""
    threads, cores = decoding_threads(), os.cpu_count() or 1
    figures = Figures(
        f"Chest CT from S3 (moto), {SLICES} slices of 512 x 512",
        (
            *("syntax", "MB", "obstore alone s", "decoding alone s", "bound s", "spinemet s"),
            *("share of obstore's rate", "share of the bound", "from a folder s"),
        ),
        f"medians of {REPEATS} interleaved rounds, none with the listing, which comes with the night's plan; decoding "
        f"alone: the same slices in memory, {threads} threads; bound: the longer of both, or the CPU seconds of both "
        f"with the server's, which runs on the same cores, over {cores} cores",
    )
    with s3_server() as (endpoint, server):
        client = boto3.client("s3", endpoint_url=endpoint)
        client.create_bucket(Bucket="bench")
        for syntax in SYNTAXES:
            folder = folder_of(syntax)
            paths = sorted(folder.iterdir())
            keys = [f"{syntax}/study/series/{path.name}" for path in paths]
            for path, key in zip(paths, keys, strict=True):
                client.put_object(Bucket="bench", Key=key, Body=path.read_bytes())
            alone: dict[str, Callable[[], object]] = {
                "obstore": partial(fetch, "s3://bench", keys),
                "decoding": partial(decode, slices_of(folder), threads),
            }
            ours = {
                "spinemet": partial(read, study_at(f"s3://bench/{syntax}/study")),
                "folder": partial(read, study_at(folder)),
            }
            seconds = interleaved(alone | ours, REPEATS)
            cpu_s = sum(statistics.median(cpu_seconds(work, server) for _ in range(REPEATS)) for work in alone.values())
            bound = max(seconds["obstore"], seconds["decoding"], cpu_s / cores)
            figures.add(
                *(syntax, sum(path.stat().st_size for path in paths) / 1e6),
                *(seconds["obstore"], seconds["decoding"], bound, seconds["spinemet"]),
                *(seconds["obstore"] / seconds["spinemet"], bound / seconds["spinemet"], seconds["folder"]),
            )
    return figures


def read(ref: StudyRef) -> None:
    read_volume_of(ref, StudyConfig())


def cpu_seconds(work: Callable[[], object], server: psutil.Process) -> float:
    """CPU seconds of this process and of `server` during `work`."""
    mine = psutil.Process()
    before = [sum(process.cpu_times()[:2]) for process in (mine, server)]
    work()
    after = [sum(process.cpu_times()[:2]) for process in (mine, server)]
    return sum(after) - sum(before)


def fetch(archive: str, keys: list[str]) -> int:
    """Fetch all `keys`, as many at a time as the reader does, and drop them. Gives the number of bytes."""
    store = files.open_store(archive)
    with ThreadPoolExecutor(READ_THREADS) as pool:
        return sum(pool.map(lambda key: len(obstore.get(store, key).bytes()), keys))


@contextmanager
def s3_server() -> Iterator[tuple[str, psutil.Process]]:
    """A moto server in a process of its own: its endpoint, its process, and the environment set for every library.

    The tests' server runs in a thread and would share Python's lock with the code that is measured.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    settings = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    before = {name: os.environ.get(name) for name in settings}
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        os.environ.update(settings)
        _wait(endpoint)
        yield endpoint, psutil.Process(server.pid)
    finally:
        server.terminate()
        server.wait()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _wait(endpoint: str) -> None:
    client, deadline = boto3.client("s3", endpoint_url=endpoint), time.monotonic() + START_LIMIT_S
    while True:
        try:
            client.list_buckets()
            return
        except (BotoCoreError, ClientError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
