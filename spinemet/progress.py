"""Progress of long work, on standard error: a bar at a terminal, a line now and then in a log."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

LINE_EVERY_S = 15.0
"""Between two lines in a log: rare enough to read, often enough to see that the work is alive."""


class Progress(Protocol):
    """A function that long work calls with the count done, the total (0 while unknown) and a few words on the state."""

    def __call__(self, done: int, total: int, note: str = "") -> None: ...


def no_progress(done: int, total: int, note: str = "") -> None:
    """A Progress that shows nothing."""


@contextmanager
def progress_bar(title: str) -> Iterator[Progress]:
    """A Progress that shows `title`, a bar, counts, elapsed and remaining time; its last state stays on the screen."""
    with _bar(title) if sys.stderr.isatty() else _lines(title) as advance:
        yield advance


@contextmanager
def _bar(title: str) -> Iterator[Progress]:
    from rich import progress as rich
    from rich.console import Console

    columns = (
        rich.SpinnerColumn(finished_text="[green]✔"),
        rich.TextColumn("{task.description:<34}"),
        rich.BarColumn(bar_width=28),
        rich.MofNCompleteColumn(),
        rich.TimeElapsedColumn(),
        rich.TimeRemainingColumn(elapsed_when_finished=False),
        rich.TextColumn("[dim]{task.fields[note]}"),
    )
    with rich.Progress(*columns, console=Console(stderr=True), refresh_per_second=5) as bar:
        task = bar.add_task(title, total=None, note="")

        def advance(done: int, total: int, note: str = "") -> None:
            bar.update(task, completed=done, total=total or None, note=note)

        yield advance
        shown = bar.tasks[0]
        end = shown.total or max(shown.completed, 1)
        bar.update(task, total=end, completed=end)


@contextmanager
def _lines(title: str) -> Iterator[Progress]:
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
