"""Every link in the documents leads somewhere, and every command in them is one that the programs accept."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import typer.core
import typer.main

import spinemet.cli

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted(
    ROOT / name
    for name in subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
)
OTHER_PROGRAMS = {"export", "source", "ray", "kubectl", "docker", "git", "cd", "openssl", "umask", "chmod", "helm"}
"""What a document may ask a reader to run besides our own commands; not checked further."""
FRONT_LINES = 150
UsageError = typer.BadParameter.__bases__[0]
"""What typer raises for a command line that it does not accept."""


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command in the `sh` blocks of a document; a quoted text may go over several lines."""
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        pending = ""
        for line in block.replace("\\\n", " ").splitlines():
            pending += line + "\n"
            try:
                words = shlex.split(pending, comments=True)
            except ValueError:  # a quotation goes on in the next line
                continue
            pending = ""
            if words:
                yield words
        assert not pending, f"a quotation does not end: {pending}"


def anchors(document: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def check(words: list[str]) -> None:
    """Raise if our programs do not accept this command line; the error says why."""
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    match words:
        case ["make", *targets]:
            known = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
            for target in targets:
                assert "=" in target or target in known, f"expected a target of the Makefile, found {target}"
        case ["spinemet", *arguments]:
            parse(typer.main.get_command(spinemet.cli.app), arguments)
        case ["python", script, *arguments] if job := re.search(r"\bjobs/(\w+)\.py$", script):
            parse(typer.main.get_command(importlib.import_module(f"jobs.{job[1]}").app), arguments)
        case ["ray", "job", "submit", *rest]:
            check(rest[rest.index("--") + 1 :])
        case [program, *_]:
            assert program in OTHER_PROGRAMS, f"expected one of our commands, found {program}"


def parse(command: Any, arguments: list[str]) -> None:
    """Parse as the program would, without running it."""
    if arguments == ["--help"]:
        return
    context = command.make_context("documented", list(arguments))
    if isinstance(command, typer.core.TyperGroup):
        _, chosen, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        parse(chosen, rest)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), f"{link} leads nowhere"
        if anchor:
            assert anchor in anchors(target / "README.md" if target.is_dir() else target), f"{link} leads nowhere"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_are_accepted(document: Path) -> None:
    for command in commands(document.read_text()):
        try:
            check(command)
        except (UsageError, AssertionError) as error:
            message = getattr(error, "message", str(error))
            pytest.fail(f"{shlex.join(command)}: {message}")


@pytest.mark.parametrize(
    "wrong",
    [
        "make dmeo",
        "spinemet stduy PATH",
        "spinemet study PATH --modle M",
        "spinemet report",
        "python jobs/train.py",
        "rm x",
    ],
)
def test_a_wrong_command_is_found(wrong: str) -> None:
    with pytest.raises((UsageError, AssertionError)):
        check(shlex.split(wrong))


def test_the_front_page_is_short_and_its_picture_small() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= FRONT_LINES
    (picture,) = re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)
    assert (ROOT / picture).stat().st_size < 300_000


def test_the_picture_of_the_house_has_the_floors_of_the_contract() -> None:
    house = (ROOT / "spinemet/README.md").read_text()
    floors = (ROOT / "pyproject.toml").read_text().split("layers = [")[1].split("]")[0]
    rooms = re.findall(r"spinemet\.(\w+)", floors)
    drawing = house.split("```")[1]
    for room in rooms:
        assert re.search(rf"\b{room}\b", drawing), f"{room} is missing in the picture of the house"
