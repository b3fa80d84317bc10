"""The result of a benchmark: a table for the terminal, for a file, and for the README.md that shows it."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich import box
from rich.table import Table

LEAST_WIDTH = 14
"""Characters that the first column keeps if the table is wider than the terminal."""
PAGES = ("tests/bench/README.md", "spinemet/*/README.md")
"""Where update_pages looks for a place for a table."""


class Missing(Exception):
    """The benchmark needs something that is not on this machine."""


@dataclass
class Figures:
    """A table of measured figures: columns, one list of cells per row, and a note on what was measured."""

    title: str
    columns: Sequence[str]
    note: str = ""
    rows: list[list[str | float | int]] = field(default_factory=list)

    def add(self, *cells: str | float | int) -> None:
        """Append one row."""
        assert len(cells) == len(self.columns), f"expected {len(self.columns)} cells, found {len(cells)}"
        self.rows.append(list(cells))

    def rendered(self) -> Table:
        """The table for the terminal; floats with three significant digits."""
        table = Table(
            title=self.title, caption=self.note, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold"
        )
        words = [word for row in self.rows for word in str(row[0]).split()]
        least = min(max(map(len, words), default=0), LEAST_WIDTH)
        for number, column in enumerate(self.columns):
            table.add_column(column, **({"min_width": least} if number == 0 else {"justify": "right"}))
        for row in self.rows:
            table.add_row(*map(_shown, row))
        return table

    def markdown(self) -> str:
        """The table alone, with the cells of `rendered`."""
        cells = [
            list(self.columns),
            ["---"] * len(self.columns),
            *([_shown(cell) for cell in row] for row in self.rows),
        ]
        return "".join(f"| {' | '.join(row)} |\n" for row in cells)

    def section(self, measured: str) -> str:
        """Title, table, note, and `measured`: when and where. For update_pages."""
        note = f"{self.note[:1].upper()}{self.note[1:].rstrip('.')}.\n\n" if self.note else ""
        return f"**{self.title}**\n\n{self.markdown()}\n{note}{measured}\n"

    def stored(self) -> dict[str, object]:
        """For bench/NAME.json."""
        return {
            "title": self.title,
            "note": self.note,
            "rows": [dict(zip(self.columns, row, strict=True)) for row in self.rows],
        }


def update_pages(root: Path, name: str, section: str) -> list[Path]:
    """Write `section` into every page of PAGES that has a place for benchmark `name`; gives these pages.

    The place is what stands between the lines `<!-- figures: NAME -->` and `<!-- end of figures -->`.
    """
    place = re.compile(rf"(<!-- figures: {re.escape(name)} -->\n).*?(<!-- end of figures -->)", re.DOTALL)
    changed = []
    for page in sorted(page for pattern in PAGES for page in root.glob(pattern)):
        text, count = place.subn(lambda match: f"{match[1]}{section}{match[2]}", page.read_text())
        if count:
            page.write_text(text)
            changed.append(page)
    return changed


def median_seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """Median wall-clock seconds of `work` over `repeats` runs after one that warms caches."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _shown(cell: str | float | int) -> str:
    return f"{cell:.3g}" if isinstance(cell, float) else str(cell)
