"""Studies read in a child process with a time and a memory limit.

Native decoders read the archive's bytes, and a decoder that crashes ends its whole process. Ray would retry such a task
for ever. Here a study that crashes, hangs or takes too much memory ends the child process and becomes one ledger row.
The child does not have the pseudonym key.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from functools import cache
from multiprocessing import forkserver
from queue import SimpleQueue
from types import TracebackType
from typing import Any, TypeVar

from pebble import ProcessExpired, ProcessPool

from spinemet.archive.objects import in_order
from spinemet.config import StudyConfig
from spinemet.dicom.pseudonym import key_hidden
from spinemet.errors import Reason, StudyFailed
from spinemet.machine import usable_cores
from spinemet.process.memory import keep_memory
from spinemet.reading import NotScreened, State, StudyReading
from spinemet.study import read_study
from spinemet.types import StudyRef

T = TypeVar("T")

TIME_LIMIT_S = 600.0
"""For one study; 1,000 slices of JPEG 2000 take about a minute on one core."""
MEMORY_LIMIT_BYTES = 8 << 30
"""Address space of the child: about 2 GB for mapped libraries, and three copies of a 1,000-slice float volume."""
STUDIES_PER_CHILD = 100
"""A child that has read this many is replaced, which frees memory that decoders leak or that is fragmented."""


class IsolatedReader:
    """Reads studies one after another in a child process, which is replaced if a study kills it."""

    def __init__(self, time_limit_s: float = TIME_LIMIT_S, memory_limit_bytes: int = MEMORY_LIMIT_BYTES) -> None:
        self._time_limit_s = time_limit_s
        self._memory_limit_bytes = memory_limit_bytes
        self._pool = self._new_pool()

    def _new_pool(self) -> ProcessPool:
        # Not fork: the forked child of a process with Ray's and obstore's threads can deadlock. The fork server has no
        # threads, and it has the imports done for which each new child would need seconds.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        with key_hidden():
            forkserver.ensure_running()
            environment = dict(os.environ)
        return ProcessPool(
            max_workers=1,
            max_tasks=STUDIES_PER_CHILD,
            initializer=_begin,
            initargs=(self._memory_limit_bytes, environment),
            context=context,
        )

    def read(self, ref: StudyRef, config: StudyConfig, *, views: bool = False) -> StudyReading:
        """Like `read_study`; also gives `failed` with the reasons `crashed`, `time_limit` and `memory_limit`."""
        try:
            return self.run(read_study, ref, config, views=views)
        except StudyFailed as problem:
            return NotScreened(State.FAILED, problem.reason, problem.detail)

    def run(self, work: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """The result of `work` in the child; `work` is a function of a module, and its arguments can be pickled.

        Raises StudyFailed (TIME_LIMIT, CRASHED, MEMORY_LIMIT) and the exceptions of `work`.
        """
        try:
            return self._run(work, args, kwargs)
        except BrokenProcessPool:
            # The child died before it got the study (at its start, or killed while idle): not the study's fault.
            self.close()
            self._pool = self._new_pool()
            return self._run(work, args, kwargs)
        except StudyFailed as problem:
            # SIGKILL comes from outside, usually from a kernel short of memory: once is not the study's fault.
            if not (isinstance(problem.__cause__, ProcessExpired) and problem.__cause__.exitcode == -signal.SIGKILL):
                raise
            return self._run(work, args, kwargs)

    def _run(self, work: Callable[..., T], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> T:
        future = self._pool.schedule(work, args=args, kwargs=dict(kwargs), timeout=self._time_limit_s)
        try:
            result: T = future.result()
        except FutureTimeoutError as error:
            limit = f"{self._time_limit_s:.0f} s"
            raise StudyFailed(Reason.TIME_LIMIT, f"the study was not read within {limit}.") from error
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


def read_all(
    refs: Iterable[StudyRef], config: StudyConfig, is_wanted: Callable[[StudyRef], bool]
) -> Iterator[StudyReading | None]:
    """The reading of each of `refs`, in order, with a child process per core; None for a study that is not wanted."""
    cores, readers = usable_cores(), SimpleQueue[IsolatedReader]()

    def read(ref: StudyRef) -> StudyReading | None:
        if not is_wanted(ref):
            return None
        reader = readers.get()
        try:
            return reader.read(ref, config)
        finally:
            readers.put(reader)

    with ExitStack() as stack:
        for _ in range(cores):
            readers.put(stack.enter_context(IsolatedReader()))
        pool = stack.enter_context(ThreadPoolExecutor(2 * cores))
        yield from (reading for _, reading in in_order(pool, read, refs, ahead=2 * cores))


@cache
def process_reader() -> IsolatedReader:
    """This process's one reader. Ray reuses its worker processes, so one child and its imports serve many studies."""
    return IsolatedReader()


def _begin(limit_bytes: int, environment: Mapping[str, str]) -> None:
    """Prepare the child: limits, no output, and today's environment instead of the fork server's."""
    os.environ.update(environment)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, hard))
    # A crash becomes a ledger row. A core file would put gigabytes on the node's disk, with pixels and names.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    keep_memory()
    # Decoders print values that they find in the headers, and Ray would log them.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    os.close(nowhere)
