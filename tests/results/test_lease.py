"""One run at a time: taken, refused, renewed, lost, expired, left behind by a dead process."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import obstore
import pytest
from deltalake.exceptions import DeltaError

from spinemet.errors import BadInput, JobFailed
from spinemet.files import exists, join, open_store, read_bytes, write_bytes
from spinemet.results.lease import LEASE, hold_lease
from spinemet.results.tables import open_results
from tests.results.test_tables import wave_rows

SHORT = timedelta(seconds=0.6)


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return join(str(tmp_path) if request.param == "local" else request.getfixturevalue("s3_bucket"), "results")


def left_behind(place: str, **changes: Any) -> None:
    """Another machine's lease at `place`, valid for an hour, with `changes`."""
    now = datetime.now(UTC)
    holder = {"run_id": "run-0", "host": "ct-node-7", "machine": "ct-node-7 1", "pid": 1, "since": now,
              "expires": now + timedelta(hours=1)} | changes  # fmt: skip
    write_bytes(join(place, LEASE), json.dumps(holder, default=str).encode())


def test_a_second_run_learns_who_holds_the_lease_and_gets_it_after_the_end(place: str) -> None:
    with hold_lease(place, "run-1") as held:
        held.check()
        with pytest.raises(BadInput, match=r"^Another run is writing these results: run-1 on \S+ since .* UTC"):
            hold_lease(place, "run-2").__enter__()
        held.check()
    assert not exists(join(place, LEASE))
    with hold_lease(place, "run-2") as held:
        held.check()


def test_exactly_one_of_the_runs_that_start_together_gets_the_lease(place: str) -> None:
    left_behind(place)  # all find the same dead lease

    def run(number: int) -> bool:
        try:
            with hold_lease(place, f"new-{number}", SHORT):
                time.sleep(1)
        except BadInput:
            return False
        return True

    with ThreadPoolExecutor(6) as runs:
        assert sum(runs.map(run, range(6))) == 1


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", "2099", "an hour ago"])
def test_a_lease_that_nobody_renews_is_taken_over_whatever_it_says(place: str, content: bytes | str) -> None:
    if isinstance(content, bytes):
        obstore.put(open_store(place, create=True), LEASE, content)
    else:
        now = datetime.now(UTC)
        ends = now.replace(year=2099) if content == "2099" else now - timedelta(hours=1)
        left_behind(place, expires=ends)
    began = time.monotonic()
    with hold_lease(place, "run-1", SHORT) as held:
        assert 0.7 < time.monotonic() - began < 5
        assert held.took_over
        held.check()


@pytest.mark.parametrize("ahead", [timedelta(hours=-1), timedelta(0), timedelta(hours=1)])
def test_a_lease_that_is_renewed_is_not_taken_whatever_the_other_clock_says(place: str, ahead: timedelta) -> None:
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(0.1):
            left_behind(place, expires=datetime.now(UTC) + ahead)

    left_behind(place)
    other = threading.Thread(target=renew)
    other.start()
    try:
        with pytest.raises(BadInput, match="run-0 on ct-node-7"):
            hold_lease(place, "run-1", SHORT).__enter__()
    finally:
        ended.set()
        other.join()


def test_a_commit_of_a_run_whose_lease_was_taken_over_is_refused(tmp_path: Path) -> None:
    place = str(
        tmp_path
    )  # not on S3: deltalake holds the GIL while it changes a property, and moto runs in this process
    open_results(place, create=True).commit_wave("run-0-1", wave_rows("k1"))
    with hold_lease(place, "run-0") as held:
        late = open_results(place, lease=held)
        under_way = late.table("studies")  # this run is suspended while it commits
        left_behind(place)
        with hold_lease(place, "run-1", SHORT) as taken:
            open_results(place, lease=taken).commit_wave("run-1-1", wave_rows("k2"))
            with pytest.raises(JobFailed, match="lost its lease"):
                late.commit_wave("run-0-2", wave_rows("k3"))
            with pytest.raises(DeltaError, match="Metadata changed"):
                under_way.delete("source_key = 'k1'")
    assert sorted(open_results(place).ledger()) == ["k1", "k2"]


def test_a_lease_that_was_given_back_fences_nothing(place: str) -> None:
    open_results(place, create=True)
    with hold_lease(place, "run-0") as held:
        first = open_results(place, lease=held)
    with hold_lease(place, "run-1") as held:
        assert not held.took_over
        open_results(place, lease=held).commit_wave("run-1-1", wave_rows("k1"))
    assert first.table("studies").metadata().configuration == {}


def test_a_lease_is_renewed_while_it_is_held(place: str) -> None:
    duration = timedelta(seconds=1)
    with hold_lease(place, "run-1", duration) as held:
        first = json.loads(read_bytes(join(place, LEASE)))["expires"]
        time.sleep(1.6)
        held.check()
        assert json.loads(read_bytes(join(place, LEASE)))["expires"] > first


def test_a_run_that_lost_its_lease_fails_and_keeps_the_new_one(place: str) -> None:
    with hold_lease(place, "run-1", timedelta(seconds=1)) as held:
        left_behind(place)
        time.sleep(0.6)
        with pytest.raises(JobFailed, match="lost its lease"):
            held.check()
    assert json.loads(read_bytes(join(place, LEASE)))["run_id"] == "run-0"


def test_the_lease_is_lost_if_the_store_stays_unreachable(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with hold_lease(s3_bucket, "run-1", timedelta(seconds=0.8)) as held:
        monkeypatch.setattr(held._cell, "swap", lambda *_: (_ for _ in ()).throw(OSError("no route")))
        held.check()
        time.sleep(1)
        with pytest.raises(JobFailed):
            held.check()


def test_the_lease_of_a_dead_process_of_this_machine_is_free_at_once(tmp_path: Path) -> None:
    died = "import os; from spinemet.results.lease import hold_lease\nwith hold_lease({!r}, 'run-0'): os._exit(9)"
    assert subprocess.run([sys.executable, "-c", died.format(str(tmp_path))], check=False).returncode == 9
    assert exists(join(str(tmp_path), LEASE))
    with hold_lease(str(tmp_path), "run-1") as held:
        held.check()


def test_an_unwritable_place_is_bad_input(place: str) -> None:
    write_bytes(join(place, LEASE), b"{}")
    bad = "s3://no-such-bucket-here/r" if place.startswith("s3") else join(place, LEASE, "below a file")
    with pytest.raises(BadInput, match="Cannot write at"):
        hold_lease(bad, "run-1").__enter__()
