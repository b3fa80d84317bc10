"""Measure a model on crops of patients it never saw: `python jobs/evaluate.py --help`, or with `ray job submit`."""

from __future__ import annotations

import argparse
import sys

from spinemet.errors import SpineMetError
from spinemet.progress import progress_bar


def parser() -> argparse.ArgumentParser:
    """The arguments of this job."""
    arguments = argparse.ArgumentParser(prog="evaluate.py", description=__doc__)
    arguments.add_argument("--model", required=True, help="model folder, local or s3://")
    arguments.add_argument("--crops", required=True, help="what jobs/prepare.py made, local or s3://")
    arguments.add_argument("--out", required=True, help="folder or s3:// prefix for the tables")
    arguments.add_argument(
        "--split",
        choices=("test", "all"),
        default="test",
        help="test: the patients whom training kept apart; all: every patient, for crops the model has never met",
    )
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Exit code 0 when the model is measured, 2 for bad input."""
    wanted = parser().parse_args(argv)
    # After the arguments are known to be right: torch takes seconds to import.
    from rich.console import Console

    from spinemet.evaluate import run_evaluate
    from spinemet.report.evaluation import render

    try:
        with progress_bar("Evaluating") as advance:
            evaluation = run_evaluate(wanted.model, wanted.crops, wanted.out, wanted.split, advance)
    except SpineMetError as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2
    console = Console()
    # In a log there is no width to fit: the tables need 100 columns.
    console = console if console.is_terminal else Console(width=110)
    console.print(render(evaluation.facts, evaluation.measures, evaluation.confusions))
    return 0


if __name__ == "__main__":
    sys.exit(main())
