"""Studies read in a child process with a time and a memory limit.

Archive bytes go through native decoders, and a decoder that crashes takes its process with it: Ray would retry such
a task for ever (FACTS.md section 4). Here a crash, a hang or a greedy study costs the child, and one ledger row.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
from collections.abc import Callable, Mapping
from concurrent.futures import TimeoutError as FutureTimeoutError
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from types import TracebackType
from typing import Any, TypeVar

from pebble import ProcessExpired, ProcessPool

from spinemet.config import StudyConfig
from spinemet.errors import Reason, StudyFailed
from spinemet.process.memory import keep_memory
from spinemet.study import read_study
from spinemet.types import NotScreened, State, StudyReading, StudyRef

T = TypeVar("T")

TIME_LIMIT_S = 600.0
"""Per study; a 1,000-slice JPEG 2000 study takes about a minute on one core."""
MEMORY_LIMIT_BYTES = 8 << 30
"""Address space of the child: about 2 GB of libraries' mappings and three copies of a 1,000-slice float volume."""
STUDIES_PER_CHILD = 100
"""Then it is replaced: what decoders leak, and the holes in memory that it keeps, end with it."""


class IsolatedReader:
    """Reads studies one after another in one child process, which is replaced whenever a study kills it."""

    def __init__(self, time_limit_s: float = TIME_LIMIT_S, memory_limit_bytes: int = MEMORY_LIMIT_BYTES) -> None:
        self._time_limit_s = time_limit_s
        self._memory_limit_bytes = memory_limit_bytes
        self._pool = self._new_pool()

    def _new_pool(self) -> ProcessPool:
        # Not fork: a process with Ray's and obstore's threads can deadlock in its forked child. The fork server has
        # no threads, and has imported once what a child that replaces another would need seconds for.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        return ProcessPool(
            max_workers=1,
            max_tasks=STUDIES_PER_CHILD,
            initializer=_begin,
            initargs=(self._memory_limit_bytes, dict(os.environ)),
            context=context,
        )

    def read(self, ref: StudyRef, config: StudyConfig, *, views: bool = False) -> StudyReading:
        """As `read_study`, with `failed: crashed`, `failed: time_limit` and `failed: memory_limit` besides."""
        try:
            return self.run(read_study, ref, config, views=views)
        except StudyFailed as problem:
            return NotScreened(State.FAILED, problem.reason, problem.detail)

    def run(self, work: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """What `work`, a function of a module, gives in the child for arguments that can be pickled.

        Raises StudyFailed: TIME_LIMIT, CRASHED, MEMORY_LIMIT; and what `work` raises.
        """
        try:
            return self._run(work, args, kwargs)
        except BrokenProcessPool:
            # The child died before it took the study (at its start, or killed while idle): not the study's doing.
            self.close()
            self._pool = self._new_pool()
            return self._run(work, args, kwargs)
        except StudyFailed as problem:
            # SIGKILL comes from outside, as a rule from a kernel short of memory: once is not the study's doing.
            if not (isinstance(problem.__cause__, ProcessExpired) and problem.__cause__.exitcode == -signal.SIGKILL):
                raise
            return self._run(work, args, kwargs)

    def _run(self, work: Callable[..., T], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> T:
        future = self._pool.schedule(work, args=args, kwargs=dict(kwargs), timeout=self._time_limit_s)
        try:
            result: T = future.result()
        except FutureTimeoutError as error:
            limit = f"{self._time_limit_s:.0f} s"
            raise StudyFailed(Reason.TIME_LIMIT, f"expected a reading within {limit}, found none.") from error
        except ProcessExpired as death:
            detail = f"the process that read the study died (exit code {death.exitcode})."
            raise StudyFailed(Reason.CRASHED, detail) from death
        except MemoryError as error:
            raise StudyFailed(Reason.MEMORY_LIMIT, "the study did not fit into the memory allowed.") from error
        return result

    def close(self) -> None:
        """End the child."""
        self._pool.stop()
        self._pool.join()

    def __enter__(self) -> IsolatedReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@cache
def process_reader() -> IsolatedReader:
    """This process's one reader. Ray reuses its worker processes, so one child and its imports serve many studies."""
    return IsolatedReader()


def _begin(limit_bytes: int, environment: Mapping[str, str]) -> None:
    """Make the child ready: limits, silence, and the environment as it is now, not as the fork server began with it."""
    os.environ.update(environment)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, hard))
    # A crash is a row of the ledger; its core would be gigabytes on the node's disk, pixels and names included.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    keep_memory()
    # What decoders print, Ray would log; they quote what they find in the headers.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    os.close(nowhere)
