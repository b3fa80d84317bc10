"""The doctor at archives, results folders, models, key files and Ray heads, sound or wrong in a usual way."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import obstore
import pytest

from spinemet.dicom.pseudonym import KEY_FILE_VARIABLE, KEY_VARIABLE
from spinemet.doctor.findings import Level
from spinemet.doctor.places import check_archive, check_head, check_key, check_model, check_results
from spinemet.doctor.s3 import S3
from spinemet.files import open_store
from spinemet.model.checkpoint import WEIGHTS, ModelCard, save_model, untrained
from spinemet.model.spec import DenseNetSpec, ModelSpec
from tests.doctor.stores import answering

KEY = "0123456789abcdef" * 2
TOKEN = "a token for the tests only"
VERSION = '{"ray_version": "2.1.0"}'


# ---- archive -------------------------------------------------------------------------------------------------


def test_an_archive_and_how_many_studies_it_holds(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"study-{number}.zip").write_bytes(b"PK")
    finding = check_archive(str(tmp_path), S3())
    assert (finding.level, finding.found) == (Level.OK, "readable, 3 studies")


def test_an_archive_in_a_bucket(s3_bucket: str) -> None:
    obstore.put(open_store(s3_bucket), "ct/study.zip", b"PK")
    finding = check_archive(f"{s3_bucket}/ct", S3())
    assert (finding.level, finding.found) == (Level.OK, "readable, 1 study")


@pytest.mark.parametrize("kind", ["missing", "empty", "file", "gs://archive"])
def test_no_archive(tmp_path: Path, kind: str) -> None:
    place = tmp_path / kind
    if kind == "empty":
        place.mkdir()
    elif kind == "file":
        place.write_text("")
    finding = check_archive(kind if "://" in kind else str(place), S3())
    assert finding.level is Level.PROBLEM
    assert "--archive" in finding.remedy


def test_a_slow_archive_is_counted_for_some_seconds_only(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(200, endless_listing) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        finding = check_archive("s3://archive", S3(), seconds=2)
    assert finding.level is Level.OK
    assert re.fullmatch(r"readable, at least [\d,]+ studies after 2 s of listing", finding.found)


def endless_listing(path: str) -> str:
    """Pages of 1,100 studies, each of which says that more follow; from the second page on they come slowly."""
    if "continuation-token" in path:
        time.sleep(0.3)
    studies = "".join(
        f"<Contents><Key>{n:04}.zip</Key><LastModified>2026-01-01T00:00:00Z</LastModified><ETag>e</ETag><Size>9</Size>"
        f"</Contents>"
        for n in range(1100)
    )
    more = "<IsTruncated>true</IsTruncated><NextContinuationToken>more</NextContinuationToken>"
    return f"<ListBucketResult><Name>archive</Name>{more}{studies}</ListBucketResult>"


# ---- results -------------------------------------------------------------------------------------------------


def test_a_results_folder_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    there, to_be_made = tmp_path / "results", tmp_path / "some" / "where" / "results"
    there.mkdir()
    assert check_results(str(there), S3()).found == "writable"
    assert check_results(str(to_be_made), S3()).found == f"will be made below {tmp_path}"
    assert [path.name for path in tmp_path.rglob("*")] == ["results"]


@pytest.mark.parametrize("place", ["/proc/results", "file/results"])
def test_results_that_cannot_be_written(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    finding = check_results(str(tmp_path / place), S3())  # joining keeps an absolute path
    assert finding.level is Level.PROBLEM
    assert "folder" in finding.remedy


# ---- model ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    spec = ModelSpec(backbone=DenseNetSpec(growth_rate=4, block_config=(1, 1, 1, 1), init_features=8))
    save_model(str(folder), untrained(spec, 0), ModelCard(spec=spec))
    return folder


def test_a_model(model: Path) -> None:
    finding = check_model(str(model), S3())
    assert finding.level is Level.OK
    assert "blastic, lytic" in finding.found


def test_damaged_weights_and_no_model(model: Path, tmp_path: Path) -> None:
    for path in model.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    content = (tmp_path / WEIGHTS).read_bytes()
    (tmp_path / WEIGHTS).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    for place in (tmp_path, tmp_path / "nothing"):
        finding = check_model(str(place), S3())
        assert finding.level is Level.PROBLEM
        assert "jobs/train.py" in finding.remedy


# ---- key -----------------------------------------------------------------------------------------------------


@pytest.fixture
def key_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    monkeypatch.delenv(KEY_FILE_VARIABLE, raising=False)
    path = tmp_path / "key"
    path.write_text(KEY)
    path.chmod(0o600)
    return path


def test_a_key_from_the_option_the_variable_and_the_file(key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = check_key(str(key_file), is_needed=True)
    monkeypatch.setenv(KEY_FILE_VARIABLE, str(key_file))
    named = check_key(None, is_needed=True)
    assert given == named
    assert (given.level, given.found) == (Level.OK, f"32 bytes from {key_file}, which only its owner can read")
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    assert check_key(None, is_needed=True).found == f"32 bytes from {KEY_VARIABLE}"


def test_a_key_file_that_others_can_read(key_file: Path) -> None:
    key_file.chmod(0o640)
    finding = check_key(str(key_file), is_needed=False)
    assert (finding.level, finding.remedy) == (Level.PROBLEM, f"chmod 600 {key_file}")
    assert "640" in finding.found
    subprocess.run(finding.remedy, shell=True, check=True)
    assert check_key(str(key_file), is_needed=False).level is Level.OK


def test_a_short_key_and_a_missing_file(key_file: Path) -> None:
    key_file.write_text("SECRET")
    for path in (key_file, key_file.with_name("missing")):
        finding = check_key(str(path), is_needed=True)
        assert finding.level is Level.PROBLEM
        assert "openssl rand" in finding.remedy
        assert "SECRET" not in finding.found


def test_no_key_matters_for_screening_only(key_file: Path) -> None:
    assert check_key(None, is_needed=False).level is Level.SKIPPED
    assert check_key(None, is_needed=True).level is Level.PROBLEM


# ---- Ray head --------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def no_ray_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A person without any setting for Ray."""
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


