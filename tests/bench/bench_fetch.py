"""A real series from S3: the reader against obstore alone fetching the same bytes, with a moto server of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import boto3
import obstore
from botocore.exceptions import BotoCoreError, ClientError

from spinemet.config import StudyConfig
from spinemet.storage import files
from spinemet.storage.archive import study_at
from spinemet.storage.objects import READ_THREADS
from spinemet.study import read_volume_of
from tests.bench.bench_reading import interleaved
from tests.bench.figures import Figures
from tests.bench.series import SLICES, SYNTAXES, folder_of

REPEATS = 5
START_LIMIT_S = 60.0


def run() -> Figures:
    """Seconds per series and the reader's share of obstore's rate; decoding is part of the reader's time."""
    figures = Figures(
        f"Chest CT from S3 (moto), {SLICES} slices of 512 x 512",
        ("syntax", "MB", "obstore alone s", "spinemet s", "share of obstore's rate", "from a folder s"),
        f"medians of {REPEATS} interleaved rounds; the server runs on the same cores",
    )
    with s3_server() as endpoint:
        client = boto3.client("s3", endpoint_url=endpoint)
        client.create_bucket(Bucket="bench")
        for syntax in SYNTAXES:
            folder = folder_of(syntax)
            keys = [f"{syntax}/study/series/{path.name}" for path in sorted(folder.iterdir())]
            for path, key in zip(sorted(folder.iterdir()), keys, strict=True):
                client.put_object(Bucket="bench", Key=key, Body=path.read_bytes())
            study = f"s3://bench/{syntax}/study"
            seconds = interleaved(
                {
                    "obstore": lambda keys=keys: fetch("s3://bench", keys),
                    "spinemet": lambda study=study: read_volume_of(study_at(study), StudyConfig()),
                    "folder": lambda folder=folder: read_volume_of(study_at(folder), StudyConfig()),
                },
                REPEATS,
            )
            megabytes = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
            share = seconds["obstore"] / seconds["spinemet"]
            figures.add(syntax, megabytes, seconds["obstore"], seconds["spinemet"], share, seconds["folder"])
    return figures


def fetch(archive: str, keys: list[str]) -> int:
    """Bytes of all `keys`, fetched as many at a time as the reader does and dropped."""
    store = files.open_store(archive)
    with ThreadPoolExecutor(READ_THREADS) as pool:
        return sum(pool.map(lambda key: len(obstore.get(store, key).bytes()), keys))


@contextmanager
def s3_server() -> Iterator[str]:
    """The endpoint of a moto server in a process of its own, with the environment set so that every library finds it.

    Not the tests' server in a thread: it would share Python's lock with what is measured.
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
        yield endpoint
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
