"""One run at a time: taken, refused, renewed, lost, expired, left behind by a dead process."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import obstore
import pytest

from spinemet.errors import BadInput, JobFailed
from spinemet.files import exists, join, open_store, read_bytes, write_bytes
from spinemet.results import lease
from spinemet.results.lease import LEASE, hold_lease


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
    left_behind(place, expires=datetime.now(UTC) - timedelta(hours=1))  # all find the same expired lease

    def run(number: int) -> bool:
        try:
            with hold_lease(place, f"new-{number}"):
                time.sleep(1)
        except BadInput:
            return False
        return True

    with ThreadPoolExecutor(6) as runs:
        assert sum(runs.map(run, range(6))) == 1


def test_an_expired_lease_is_taken_over_and_one_that_may_still_be_valid_is_not(place: str) -> None:
    left_behind(place, expires=datetime.now(UTC) - timedelta(seconds=5))  # within the skew of the clocks
    with pytest.raises(BadInput, match="run-0 on ct-node-7"):
        hold_lease(place, "run-1").__enter__()
    left_behind(place, expires=datetime.now(UTC) - lease.CLOCK_SKEW - timedelta(seconds=5))
    with hold_lease(place, "run-1") as held:
        held.check()


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


def test_an_unwritable_place_and_a_broken_lease_are_bad_input(place: str) -> None:
    obstore.put(open_store(place, create=True), LEASE, b"{}")
    with pytest.raises(BadInput, match="is not the lease of a run"):
        hold_lease(place, "run-1").__enter__()
    bad = "s3://no-such-bucket-here/r" if place.startswith("s3") else join(place, LEASE, "below a file")
    with pytest.raises(BadInput, match="Cannot write at"):
        hold_lease(bad, "run-1").__enter__()
