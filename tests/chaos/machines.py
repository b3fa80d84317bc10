"""Three Ray nodes and an S3 server on one machine, and how each of them is lost.

The S3 server keeps its objects in memory, so it is not killed: it stands behind a gate, which is shut. A night's
driver is a process of its own; killed with SIGKILL, it leaves its cluster, its lease and its half-written wave.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil
import pytest
from ray.cluster_utils import Cluster

from spinemet.dicom.pseudonym import KEY_VARIABLE
from spinemet.files import join
from spinemet.on_ray.cluster import START_ATTEMPTS
from tests.chaos.gate import Gate
from tests.chaos.kills import Victim
from tests.on_ray.places import KEY

T = TypeVar("T")
ROOT = Path(__file__).parents[2]
BUCKET = "s3://chaos"
LIMIT_S = 600.0
"""A night that takes longer hangs: thirty times what it takes undisturbed on two idle cores."""
STORE_BYTES = 100 << 20
ACTOR, AGENT = "ModelActor", "Agent"
"""In the titles of Ray's processes: a model actor; a part of Ray itself."""

_MOTO = """
import sys, time
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@dataclass
class Night:
    """The driver of a screening job, and the file that its output goes to."""

    process: subprocess.Popen[bytes]
    log: Path

    def said(self) -> str:
        """Its output so far."""
        return self.log.read_text()

    def ended(self) -> int:
        """Its exit code; waits for it."""
        return self.process.wait(timeout=LIMIT_S)


@dataclass
class Machines:
    """A cluster of a head without CPUs and two nodes, its object store, and the nights that run on them."""

    cluster: Any
    gate: Gate
    folder: Path
    node_cpus: int = 2
    nodes: list[Any] = field(default_factory=list)
    nights: int = 0

    def add_node(self) -> None:
        """One more node; on the main thread only."""
        self.nodes.append(
            _patiently(lambda: self.cluster.add_node(num_cpus=self.node_cpus, object_store_memory=STORE_BYTES))
        )

    def night(self, results: str) -> Night:
        """A screening job that has just been started."""
        self.nights += 1
        given = ["--archive", join(BUCKET, "archive"), "--model", join(BUCKET, "model"), "--results", results]
        log = self.folder / f"night-{self.nights:03d}.log"
        with log.open("w") as written:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.night", *given, "--workers", "1", "--slices"],
                cwd=ROOT, env={**os.environ, "RAY_ADDRESS": self.cluster.address}, stdout=written, stderr=written,
            )  # fmt: skip
        return Night(process, log)

    def kill(self, victim: Victim, rng: np.random.Generator, night: Night, outage_s: float) -> bool:
        """Take `victim` away, any one where there are several; False where there is none at this moment."""
        if victim is Victim.DRIVER:
            night.process.kill()
            night.process.wait()
        elif victim is Victim.NODE:
            self._lose(self.nodes.pop(int(rng.integers(len(self.nodes)))))
            self.add_node()
        elif victim is Victim.STORE:
            self.gate.shut()
            time.sleep(outage_s)
            self.gate.open()
        else:
            workers = [each for node in self.nodes for each in _workers(node, victim is Victim.MODEL_ACTOR)]
            if not workers:
                return False
            with suppress(psutil.NoSuchProcess):
                workers[int(rng.integers(len(workers)))].kill()
        return True

    def _lose(self, node: Any) -> None:
        """End all processes of a node at once; what they read in goes last, so that nobody is left to see it die."""
        tree = _raylet(node).children(recursive=True)
        self.cluster.remove_node(node, allow_graceful=False)
        for process in sorted(tree, key=lambda each: not _title(each).startswith("ray::")):
            with suppress(psutil.NoSuchProcess):
                process.kill()


def _raylet(node: Any) -> psutil.Process:
    return psutil.Process(node.all_processes["raylet"][0].process.pid)


def _workers(node: Any, actors: bool) -> list[psutil.Process]:
    return [
        each
        for each in _raylet(node).children()
        if (title := _title(each)).startswith("ray::") and AGENT not in title and (ACTOR in title) == actors
    ]


def _title(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def _patiently(start: Callable[[], T]) -> T:
    """What `start` gives; where Ray's 30 s were too short on a busy machine, what it left is ended, and asked again."""
    me = psutil.Process()
    for _ in range(START_ATTEMPTS - 1):
        before = set(me.children(recursive=True))
        with suppress(Exception):  # Ray has no type of its own for this
            return start()
        for process in set(me.children(recursive=True)) - before:
            with suppress(psutil.NoSuchProcess):
                process.kill()
    return start()


@contextmanager
def machines(folder: Path, node_cpus: int = 2) -> Iterator[Machines]:
    """The machines, with a bucket BUCKET and the environment that finds it; all end with the block."""
    moto = subprocess.Popen(
        [sys.executable, "-c", _MOTO],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert moto.stdout is not None
    gate = Gate(int(moto.stdout.readline()))
    settings = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{gate.port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        KEY_VARIABLE: KEY.decode(),
        "OMP_NUM_THREADS": "1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        patch.delenv("RAY_ADDRESS", raising=False)
        import boto3

        boto3.client("s3", endpoint_url=settings["AWS_ENDPOINT_URL"]).create_bucket(Bucket=BUCKET.removeprefix("s3://"))
        head = {"num_cpus": 0, "temp_dir": str(folder / "ray"), "include_dashboard": False}
        cluster = _patiently(
            lambda: Cluster(initialize_head=True, head_node_args={**head, "object_store_memory": STORE_BYTES})
        )
        try:
            all_of_them = Machines(cluster, gate, folder, node_cpus)
            all_of_them.add_node()
            all_of_them.add_node()
            yield all_of_them
        finally:
            cluster.shutdown()
            gate.shut()
            moto.send_signal(signal.SIGTERM)
            moto.wait()
