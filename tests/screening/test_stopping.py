"""A run stops on SIGTERM or at its deadline, and is never blocked by a slow item."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from spinemet.errors import JobFailed
from spinemet.screening import stopping
from spinemet.screening.stopping import Stop, StopReason, Watchdog, arriving


def test_sigterm_ends_the_run_at_once_before_defer_and_is_noted_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM)

    def run() -> None:
        with Stop():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)

    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == 143
    with Stop() as stop:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Ray, when it starts, also sets a handler of its own
        stop.defer()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.why() is StopReason.SIGNAL
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_deadline_comes() -> None:
    with Stop(0.05) as stop:
        assert stop.why() is None
        time.sleep(0.06)
        assert stop.why() is StopReason.DEADLINE


def test_a_thread_that_gets_no_signals_still_has_its_deadline() -> None:
    reasons: list[StopReason | None] = []

    def run() -> None:
        with Stop(0) as stop:
            stop.defer()
            reasons.append(stop.why())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert reasons == [StopReason.DEADLINE]


def test_a_slow_item_does_not_block_the_caller() -> None:
    def slow() -> Iterator[int]:
        yield 1
        time.sleep(0.3)
        yield 2

    arrived = list(arriving(slow(), 4, wake_s=0.02))
    assert [item for item in arrived if item is not None] == [1, 2]
    assert None in arrived


def test_an_error_arrives_after_the_items_before_it() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise OSError("the store went away")

    items = (item for item in arriving(broken(), 4) if item is not None)
    assert next(items) == 1
    with pytest.raises(OSError, match="went away"):
        next(items)


def test_closing_the_iterator_ends_the_source() -> None:
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


def test_the_watchdog_speaks_once_a_minute_and_ends_a_run_without_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(stopping.time, "monotonic", lambda: now[0])
    watchdog = Watchdog(limit_s=300)
    said = []
    for now[0] in (1059.0, 1060.0, 1061.0, 1119.0, 1121.0, 1300.0):
        said.append(watchdog.quiet_minutes())
        assert watchdog.stalled() is None
    assert said == [0, 1, 0, 0, 2, 5]
    now[0] = 1301.0
    error = watchdog.stalled()
    assert isinstance(error, JobFailed)
    assert str(error).startswith("No study was finished for 5 minutes, so the run ended")
    watchdog.answered()
    assert watchdog.stalled() is None
    now[0] = 1360.0
    assert watchdog.quiet_minutes() == 0
    now[0] = 1362.0
    assert watchdog.quiet_minutes() == 1
