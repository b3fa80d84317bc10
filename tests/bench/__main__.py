"""`make bench [ONLY=name]`: run the benchmarks, print their tables and store them in bench/NAME.json and NAME.md.

A benchmark is a module tests/bench/bench_NAME.py with a function `run() -> Figures`. Times are compared within one
run only: this machine against itself, medians of several.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from tests.bench.figures import Figures, Missing

HERE = Path(__file__).parent
STORE = HERE.parents[1] / "bench"


def names() -> list[str]:
    """Every benchmark, in alphabetical order."""
    return sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))


def main() -> int:
    """Run the asked benchmarks; exit code 0 when each ran or said what it lacks."""
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
        machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
        stored = {"when": datetime.now(UTC).isoformat(), "machine": machine, **figures.stored()}
        (STORE / f"{name}.json").write_text(json.dumps(stored, indent=1) + "\n")
        (STORE / f"{name}.md").write_text(figures.markdown())
    console.print(f"figures are in {STORE}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
