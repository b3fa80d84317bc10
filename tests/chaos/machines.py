"""Three Ray nodes and an S3 server on one machine, and ways to lose each of them.

The S3 server keeps its objects in memory, so it is not killed: a gate in front of it is shut. A night's driver is a
process of its own; killed with SIGKILL, it leaves its cluster, its lease and its half-written wave behind.
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
NODES = 2
LIMIT_S = 600.0
"""A night that takes longer counts as hung: undisturbed on two idle cores it takes a thirtieth."""
STORE_BYTES = 100 << 20
ACTOR, AGENT = "ModelActor", "Agent"
"""Parts of the titles of Ray's processes: a model actor; an agent of Ray itself."""

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
    """The driver of a screening job and its log file."""

    process: subprocess.Popen[bytes]
    log: Path

    def said(self) -> str:
        """Its output so far."""
        return self.log.read_text()

    def ended(self) -> int:
        """Waits for the end; gives the exit code."""
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
            _retried(lambda: self.cluster.add_node(num_cpus=self.node_cpus, object_store_memory=STORE_BYTES))
        )

    def night(self, results: str) -> Night:
        """Start a screening job."""
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
        """Kill `victim`, a random one if there are several; False if there is none at this moment."""
        if victim is Victim.DRIVER:
            night.process.kill()
            night.process.wait()
        elif victim in {Victim.NODE, Victim.LOST_NODE}:
            if victim is Victim.LOST_NODE and len(self.nodes) == 1:
                return True  # the last node has to do the rest
            self._lose(self.nodes.pop(int(rng.integers(len(self.nodes)))))
            if victim is Victim.NODE:
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
        """Kill all processes of a node. Workers' reader processes go last: no worker is left to report their end."""
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


def _retried(start: Callable[[], T]) -> T:
    """The result of `start`, tried again if it fails: Ray's limit of 30 s can be too short on a busy machine."""
    me = psutil.Process()
    for _ in range(START_ATTEMPTS - 1):
        before = set(me.children(recursive=True))
        with suppress(Exception):  # Ray has no specific exception type for this
            return start()
        for process in set(me.children(recursive=True)) - before:
            with suppress(psutil.NoSuchProcess):
                process.kill()
    return start()


@contextmanager
def machines(folder: Path, node_cpus: int = 2) -> Iterator[Machines]:
    """The machines, a bucket BUCKET and the environment to reach it; all end with the block."""
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
        cluster = _retried(
            lambda: Cluster(initialize_head=True, head_node_args={**head, "object_store_memory": STORE_BYTES})
        )
        try:
            everything = Machines(cluster, gate, folder, node_cpus)
            for _ in range(NODES):
                everything.add_node()
            yield everything
        finally:
            cluster.shutdown()
            gate.shut()
            moto.send_signal(signal.SIGTERM)
            moto.wait()
