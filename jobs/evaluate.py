"""Measure a model on patients it never saw: `python jobs/evaluate.py --help`, or with `ray job submit`."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

from typer import Option

from spinemet.commands import console, one_command, run_command
from spinemet.progress import progress_bar


def evaluate(
    model: Annotated[str, Option(help="Model folder, local or s3://.")],
    crops: Annotated[str, Option(help="Folder or s3:// prefix made by jobs/prepare.py.")],
    out: Annotated[str, Option(help="Folder or s3:// prefix for the tables and figures.")],
    split: Annotated[
        Literal["test", "all"],
        Option(help="test: the patients that training set aside. all: every patient, for crops new to the model."),
    ] = "test",
    baseline: Annotated[str | None, Option(help="Another model to compare with on the same patients.")] = None,
) -> None:
    """Measure a model on the crops of patients it never saw.

    Exit codes: 0 done, 1 the job failed, 2 bad input.
    """
    from spinemet.evaluation.evaluate import run_evaluate
    from spinemet.evaluation.pages import evaluation_page

    with progress_bar("Evaluating") as advance:
        found = run_evaluate(model, crops, out, split, advance, baseline)
    console().print(evaluation_page(found).render())


app = one_command(evaluate)


def main(argv: list[str] | None = None) -> int:
    """Run the job with the arguments `argv` (default: the process's own); gives the exit code."""
    return run_command(app, "evaluate", argv)


if __name__ == "__main__":
    sys.exit(main())
