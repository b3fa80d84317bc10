"""Progress of long work: a bar at a terminal, a line now and then in a log. Always on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

LINE_EVERY_S = 15.0
"""Between two lines of one piece of work in a log: rare enough to read, often enough to see that it lives."""


class Advance(Protocol):
    """What long work calls with the count done, the total (0 while unknown), and a few words on the state."""

    def __call__(self, done: int, total: int, note: str = "") -> None: ...


def ignore(done: int, total: int, note: str = "") -> None:
    """An Advance that shows nothing."""


@contextmanager
def progress_bar(title: str) -> Iterator[Advance]:
    """An Advance that shows `title` with a bar, counts, elapsed and remaining time; the last state stays on screen."""
    with _bar(title) if sys.stderr.isatty() else _lines(title) as advance:
        yield advance


@contextmanager
def _bar(title: str) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        SpinnerColumn(finished_text="[green]✔"),
        TextColumn("{task.description:<34}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(elapsed_when_finished=False),
        TextColumn("[dim]{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=5) as progress:
        task = progress.add_task(title, total=None, note="")

        def advance(done: int, total: int, note: str = "") -> None:
            progress.update(task, completed=done, total=total or None, note=note)

        yield advance
        seen = progress.tasks[0]
        progress.update(
            task, total=seen.total or max(seen.completed, 1), completed=seen.total or max(seen.completed, 1)
        )


@contextmanager
def _lines(title: str) -> Iterator[Advance]:
    start = last = time.monotonic()
    print(f"{title} …", file=sys.stderr, flush=True)

    def advance(done: int, total: int, note: str = "") -> None:
        nonlocal last
        if time.monotonic() - last < LINE_EVERY_S:
            return
        last = time.monotonic()
        count = f"{done}/{total}" if total else str(done)
        print(f"{title}: {count} after {last - start:.0f} s {note}".rstrip(), file=sys.stderr, flush=True)

    yield advance
    print(f"{title}: done in {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
