"""The Ray cluster that a job runs on: a running one if RAY_ADDRESS names it, else a local one."""

import logging
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from spinemet.dicom.pseudonym import key_hidden
from spinemet.errors import BadInput, JobFailed
from spinemet.machine import usable_cores

MIN_CPUS = 4
"""A Ray Data pipeline on 2 declared CPUs can deadlock: one actor per stage takes them all."""

MODEL_MEMORY_BYTES = 1 << 30
"""For one model actor: torch, DenseNet-121, the activations of 32 slices and the stacks of a batch."""

READ_MEMORY_BYTES = 768 << 20
"""For one reading task: a study of 450 slices."""

READ_CPUS, MODEL_CPUS = 0.99, 0.001
"""Of one task and of one actor: on a node with one CPU a task still fits beside ten actors."""

GROWTH_S = 900.0
"""Longest wait for a new node, whose image may have to be pulled first."""

START_ATTEMPTS = 3
"""Ray gives its processes 30 s to start, which was too short on a busy CI machine (load 15 on 2 cores)."""

SOCKET = "/ray/session_2026-11-26_10-50-27_106675_4194304/sockets/plasma_store"
"""The longest path of a socket below the temporary folder; the number at the end of the session is a process."""


def connect() -> None:
    """Make `ray` usable: join the cluster of RAY_ADDRESS (set inside a submitted job), else start a local one.

    Does nothing if Ray is initialised already: several jobs can run in one process. A local cluster declares at least
    MIN_CPUS CPUs, serves no dashboard, does not have the pseudonym key, and ends with this process.
    """
    # Ray's future default; unset, Ray warns of the change.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing about a hospital's cluster goes to Ray's makers
    import ray

    if not ray.is_initialized():
        if os.environ.get("RAY_ADDRESS"):
            ray.init(logging_level=logging.WARNING)
        else:
            _start_local()
    _quiet_data()


def check_temporary_folder() -> None:
    """Raise BadInput if Ray cannot work in the temporary folder: its path is too long, or it cannot be written.

    Ray puts its sockets there. Otherwise it fails after a while, with an error that does not name the variable.
    """
    is_mac = sys.platform == "darwin"
    name = "RAY_TMPDIR" if is_mac or "RAY_TMPDIR" in os.environ else "TMPDIR"  # as Ray chooses
    place = os.environ.get(name, "/tmp")
    most = (103 if is_mac else 107) - len(SOCKET)
    if len(os.fsencode(place)) > most:
        raise BadInput(
            f"expected a temporary folder ({name}) of at most {most} characters, because Ray puts sockets there, found "
            f"one of {len(os.fsencode(place))}; set {name} to a shorter one, such as /tmp."
        )
    try:
        with tempfile.TemporaryFile(dir=place) as probe:
            probe.write(bytes(1 << 16))
    except OSError as error:
        reason = (error.strerror or "it cannot be used").lower()
        raise BadInput(f"cannot write to the temporary folder {place} ({name}): {reason}.") from error


def _start_local() -> None:
    import ray

    check_temporary_folder()
    # Ray's native log reports in the middle of the progress bar, as an error, that each actor of Ray Data "has
    # constructor arguments in the object store". Real errors arrive as exceptions. On a joined cluster the log stays
    # on: it says why a driver ended that lost its head node.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    # This actor of Ray Train asks whether a cloud is about to take a node away; a local machine has no such cloud.
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    # Ray creates a token and warns about it. Without one, RAY_AUTH_MODE=token hangs.
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            with key_hidden(), _without_line(b"Set ray log level from environment variable"):
                ray.init(
                    address="local",
                    num_cpus=max(MIN_CPUS, usable_cores()),
                    include_dashboard=False,
                    logging_level=logging.WARNING,
                    log_to_driver=False,
                )
            return
        except Exception as error:  # Ray has no specific exception type for this
            if "timed out" not in str(error).lower():
                raise
            ray.shutdown()
            if attempt == START_ATTEMPTS:
                raise JobFailed(
                    f"Ray did not start in time on this machine, {attempt} times in a row: it is too busy. Start the "
                    "command again when other work has ended."
                ) from error


