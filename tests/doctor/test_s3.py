"""The doctor at an S3 store: moto over HTTP, and servers that answer with one of S3's errors."""

from __future__ import annotations

import os
import re
import socket
from datetime import timedelta
from pathlib import Path

import boto3
import pytest

from spinemet.doctor.findings import Level, Trouble
from spinemet.doctor.places import check_results
from spinemet.doctor.s3 import S3
from tests.doctor.stores import answering

EMPTY_LISTING = '<?xml version="1.0"?><ListBucketResult><KeyCount>0</KeyCount></ListBucketResult>'


def problem_at(uri: str = "s3://archive/ct") -> Trouble:
    with pytest.raises(Trouble) as raised:
        S3().check_bucket(uri)
    return raised.value


def objects_in(bucket: str) -> list[str]:
    """Every version of every object, and every delete marker."""
    found = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"]).list_object_versions(Bucket=bucket)
    return [each["Key"] for kind in ("Versions", "DeleteMarkers") for each in found.get(kind, [])]


def test_a_sound_store_is_writable_on_a_condition_and_nothing_stays(s3_bucket: str) -> None:
    s3 = S3()
    assert s3.check_settings().level is Level.OK
    s3.check_bucket(f"{s3_bucket}/results")
    finding = check_results(f"{s3_bucket}/results", s3)
    assert (finding.level, finding.found) == (Level.OK, "writable, with conditional puts")
    assert s3.check_clock().level is Level.OK
    assert objects_in(s3_bucket.removeprefix("s3://")) == []


def test_a_bucket_with_versions_keeps_none(s3_bucket: str) -> None:
    name = s3_bucket.removeprefix("s3://")
    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    assert check_results(s3_bucket, S3()).level is Level.OK
    assert objects_in(name) == []


def test_a_bucket_that_is_not_there(s3_server: str) -> None:
    assert problem_at("s3://no-such-bucket/results").found == "there is no such bucket"
    finding = check_results("s3://no-such-bucket/results", S3())
    assert (finding.level, finding.found) == (Level.PROBLEM, "there is no such bucket")


def test_no_server_is_one_sentence_and_is_waited_for_once(settings: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
    settings.setenv("AWS_ENDPOINT_URL", endpoint)
    s3 = S3()
    found = []
    for bucket in ("s3://archive", "s3://results"):
        with pytest.raises(Trouble) as raised:
            s3.check_bucket(bucket)
        found.append(raised.value)
    assert found[0].found == f"no S3 server answers at {endpoint} (no answer)"
    assert found[1] is found[0]
    assert s3.check_clock().level is Level.SKIPPED


def test_an_endpoint_without_a_scheme(settings: pytest.MonkeyPatch) -> None:
    settings.setenv("AWS_ENDPOINT_URL", "minio:9000")
    assert "http://" in problem_at().remedy


@pytest.mark.parametrize(
    ("status", "code", "found"),
    [
        (403, "InvalidAccessKeyId", "the store does not know the access key"),
        (403, "SignatureDoesNotMatch", "the secret key does not fit the access key"),
        (403, "AccessDenied", "the store refuses access"),
        (400, "ExpiredToken", "the session token has expired"),
        (403, "RequestTimeTooSkewed", "this machine's clock is too far from the store's"),
        (409, "SomethingNew", "the store answers SomethingNew"),
    ],
)
def test_refusals_are_explained(settings: pytest.MonkeyPatch, status: int, code: str, found: str) -> None:
    with answering(status, f"<Error><Code>{code}</Code><Message>ZQX</Message></Error>") as endpoint:
        settings.setenv("AWS_ENDPOINT_URL", endpoint)
        problem = problem_at()
    assert problem.found == found
    assert problem.remedy
    assert "ZQX" not in problem.found + problem.remedy


def test_another_region_is_named(settings: pytest.MonkeyPatch) -> None:
    body = "<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region></Error>"
    with answering(400, body) as endpoint:
        settings.setenv("AWS_ENDPOINT_URL", endpoint)
        assert problem_at().remedy == "Set AWS_REGION=eu-west-1."


@pytest.mark.parametrize(
    ("ahead_s", "level", "words"),
    [
        (-10, Level.OK, r"(9|10|11|12) s ahead of the store"),
        (60, Level.WARNING, r"(5[89]|60) s behind the store; --as-of and --quiet-minutes go by clocks"),
        (-60, Level.WARNING, r"6[012] s ahead of the store; --as-of and --quiet-minutes go by clocks"),
        (3600, Level.PROBLEM, r"3(600|59[0-9]) s behind the store; S3 refuses requests from 900 s on"),
    ],
)
def test_a_clock_that_is_off(settings: pytest.MonkeyPatch, ahead_s: int, level: Level, words: str) -> None:
    s3 = S3()
    with answering(200, EMPTY_LISTING, ahead=timedelta(seconds=ahead_s)) as endpoint:
        settings.setenv("AWS_ENDPOINT_URL", endpoint)
        s3.check_bucket("s3://archive")
    finding = s3.check_clock()
    assert finding.level is level
    assert re.fullmatch(words, finding.found)
    assert bool(finding.remedy) is (level is not Level.OK)


@pytest.mark.parametrize(
    ("puts", "deletes", "level", "words"),
    [
        ([200, 200], 204, Level.PROBLEM, "If-None-Match"),
        ([200, 412, 200], 204, Level.PROBLEM, "If-Match"),
        ([200, 501], 204, Level.PROBLEM, "If-None-Match"),
        ([403], 204, Level.PROBLEM, "the store answers 403"),
        ([200, 412, 412, 200], 204, Level.OK, "writable, with conditional puts"),
        ([200, 412, 412, 200], 403, Level.PROBLEM, "the store answers 403"),
    ],
)
def test_stores_that_ignore_conditions_or_refuse(
    settings: pytest.MonkeyPatch, puts: list[int], deletes: int, level: Level, words: str
) -> None:
    answers = iter(puts)
    statuses = {"PUT": lambda: next(answers), "DELETE": lambda: deletes}
    with answering(lambda method, _: statuses.get(method, lambda: 200)(), EMPTY_LISTING) as endpoint:
        settings.setenv("AWS_ENDPOINT_URL", endpoint)
        finding = check_results("s3://results/runs", S3())
    assert finding.level is level
    assert words in finding.found
    assert next(answers, None) is None


def test_credentials_that_jobs_do_not_read(settings: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings.delenv("AWS_ACCESS_KEY_ID")
    settings.delenv("AWS_SECRET_ACCESS_KEY")
    settings.setenv("AWS_EC2_METADATA_DISABLED", "true")
    settings.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    settings.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    none = S3().check_settings()
    assert (none.level, "credentials: none" in none.found) == (Level.PROBLEM, True)
    (tmp_path / "credentials").write_text("[default]\naws_access_key_id = a\naws_secret_access_key = SECRET\n")
    in_file = S3().check_settings()
    assert (in_file.level, "which jobs do not read" in in_file.found) == (Level.PROBLEM, True)
    assert "SECRET" not in in_file.found
