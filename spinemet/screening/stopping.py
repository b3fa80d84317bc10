"""How a run ends before its work does: asked by a signal, or at its hour. Knows no Ray."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from queue import Empty, Full, Queue
from types import FrameType, TracebackType
from typing import Any, TypeVar

T = TypeVar("T")
WAKE_S = 0.5
"""At least so often a waiting run looks whether it should stop."""


class Stop:
    """A context in which SIGTERM ends the run in order; `why` says whether it should stop, and for what.

    Outside of `deferred` the signal raises SystemExit at once, so that what is held is given back. deadline_s: after
    so many seconds the run stops too.
    """

    def __init__(self, deadline_s: float | None = None) -> None:
        self._ends = None if deadline_s is None else time.monotonic() + deadline_s
        self._signalled = False
        self._deferred = False
        self._before: Callable[[int, FrameType | None], Any] | int | None = None

    def why(self) -> str:
        """`signal`, `deadline`, or empty: go on."""
        if self._signalled:
            return "signal"
        return "deadline" if self._ends is not None and time.monotonic() >= self._ends else ""

    def defer(self) -> None:
        """From here on SIGTERM is only noted. Ray sets a handler of its own when it starts: call this after that."""
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
            signal.signal(signal.SIGTERM, self._hear)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._signalled = True
        if not self._deferred:
            sys.exit(128 + number)


def arriving(items: Generator[T, None, None], ahead: int, wake_s: float = WAKE_S) -> Iterator[T | None]:
    """What `items` gives, and None whenever nothing came for `wake_s`: the caller is never stuck behind a slow item.

    A thread draws from `items`, at most `ahead` in advance; what it raises is raised here. It ends, and closes
    `items`, at its next item after the caller has closed this iterator.
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
