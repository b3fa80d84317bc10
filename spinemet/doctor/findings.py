"""The result of one check, how a check makes it, and how all of them look at a terminal and as JSON."""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import wraps
from threading import Thread
from typing import Any, ParamSpec

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from spinemet.errors import BadInput

P = ParamSpec("P")

WAIT_S = 60.0
"""Time for one check. A store that hangs, such as a dead network mount, would else hold up the doctor for good."""
_NO_ANSWER = "Check the network and the store, then run the doctor again."


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


@dataclass
class Trouble(Exception):
    """A check raises it for every level but OK."""

    found: str
    remedy: str = ""
    level: Level = Level.PROBLEM


def check(subject: str, remedy: str = "") -> Callable[[Callable[P, str]], Callable[P, Finding]]:
    """Decorator of a check: a function that returns a sentence if all is well, and raises Trouble or BadInput if not.

    remedy: for BadInput, and for a check that has not answered after WAIT_S.
    """

    def decorate(function: Callable[P, str]) -> Callable[P, Finding]:
        @wraps(function)
        def examine(*args: P.args, **kwargs: P.kwargs) -> Finding:
            answer: Future[str] = Future()

            def ask() -> None:
                try:
                    answer.set_result(function(*args, **kwargs))
                except BaseException as error:
                    answer.set_exception(error)

            # A daemon, unlike the threads of a pool: one that waits for a dead mount must not hold up the others.
            Thread(target=ask, name=f"spinemet-doctor-{subject}", daemon=True).start()
            if not wait([answer], WAIT_S).done:
                return Finding(subject, Level.PROBLEM, f"no answer within {WAIT_S:g} s", remedy or _NO_ANSWER)
            try:
                return Finding(subject, Level.OK, answer.result())
            except Trouble as trouble:
                return Finding(subject, trouble.level, trouble.found, trouble.remedy)
            except BadInput as error:
                return Finding(subject, Level.PROBLEM, str(error), remedy)

        return examine

    return decorate


_STYLES = {Level.OK: "green", Level.SKIPPED: "dim", Level.WARNING: "bold yellow", Level.PROBLEM: "bold red"}
_MARKS = {Level.OK: "✔", Level.SKIPPED: "–", Level.WARNING: "!", Level.PROBLEM: "✘"}


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
        style = _STYLES[finding.level]
        text = Text(finding.found, style="dim" if finding.level is Level.SKIPPED else "")
        if finding.remedy:
            text.append(f"\n→ {finding.remedy}", style=style.removeprefix("bold "))
        table.add_row(Text(_MARKS[finding.level], style=style), finding.subject, text)
    counts = Counter(finding.level for finding in findings)
    problems, warnings = (
        f"{counts[level]} {level}{'s' * (counts[level] != 1)}" for level in (Level.PROBLEM, Level.WARNING)
    )
    closing = f"{'Nothing here' if is_ready(findings) else problems} would stop a job"
    closing += f", {warnings}." if counts[Level.WARNING] else "."
    return Padding(Group(table, Text(), Text(closing, "bold green" if is_ready(findings) else "bold red")), (1, 1))
