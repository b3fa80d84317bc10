"""`make bench [ONLY=name]`: run benchmarks and print their tables.

Each table goes to bench/NAME.json and into the README.md that has the place for it (figures.py). A benchmark is a
module tests/bench/bench_NAME.py with a function `run() -> Figures`. Compare times within one run only: the speed of a
machine changes.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from tests.bench.figures import Figures, Missing, update_pages

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
STORE = ROOT / "bench"


def names() -> list[str]:
    """Every benchmark, in alphabetical order."""
    return sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))


def main() -> int:
    """Run the requested benchmarks. Exit code 0 if each ran or named what it needs."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("only", nargs="*", choices=[[], *names()], help="default: all")
    console = Console()
    console = console if console.is_terminal else Console(width=120)
    STORE.mkdir(exist_ok=True)
    for name in parser.parse_args().only or names():
        module = importlib.import_module(f"tests.bench.bench_{name}")
        try:
            figures: Figures = module.run()
        except Missing as missing:
            console.print(f"{name}: left out, {missing}")
            continue
        console.print(figures.rendered())
        now, commit, machine = datetime.now(UTC), _commit(), _machine()
        stored = {"when": now.isoformat(), "commit": commit, "machine": machine, **figures.stored()}
        (STORE / f"{name}.json").write_text(json.dumps(stored, indent=1) + "\n")
        measured = f"Measured at commit {commit} on {now:%Y-%m-%d}: {machine}."
        for page in update_pages(ROOT, name, figures.section(measured)):
            console.print(f"updated {page.relative_to(ROOT)}")
    console.print(f"figures are in {STORE}")
    return 0


def _commit() -> str:
    """The commit of the working tree, marked if files have changed since; `unknown` outside of git."""
    command = ["git", "describe", "--always", "--abbrev=7", "--dirty= with changes"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _machine() -> str:
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


if __name__ == "__main__":
    raise SystemExit(main())
