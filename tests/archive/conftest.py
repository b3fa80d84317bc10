"""Archives for the tests, in a folder and on S3 over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import boto3
import pytest

Put = Callable[[dict[str, bytes]], str]


@pytest.fixture(params=["local", "s3"])
def put(request: pytest.FixtureRequest, tmp_path: Path) -> Put:
    """Writes objects to a fresh archive and gives its URI."""
    if request.param == "local":

        def local(contents: dict[str, bytes]) -> str:
            for key, content in contents.items():
                (tmp_path / "archive" / key).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / "archive" / key).write_bytes(content)
            return str(tmp_path / "archive")

        return local
    bucket = request.getfixturevalue("s3_bucket")
    client = boto3.client("s3")

    def remote(contents: dict[str, bytes]) -> str:
        for key, content in contents.items():
            client.put_object(Bucket=bucket.removeprefix("s3://"), Key=f"ct/{key}", Body=content)
        return f"{bucket}/ct"

    return remote