@contextmanager
def _without_line(text: bytes) -> Iterator[None]:
    """Keep lines with `text` off standard error; the others appear at the end. Ray's native code writes to the file
    descriptor, and announces the level of its log before the level counts."""
    with tempfile.TemporaryFile() as held:
        stderr = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            held.seek(0)
            os.write(2, b"".join(line for line in held if text not in line))


def parallel_tasks() -> int | None:
    """The number of tasks to run at a time: one per core on a local cluster, None (no limit) on a joined one.

    A local cluster declares more CPUs than a small machine has, and more processes than cores only start more slowly.
    A joined cluster may grow with the number of waiting tasks; a limit would prevent that.
    """
    return None if os.environ.get("RAY_ADDRESS") else usable_cores()


def model_pool(cpus: int, gpus: int, workers: int | None) -> tuple[int, dict[str, Any]]:
    """The number of model actors and the resources of each, for a cluster with this many CPUs and GPUs.

    With GPUs an actor takes one GPU, or a share if there are more actors than GPUs. Without, there is one per two CPUs
    by default, and each has one thread. Actors hold almost no CPU: after the loss of a node the reading tasks still fit
    on what is left, down to one CPU. Raises BadInput for more workers than CPUs, or no CPU at all.
    """
    count = workers or gpus or max(1, cpus // 2)
    # One thread each: the threads of one forward pass wait for each other whenever a reader takes a core from one.
    resources: dict[str, Any] = {"memory": MODEL_MEMORY_BYTES, "num_cpus": 0 if gpus else MODEL_CPUS}
    if gpus:
        resources["num_gpus"] = min(1, gpus / count)
    if cpus < (1 if gpus else count):
        raise BadInput(
            f"expected a cluster with at least {max(1, count)} CPUs for {count} model workers, found {cpus}."
        )
    return count, resources


def grown(cpus: int, gpus: int) -> tuple[int, int]:
    """The CPUs and GPUs of the cluster. If a joined one has fewer than these, requests more and waits for them.

    A group of nodes that starts empty, or has just lost a node, needs minutes. After GROWTH_S fewer CPUs have to do. If
    GPUs are then still missing, raises JobFailed; on a local cluster, which cannot grow, BadInput at once.
    """
    import ray
    from ray.util import placement_group, remove_placement_group

    def there() -> tuple[int, int]:
        found = ray.cluster_resources()
        return int(found.get("CPU", 0)), int(found.get("GPU", 0))

    def is_enough() -> bool:
        found = there()
        return found[0] >= cpus and found[1] >= gpus

    is_joined = bool(os.environ.get("RAY_ADDRESS"))
    if not is_enough() and is_joined:
        # The autoscaler starts nodes for a waiting group. Its own request_resources outlives the job: the nodes would
        # stay for ever.
        waiting = placement_group([{"CPU": 1}] * cpus + [{"GPU": 1}] * gpus)
        ends = time.monotonic() + GROWTH_S
        while not is_enough() and time.monotonic() < ends:
            time.sleep(1)
        remove_placement_group(waiting)
    found = there()
    if found[1] < gpus:
        if not is_joined:
            raise BadInput(f"expected a machine with {gpus} GPUs, as --gpus says, found {found[1]}.")
        raise JobFailed(
            f"The cluster has {found[1]} of {gpus} GPUs after {GROWTH_S / 60:.0f} minutes: start GPU nodes, or ask for "
            "fewer with --gpus."
        )
    return found


def own_error(error: BaseException) -> BadInput | None:
    """The BadInput that a worker raised, from Ray's error around it; None if the worker raised something else.

    Ray Data sends only the text of a worker's error, so the BadInput is found there by its name.
    """
    found = re.findall(r"^\s*spinemet\.errors\.BadInput: (.+)$", str(error), re.MULTILINE)
    return BadInput(found[-1].strip()) if found else None


@contextmanager
def worker_errors() -> Iterator[None]:
    """A context that raises a worker's BadInput in place of Ray's error around it."""
    import ray

    try:
        yield
    except ray.exceptions.RayError as error:
        if (own := own_error(error)) is not None:
            raise own from error
        raise


def _quiet_data() -> None:
    """Keep Ray Data's plans and bars off the terminal, which shows the jobs' own progress bars."""
    from ray.data import DataContext

    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # it would warn that the bars are off
    DataContext.get_current().enable_progress_bars = False
