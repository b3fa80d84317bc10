"""Fixtures of all tests: the real CT, an S3 server over HTTP, a bucket."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import boto3
import hypothesis
import pytest
from moto.server import ThreadedMotoServer

# On a busy machine an example of a millisecond can take half a second. The time limit of the whole test stays.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

REALCT = Path(__file__).resolve().parents[2] / "shared" / "realct"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each file to one process; all files with jobs on Ray go to the same one, first, as they take longest.

    A test on Ray runs once more if its process ended, not if an assertion failed: Ray's native code ends a driver with
    exit code 1 and no message if Ray's processes die or do not answer for some time, as on a very busy machine.
    """
    on_ray = {item.path for item in items if item.get_closest_marker("job")}
    for item in items:
        item.add_marker(pytest.mark.xdist_group("ray" if item.path in on_ray else str(item.path)))
        if item.get_closest_marker("job"):
            item.add_marker(pytest.mark.flaky(reruns=1, only_rerun=["crashed"]))
    items.sort(key=lambda item: item.path not in on_ray)


@pytest.fixture(scope="session")
def realct() -> Path:
    """The folder of real CT. Skips the test if it is absent."""
    if not REALCT.is_dir():
        pytest.skip("real CT is not on this machine (expected ../shared/realct beside the project)")
    return REALCT


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The endpoint of a moto S3 server over HTTP. The environment names it for every library."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    yield settings["AWS_ENDPOINT_URL"]
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    server.stop()


@pytest.fixture
def s3_bucket(s3_server: str) -> str:
    """A fresh, empty bucket, as an `s3://` URI."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    boto3.client("s3", endpoint_url=s3_server).create_bucket(Bucket=name)
    return f"s3://{name}"


@pytest.fixture
def s3_bucket_apart(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket of an S3 server in a process of its own, for calls that hold the GIL while they wait for the server.

    deltalake's `history` and `alter` do: a server in this process would never answer them.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    endpoint = f"http://127.0.0.1:{port}"
    settings = {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
                "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1"}  # fmt: skip
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        name = f"test-{uuid.uuid4().hex[:12]}"
        boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket=name)
        yield f"s3://{name}"
    finally:
        server.terminate()
        server.wait()
