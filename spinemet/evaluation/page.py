"""A page of tables, described once: Markdown for a file, colours for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True)
class Table:
    """A table with a title and, if given, a sentence `above` and one `below` it.

    rows: cells of text; `**bold**` and `*italic*` as a whole cell. right: columns aligned to the right. narrow: columns
    of intervals whose value alone is shown at a terminal. terminal: False for a table that only the file shows.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    above: str = ""
    below: str = ""
    right: Sequence[str] = ()
    narrow: Sequence[str] = ()
    terminal: bool = True

    def lines(self) -> Iterator[str]:
        """The table as lines of Markdown."""
        rules = ["---:" if name in self.right else "---" for name in self.columns]
        yield from (f"## {self.title}", "")
        if self.above:
            yield from (self.above, "")
        for cells in (self.columns, rules, *self.rows):
            yield "|" + "".join(f" {cell} |" if cell else " |" for cell in cells)
        if self.below:
            yield from ("", self.below)

    def render(self) -> RenderableType:
        """The table for a terminal; of neighbouring rows with the same first cell, the first shows it."""
        from rich import box
        from rich.table import Table as Rich

        table = Rich(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
        for name in self.columns:
            table.add_column(name, justify="right" if name in self.right else "left", overflow="fold")
        grouped = any(row[0] == following[0] for row, following in pairwise(self.rows))
        before = ""
        for row in self.rows:
            if grouped and before and row[0] != before:
                table.add_section()
            cells = [
                cell.partition(" ")[0] if name in self.narrow else cell
                for name, cell in zip(self.columns, row, strict=True)
            ]
            table.add_row("" if grouped and row[0] == before else _text(cells[0], "bold"), *map(_text, cells[1:]))
            before = row[0]
        return table


@dataclass(frozen=True)
class Page:
    """A titled page: some paragraphs, then tables."""

    title: str
    paragraphs: Sequence[str]
    tables: Sequence[Table]

    def markdown(self) -> str:
        """The whole page."""
        blocks = [f"# {self.title}", *self.paragraphs, *("\n".join(table.lines()) for table in self.tables)]
        return "\n\n".join(blocks) + "\n"

    def render(self) -> RenderableType:
        """The page for a terminal."""
        from rich.console import Group
        from rich.text import Text

        parts: list[RenderableType] = [Text(self.title, style="bold"), *map(Text, self.paragraphs)]
        for table in self.tables:
            if table.terminal:
                parts += [Text(f"\n{table.title}", style="bold cyan"), *([Text(table.above)] if table.above else [])]
                parts += [table.render(), *([Text(table.below)] if table.below else [])]
        return Group(*parts)


def _text(cell: str, style: str = "") -> RenderableType:
    from rich.text import Text

    if cell.startswith("**"):
        return Text(cell.strip("*"), style="bold")
    return Text(cell.strip("*"), style="dim") if cell.startswith("*") else Text(cell, style=style)