def token_status(_method: str, authorization: str) -> int:
    if not authorization:
        return 401
    return 200 if authorization == f"Bearer {TOKEN}" else 403


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_no_head_there() -> None:
    address = f"http://127.0.0.1:{free_port()}"
    finding = check_head(address)
    assert finding.level is Level.PROBLEM
    assert address in finding.found
    assert "ray start --head" in finding.remedy


@pytest.mark.parametrize("address", ["HEAD:8265", "127.0.0.1", ""])
def test_an_address_that_is_no_url(address: str) -> None:
    finding = check_head(address)
    assert (finding.level, "http://HOST:8265" in finding.remedy) == (Level.PROBLEM, True)


@pytest.mark.parametrize("body", ["<html>", "{}", "[]"])
def test_something_other_than_ray(body: str) -> None:
    with answering(200, body) as address:
        assert check_head(address).level is Level.PROBLEM
    with answering(502, body) as address:
        assert "HTTP status 502" in check_head(address).found


def test_a_head_without_a_token_is_a_warning() -> None:
    with answering(200, VERSION) as address:
        finding = check_head(address + "/")
    assert (finding.level, "asks for no token" in finding.found) == (Level.WARNING, True)


def test_the_token_is_sent_in_token_mode_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with answering(token_status, VERSION) as address:
        assert "none is set here" in check_head(address).found
        monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
        assert "none is set here" in check_head(address).found  # `ray job submit` does not send it either
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        assert check_head(address).level is Level.OK
        monkeypatch.setenv("RAY_AUTH_TOKEN", "another")
        assert "does not take the token" in check_head(address).found
        monkeypatch.delenv("RAY_AUTH_TOKEN")
        assert "none is set here" in check_head(address).found
        (tmp_path / "token").write_text(TOKEN + "\n")
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
        assert check_head(address).level is Level.OK
        monkeypatch.delenv("RAY_AUTH_TOKEN_PATH")
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray" / "auth_token").write_text(TOKEN)
        assert check_head(address).level is Level.OK


@contextmanager
def real_head() -> Iterator[str]:
    """The address of the Jobs API of a Ray head that asks for TOKEN."""
    port = free_port()
    folder = tempfile.mkdtemp(prefix="ray")  # short: the paths of Ray's sockets have to fit into 107 bytes
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "RAY_TMPDIR": folder}
    options = ["--head", "--block", "--port=0", "--num-cpus=1", f"--dashboard-port={port}", "--disable-usage-stats"]
    ray = Path(sys.executable).with_name("ray")
    with (Path(folder) / "log").open("w") as log:
        process = subprocess.Popen([ray, "start", *options], env=environment, stdout=log, stderr=log)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()  # `--block` ends all that it started
        process.wait(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.job
def test_a_real_head_with_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    with real_head() as address:
        ends = time.monotonic() + 120
        while "asks for a token" not in (found := check_head(address)).found:
            assert time.monotonic() < ends, found
            time.sleep(0.5)
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        monkeypatch.setenv("RAY_AUTH_TOKEN", "another")
        assert "does not take the token" in check_head(address).found
        monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
        assert check_head(address).level is Level.OK
