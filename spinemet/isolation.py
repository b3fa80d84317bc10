"""Studies read in a child process with a time and a memory limit.

Archive bytes go through native decoders, and a decoder that crashes takes its process with it: Ray would retry such
a task for ever (FACTS.md section 4). Here a crash, a hang or a greedy study costs the child, and one ledger row.
"""

from __future__ import annotations

import multiprocessing
import resource
from concurrent.futures import TimeoutError as FutureTimeoutError
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType

from pebble import ProcessExpired, ProcessPool

from spinemet.config import StudyConfig
from spinemet.errors import Reason
from spinemet.study import read_study
from spinemet.types import State, StudyReading, StudyRef

TIME_LIMIT_S = 600.0
"""Per study; a 1,000-slice JPEG 2000 study takes about a minute on one core."""
MEMORY_LIMIT_BYTES = 8 << 30
"""Address space of the child: about 2 GB of libraries' mappings and three copies of a 1,000-slice float volume."""


class IsolatedReader:
    """Reads studies one after another in one child process, which is replaced whenever a study kills it."""

    def __init__(self, time_limit_s: float = TIME_LIMIT_S, memory_limit_bytes: int = MEMORY_LIMIT_BYTES) -> None:
        self._time_limit_s = time_limit_s
        self._memory_limit_bytes = memory_limit_bytes
        self._pool = self._new_pool()

    def _new_pool(self) -> ProcessPool:
        # spawn: a fork of a process with Ray's and obstore's threads can deadlock in the child.
        return ProcessPool(
            max_workers=1,
            initializer=_limit_memory,
            initargs=(self._memory_limit_bytes,),
            context=multiprocessing.get_context("spawn"),
        )

    def read(self, ref: StudyRef, config: StudyConfig, *, views: bool = False) -> StudyReading:
        """As `read_study`, with `failed: crashed`, `failed: time_limit` and `failed: memory_limit` besides."""
        try:
            return self._read(ref, config, views)
        except BrokenProcessPool:
            # The child died before it took the study (at its start, or killed while idle): not the study's doing.
            self.close()
            self._pool = self._new_pool()
            return self._read(ref, config, views)

    def _read(self, ref: StudyRef, config: StudyConfig, views: bool) -> StudyReading:
        future = self._pool.schedule(
            read_study, args=(ref, config), kwargs={"views": views}, timeout=self._time_limit_s
        )
        try:
            return future.result()
        except FutureTimeoutError:
            detail = f"expected a reading within {self._time_limit_s:.0f} s, found none."
            return StudyReading(State.FAILED, Reason.TIME_LIMIT, detail)
        except ProcessExpired as death:
            detail = f"the process that read the study died (exit code {death.exitcode})."
            return StudyReading(State.FAILED, Reason.CRASHED, detail)

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


def _limit_memory(limit_bytes: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, hard))
