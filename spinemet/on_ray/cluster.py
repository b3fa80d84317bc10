"""The Ray cluster a job runs on: the one that is there, else a local one."""

from __future__ import annotations

import logging
import os

from spinemet.errors import SpineMetError

MIN_CPUS = 4
"""A Data pipeline on 2 declared CPUs can deadlock: an actor per stage takes them all (FACTS.md section 4)."""


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
            # Ray makes a token by itself and warns that it did; RAY_AUTH_MODE=token without one hangs instead.
            logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
            ray.init(
                address="local",
                num_cpus=max(min_cpus, os.cpu_count() or 1),
                include_dashboard=False,
                logging_level=logging.WARNING,
                log_to_driver=False,
            )
    _quiet_data()


def usable_cpus() -> int:
    """How many processes the cluster can really run at a time, at least 1; ask after `connect`.

    A local cluster declares more CPUs than a small machine has, and more readers than cores get in each other's way.
    """
    import ray

    declared = int(ray.cluster_resources().get("CPU", 1))
    alone = len(ray.nodes()) == 1
    return max(1, min(declared, os.cpu_count() or 1) if alone else declared)


def own_error(error: BaseException) -> SpineMetError | None:
    """The SpineMetError that a worker raised, out of the error that Ray made of it; None where it was another."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, SpineMetError):
            return seen
        seen = getattr(seen, "cause", None) or seen.__cause__
    return None


def _quiet_data() -> None:
    """Leave the terminal to the jobs' own progress bars: Ray Data's plans and bars stay out of it."""
    from ray.data import DataContext

    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # it warns that the bars are off
    DataContext.get_current().enable_progress_bars = False
