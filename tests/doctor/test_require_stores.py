"""Jobs tell apart what is wrong with a store, before they compute anything; a private CA is trusted everywhere."""

from __future__ import annotations

import os
from pathlib import Path

import boto3
import pytest

from jobs import ablate, evaluate, prepare, screen, train
from spinemet.dicom.pseudonym import KEY_VARIABLE
from spinemet.doctor.s3 import require_stores
from spinemet.errors import BadInput
from spinemet.files import join, read_bytes, write_bytes
from spinemet.results.tables import connect, open_results
from tests.doctor.certificates import s3_over_tls
from tests.doctor.stores import answering
from tests.results.test_tables import wave_rows


def error(code: str) -> str:
    return f'<?xml version="1.0"?><Error><Code>{code}</Code></Error>'


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (404, "NoSuchBucket", "there is no such bucket. Check the name"),
        (403, "InvalidAccessKeyId", "the store does not know the access key. Set AWS_ACCESS_KEY_ID"),
        (403, "SignatureDoesNotMatch", "the secret key does not fit the access key"),
        (403, "AccessDenied", "the store refuses access"),
    ],
)
def test_credentials_and_bucket_are_told_apart(
    settings: pytest.MonkeyPatch,
    status: int,
    code: str,
    words: str,
) -> None:
    with answering(status, error(code)) as endpoint:
        settings.setenv("AWS_ENDPOINT_URL", endpoint)
        with pytest.raises(BadInput, match=rf"^s3://results/ct cannot be used: {words}"):
            require_stores("/local", None, "s3://results/ct")
        require_stores("/local", None)


def test_an_endpoint_that_does_not_answer_is_named(settings: pytest.MonkeyPatch) -> None:
    settings.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(BadInput, match=r"no S3 server answers at http://127\.0\.0\.1:9 .* Check AWS_ENDPOINT_URL"):
        require_stores("s3://archive")


JOBS = {
    "screen": (screen.main, ["--archive", "A", "--results", "A", "--model", "builtin", "--linkage", "{}"]),
    "screen a model": (screen.main, ["--archive", "A", "--results", "A", "--model", "{}"]),
    "prepare": (prepare.main, ["--archive", "A", "--labels", "A", "--out", "{}"]),
    "train": (train.main, ["--crops", "{}", "--out", "A", "--name", "first"]),
    "evaluate": (evaluate.main, ["--model", "builtin", "--crops", "A", "--out", "{}"]),
    "ablate": (ablate.main, ["--crops", "{}", "--out", "A"]),
}


@pytest.mark.parametrize("name", JOBS)
def test_every_job_names_a_missing_bucket_before_it_computes(
    name: str, s3_bucket: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "a key for the tests only")
    main, given = JOBS[name]
    place = "s3://no-such-bucket-here/x"
    assert (
        main([word.replace("{}", place).replace("A", s3_bucket) if word in {"A", "{}"} else word for word in given])
        == 2
    )
    (said,) = (line for line in capsys.readouterr().err.splitlines() if ": " in line)
    assert f"{place} cannot be used: there is no such bucket" in said


def test_a_private_ca_is_trusted_by_every_library(settings: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings.delenv("SSL_CERT_FILE", raising=False)
    with s3_over_tls(tmp_path) as (endpoint, ca):
        settings.setenv("AWS_ENDPOINT_URL", endpoint)
        with pytest.raises(BadInput, match=r"certificate of the S3 server at .* is not trusted. Set AWS_CA_BUNDLE"):
            require_stores("s3://private")
        settings.setenv("AWS_CA_BUNDLE", str(ca))
        boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="private")
        require_stores("s3://private")
        write_bytes("s3://private/a", b"by obstore")
        assert read_bytes("s3://private/a") == b"by obstore"
        place = join("s3://private", "results")
        open_results(place, create=True).commit_wave("run-1-1", wave_rows("k1"))  # by deltalake
        assert len(connect(place).sql("FROM studies").fetchall()) == 1  # by Arrow
        settings.setenv("AWS_CA_BUNDLE", str(tmp_path / "nowhere.pem"))
        with pytest.raises(BadInput, match=r"expected a file with certificates at .*nowhere\.pem \(AWS_CA_BUNDLE\)"):
            read_bytes("s3://private/a")
        with pytest.raises(BadInput, match=r"nowhere\.pem \(AWS_CA_BUNDLE\)"):
            require_stores("s3://private")
    os.environ.pop("SSL_CERT_FILE", None)
