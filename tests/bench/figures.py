"""What a benchmark gives back, and how a stretch of work is timed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rich import box
from rich.table import Table

LEAST_WIDTH = 14
"""Characters that the first column keeps where a table is wider than the terminal."""


class Missing(Exception):
    """The benchmark needs something that is not on this machine."""


@dataclass
class Figures:
    """A table of measured figures: its columns, one list of cells per row, and what was measured in a sentence."""

    title: str
    columns: Sequence[str]
    note: str = ""
    rows: list[list[str | float | int]] = field(default_factory=list)

    def add(self, *cells: str | float | int) -> None:
        """Append one row."""
        assert len(cells) == len(self.columns), f"expected {len(self.columns)} cells, found {len(cells)}"
        self.rows.append(list(cells))

    def rendered(self) -> Table:
        """For the terminal; floats with three significant digits."""
        table = Table(
            title=self.title, caption=self.note, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold"
        )
        words = [word for row in self.rows for word in str(row[0]).split()]
        least = min(max(map(len, words), default=0), LEAST_WIDTH)
        for number, column in enumerate(self.columns):
            table.add_column(column, **({"min_width": least} if number == 0 else {"justify": "right"}))
        for row in self.rows:
            table.add_row(*(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row))
        return table

    def markdown(self) -> str:
        """For the README: the table alone, with the cells that `rendered` shows."""
        cells = [list(self.columns), ["---"] * len(self.columns)]
        cells += [[f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row] for row in self.rows]
        return "".join(f"| {' | '.join(row)} |\n" for row in cells)

    def stored(self) -> dict[str, object]:
        """For bench/NAME.json."""
        return {
            "title": self.title,
            "note": self.note,
            "rows": [dict(zip(self.columns, row, strict=True)) for row in self.rows],
        }


def median_seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """Median wall-clock seconds of `work` over `repeats` runs after one that warms caches."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
