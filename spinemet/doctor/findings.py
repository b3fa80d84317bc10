"""The result of one check, and how all of them look at a terminal and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text


class Level(StrEnum):
    """How serious a finding is. Only a problem stops a job."""

    OK = "ok"
    SKIPPED = "skipped"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """What one check found, in a sentence, and the remedy if there is something to do."""

    subject: str
    level: Level
    found: str
    remedy: str = ""


_MARKS = {
    Level.OK: ("✔", "green"),
    Level.SKIPPED: ("–", "dim"),
    Level.WARNING: ("!", "bold yellow"),
    Level.PROBLEM: ("✘", "bold red"),
}


def is_ready(findings: Sequence[Finding]) -> bool:
    """True if no finding would stop a job."""
    return all(finding.level is not Level.PROBLEM for finding in findings)


def as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """`ready`, and every finding with its subject, level, sentence and remedy."""
    return {"ready": is_ready(findings), "findings": [asdict(finding) for finding in findings]}


def render(findings: Sequence[Finding]) -> RenderableType:
    """One line per finding, its remedy below it, and a closing line that says whether jobs can start."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for finding in findings:
        mark, style = _MARKS[finding.level]
        text = Text(finding.found, style="dim" if finding.level is Level.SKIPPED else "")
        if finding.remedy:
            text.append(f"\n→ {finding.remedy}", style=style.removeprefix("bold "))
        table.add_row(Text(mark, style=style), finding.subject, text)
    return Padding(Group(table, Text(), _closing(findings)), (1, 1))


def _closing(findings: Sequence[Finding]) -> Text:
    problems, warnings = (
        sum(finding.level is level for finding in findings) for level in (Level.PROBLEM, Level.WARNING)
    )
    more = f", {_counted(warnings, 'warning')}" if warnings else ""
    if problems:
        return Text(f"{_counted(problems, 'problem')} would stop a job{more}.", style="bold red")
    return Text(f"Nothing here would stop a job{more}.", style="bold green")


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"
