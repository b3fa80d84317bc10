"""What all tests share: real CT, an S3 server over HTTP, and a small environment."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import boto3
import hypothesis
import pytest
from moto.server import ThreadedMotoServer

# On a busy machine an example of a millisecond may take half a second; the time limit of the whole test stays.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

REALCT = Path(__file__).resolve().parents[2] / "shared" / "realct"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests on Ray are run once more where their process ended, and only there: a failed assertion stays one.

    A driver whose Ray processes die, or do not answer for some time on a machine that stands still, is ended by Ray's
    native code with exit code 1 and no message, whatever test it was in.
    """
    for item in items:
        if item.get_closest_marker("job"):
            item.add_marker(pytest.mark.flaky(reruns=1, only_rerun=["crashed"]))


@pytest.fixture(scope="session")
def realct() -> Path:
    """The folder of real CT; skips where it is absent."""
    if not REALCT.is_dir():
        pytest.skip("real CT is not on this machine (expected ../shared/realct beside the project)")
    return REALCT


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The endpoint of a moto S3 server over HTTP, with the environment set so that every library finds it."""
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
