"""The doctor at a Ray head: servers that answer as one would, and a real one."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import pytest

from spinemet.doctor.findings import Level
from spinemet.doctor.ray_head import check_head
from tests.doctor.stores import answering

TOKEN = "a token for the tests only"
VERSION = f'{{"ray_version": "{version("ray")}"}}'


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
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


def test_another_version_of_ray_is_a_warning() -> None:
    with answering(200, '{"ray_version": "2.1.0"}') as address:
        assert "Ray 2.1.0" in check_head(address).found


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
