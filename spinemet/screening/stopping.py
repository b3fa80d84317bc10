"""How a run ends early: on SIGTERM, at a deadline, or because nothing is done any more."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from enum import StrEnum
from queue import Empty, Full, Queue
from types import FrameType, TracebackType
from typing import Any, TypeVar

from spinemet.errors import JobFailed

T = TypeVar("T")
WAKE_S = 0.5
"""A run that waits for answers checks at least this often whether it should stop."""
MINUTE_S = 60.0
STALLED_S = 1800.0
"""Longest time without a finished study. A node takes up to 15 minutes to come; a study that hangs ends after 10."""


class StopReason(StrEnum):
    """Why a run ended early."""

    SIGNAL = "signal"
    DEADLINE = "deadline"


class Stop:
    """A context in which SIGTERM ends the run cleanly; `why` says whether to stop.

    Before `defer` is called, SIGTERM raises SystemExit at once, which releases the lease on its way out. Afterwards it
    is only noted, so that the run can commit first. deadline_s: the run stops after this many seconds.
    """

    def __init__(self, deadline_s: float | None = None) -> None:
        self._ends = None if deadline_s is None else time.monotonic() + deadline_s
        self._signalled = False
        self._deferred = False
        self._before: Callable[[int, FrameType | None], Any] | int | None = None

    def why(self) -> StopReason | None:
        """Why to stop now; None to go on."""
        if self._signalled:
            return StopReason.SIGNAL
        return StopReason.DEADLINE if self._ends is not None and time.monotonic() >= self._ends else None

    def defer(self) -> None:
        """Only note SIGTERM from here on. Call this after Ray has started: Ray sets a handler of its own."""
        self._deferred = True
        self._listen()

    def __enter__(self) -> Stop:
        self._before = signal.getsignal(signal.SIGTERM)
        self._listen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None and _in_main_thread():
            signal.signal(signal.SIGTERM, self._before)

    def _listen(self) -> None:
        if _in_main_thread():
            signal.signal(signal.SIGTERM, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signalled = True
        if not self._deferred:
            sys.exit(128 + number)


class Watchdog:
    """Notices that no study is finished: `quiet_minutes` for a line in the log, `stalled` for the end of the run."""

    def __init__(self, limit_s: float = STALLED_S) -> None:
        self._limit_s = limit_s
        self.answered()

    def answered(self) -> None:
        """A study was finished."""
        self._since, self._said = time.monotonic(), 0

    def quiet_minutes(self) -> int:
        """The whole minutes since a study was finished, once for each minute; 0 if there is nothing new to say."""
        minutes = int((time.monotonic() - self._since) / MINUTE_S)
        if minutes <= self._said:
            return 0
        self._said = minutes
        return minutes

    def stalled(self) -> JobFailed | None:
        """The error to end the run with if no study was finished for too long; None if one was."""
        if time.monotonic() - self._since <= self._limit_s:
            return None
        return JobFailed(
            f"No study was finished for {self._limit_s / MINUTE_S:.0f} minutes, so the run ended: the cluster may have "
            "lost its nodes, or have no CPU or memory left for reading (ray status shows both). What was committed "
            "stands; the next run does the rest."
        )


def arriving(items: Generator[T, None, None], ahead: int, wake_s: float = WAKE_S) -> Iterator[T | None]:
    """The items of `items`, and None whenever none arrives for `wake_s`: a slow item never blocks the caller.

    A thread draws from `items`, at most `ahead` in advance; its exceptions are raised here. After the caller closes
    this iterator, the thread ends at its next item and closes `items`.
    """
    arrived: Queue[tuple[bool, Any]] = Queue(maxsize=ahead)
    closed = threading.Event()

    def hand_over(more: bool, item: Any) -> None:
        while not closed.is_set():
            with suppress(Full):
                return arrived.put((more, item), timeout=WAKE_S)

    def draw() -> None:
        try:
            for item in items:
                hand_over(True, item)
                if closed.is_set():
                    return
            hand_over(False, None)
        except BaseException as error:
            hand_over(False, error)
        finally:
            items.close()

    threading.Thread(target=draw, name="answers", daemon=True).start()
    try:
        while True:
            try:
                more, item = arrived.get(timeout=wake_s)
            except Empty:
                yield None
                continue
            if more:
                yield item
            elif item is None:
                return
            else:
                raise item
    finally:
        closed.set()


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
