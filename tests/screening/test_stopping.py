from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from spinemet.screening.stopping import Stop, StopReason, arriving


def test_a_signal_is_noted_while_it_is_deferred_and_ends_the_run_at_once_before_that() -> None:
    before = signal.getsignal(signal.SIGTERM)

    def run() -> None:
        with Stop():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)

    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == 143
    with Stop() as stop:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as Ray does when it starts: a handler of its own
        stop.defer()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.why() is StopReason.SIGNAL
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_deadline_comes() -> None:
    with Stop(0.05) as stop:
        assert stop.why() is None
        time.sleep(0.06)
        assert stop.why() is StopReason.DEADLINE


def test_a_thread_that_cannot_hear_signals_still_has_its_deadline() -> None:
    heard: list[StopReason | None] = []

    def run() -> None:
        with Stop(0) as stop:
            stop.defer()
            heard.append(stop.why())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert heard == [StopReason.DEADLINE]


def test_nobody_waits_behind_a_slow_item() -> None:
    def slow() -> Iterator[int]:
        yield 1
        time.sleep(0.3)
        yield 2

    came = list(arriving(slow(), 4, wake_s=0.02))
    assert [item for item in came if item is not None] == [1, 2]
    assert None in came


def test_an_error_arrives_after_the_items_before_it() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise OSError("the store went away")

    items = (item for item in arriving(broken(), 4) if item is not None)
    assert next(items) == 1
    with pytest.raises(OSError, match="went away"):
        next(items)


def test_who_leaves_early_ends_the_source() -> None:
    ended = threading.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
                time.sleep(0.01)
        finally:
            ended.set()

    items = arriving(endless(), 2)
    assert next(iter(items)) == 1
    items.close()
    assert ended.wait(5)
