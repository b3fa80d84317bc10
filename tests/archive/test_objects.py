"""Objects of a small study on S3 are fetched once."""

from __future__ import annotations

import boto3
import pytest

from spinemet.archive.layouts import folder as module
from spinemet.archive.listing import open_study, study_at
from spinemet.errors import Reason, StudyFailed

HEAD = 8


@pytest.fixture
def study(s3_bucket: str) -> str:
    """A study of two objects."""
    for name in "ab":
        boto3.client("s3").put_object(Bucket=s3_bucket.removeprefix("s3://"), Key=f"study/{name}", Body=name * 100)
    return f"{s3_bucket}/study"


def remove(study: str) -> None:
    bucket = study.split("/")[2]
    for name in "ab":
        boto3.client("s3").delete_object(Bucket=bucket, Key=f"study/{name}")


def test_an_object_whose_head_was_read_is_not_fetched_again(study: str) -> None:
    with open_study(study_at(study)) as objects:
        assert dict(objects.heads(objects.names(), HEAD)) == {"a": b"a" * HEAD, "b": b"b" * HEAD}
        remove(study)
        assert objects.head("a", 2 * HEAD) == b"a" * 2 * HEAD
        assert dict(objects.read_many(["a", "b"])) == {"a": b"a" * 100, "b": b"b" * 100}
        with pytest.raises(StudyFailed) as caught:  # handed out once, then forgotten
            objects.read("a")
    assert caught.value.reason is Reason.UNREACHABLE


def test_only_the_heads_of_a_large_study_are_fetched(study: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_LIMIT", 199)
    with open_study(study_at(study)) as objects:
        assert objects.head("a", HEAD) == b"a" * HEAD
        remove(study)
        with pytest.raises(StudyFailed) as caught:
            objects.read("a")
    assert caught.value.reason is Reason.UNREACHABLE
