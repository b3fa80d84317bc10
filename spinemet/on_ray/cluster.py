"""The Ray cluster a job runs on: the one that is there, else a local one."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from spinemet.errors import BadInput

MIN_CPUS = 4
"""A Data pipeline on 2 declared CPUs can deadlock: an actor per stage takes them all (FACTS.md section 4)."""

MODEL_MEMORY_BYTES = 1 << 30
"""Of a model actor: torch, DenseNet-121, the activations of 32 slices and the stacks of a batch."""

GROWTH_S = 900.0
"""A node that has to be bought, and its image pulled, is there by then."""

START_ATTEMPTS = 3
"""Ray gives its processes 30 s to start; on a machine as busy as CI's (load 15 on 2 cores) that was too short."""


def connect(min_cpus: int = MIN_CPUS) -> None:
    """Make `ray` usable: join the cluster of RAY_ADDRESS (set inside a submitted job), else start a local one.

    Does nothing where Ray is initialised already, so jobs can follow each other in one process. A local cluster
    declares at least `min_cpus` CPUs, serves no dashboard, and ends with this process.
    """
    # Ray's future default, set so that it does not warn of the change.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    if not ray.is_initialized():
        if os.environ.get("RAY_ADDRESS"):
            ray.init(logging_level=logging.WARNING)
        else:
            _start_local(min_cpus)
    _quiet_data()


def _start_local(min_cpus: int) -> None:
    import ray

    # Ray's native side writes to the terminal that every actor of Ray Data "has constructor arguments in the object
    # store", as an error, in the middle of the progress. Errors that matter come as exceptions. On a joined cluster
    # it stays: its last words say why a driver ended that lost its head node.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    # An actor of Ray Train that asks whether the cloud takes a node away, which nothing does to the own machine.
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    # Ray makes a token by itself and warns that it did; RAY_AUTH_MODE=token without one hangs instead.
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            ray.init(
                address="local",
                num_cpus=max(min_cpus, os.cpu_count() or 1),
                include_dashboard=False,
                logging_level=logging.WARNING,
                log_to_driver=False,
            )
            return
        except Exception as error:  # Ray has no type of its own for this
            if attempt == START_ATTEMPTS or "timed out" not in str(error).lower():
                raise
            ray.shutdown()


def parallel_tasks() -> int | None:
    """How many tasks should run at a time: as many as there are cores on a local cluster, None (no limit) on another.

    A local cluster declares more CPUs than a small machine has, and more processes than cores only start more slowly.
    On a cluster that grows with the tasks that wait, a limit of today's size would keep it from growing.
    """
    return None if os.environ.get("RAY_ADDRESS") else os.cpu_count()


def model_pool(cpus: int, gpus: int, workers: int | None) -> tuple[int, dict[str, Any]]:
    """How many model actors, and what each takes of a cluster with so many CPUs and GPUs.

    On GPUs an actor takes one, or a share where there are more actors than GPUs, and no CPU; without, it takes one
    CPU, which any node has, and by default half of the CPUs are left to reading. Raises BadInput where no CPU would be
    left to read with: such a pipeline would wait for ever.
    """
    # The memory also keeps Ray Data from fusing reading into the model actors, which it does where all resources are
    # equal: studies would then be read only where a model is.
    resources: dict[str, Any] = {"memory": MODEL_MEMORY_BYTES}
    if gpus:
        count, taken = workers or gpus, 0
        resources |= {"num_cpus": 0, "num_gpus": min(1, gpus / count)}
    else:
        # One thread each: two threads of one pass wait for each other whenever a reader has taken the core of one.
        count = taken = workers or max(1, cpus // 2)
        resources |= {"num_cpus": 1}
    if cpus - taken < 1:
        raise BadInput(f"expected a cluster with more than {taken} CPUs for {count} model workers, found {cpus}.")
    return count, resources


def enough_cpus(wanted: int) -> int:
    """The CPUs of the cluster; where a joined one has fewer than `wanted`, it is asked to grow, and waited for.

    A group of nodes that starts empty, or has just lost one, takes minutes. After GROWTH_S the cluster is as it is.
    """
    import ray
    from ray.util import placement_group, remove_placement_group

    def cpus() -> int:
        return int(ray.cluster_resources().get("CPU", 0))

    if cpus() < wanted and os.environ.get("RAY_ADDRESS"):
        # What the autoscaler sees waiting. Its own request_resources outlives the job: the nodes would stay for ever.
        waiting = placement_group([{"CPU": 1}] * wanted)
        ends = time.monotonic() + GROWTH_S
        while cpus() < wanted and time.monotonic() < ends:
            time.sleep(1)
        remove_placement_group(waiting)
    return cpus()


def own_error(error: BaseException) -> BadInput | None:
    """The BadInput that a worker raised, out of the error that Ray made of it; None where it was another.

    Ray Data sends the text of a worker's error and not the error, so it is found by its name there.
    """
    found = re.findall(r"^\s*spinemet\.errors\.BadInput: (.+)$", str(error), re.MULTILINE)
    return BadInput(found[-1].strip()) if found else None


@contextmanager
def worker_errors() -> Iterator[None]:
    """Raises the BadInput of a worker as such, in place of the error that Ray made of it."""
    import ray

    try:
        yield
    except ray.exceptions.RayError as error:
        if (own := own_error(error)) is not None:
            raise own from error
        raise


def _quiet_data() -> None:
    """Leave the terminal to the jobs' own progress bars: Ray Data's plans and bars stay out of it."""
    from ray.data import DataContext

    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # it warns that the bars are off
    DataContext.get_current().enable_progress_bars = False
