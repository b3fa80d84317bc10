"""Measure a model on patients it never saw: `python jobs/evaluate.py --help`, or with `ray job submit`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from typer import Option

from spinemet.commands import console, one_command, run_command
from spinemet.config import StudyConfig, load_config
from spinemet.dicom.pseudonym import Pseudonymizer, load_key
from spinemet.doctor.s3 import require_stores
from spinemet.errors import BadInput
from spinemet.progress import progress_bar


def evaluate(
    model: Annotated[str, Option(help="Model folder, local or s3://, or builtin.")],
    out: Annotated[str, Option(help="Folder or s3:// prefix for the tables and figures.")],
    crops: Annotated[str | None, Option(help="Folder or s3:// prefix made by jobs/prepare.py.")] = None,
    archive: Annotated[str | None, Option(help="Instead of crops: folder or s3:// prefix with studies.")] = None,
    labels: Annotated[str | None, Option(help="Label table of the archive: CSV or Parquet, local or s3://.")] = None,
    split: Annotated[
        Literal["test", "all"] | None,
        Option(
            help="test: the patients that training set aside (default for crops). all: every patient, if the model "
            "knows none of them (default for an archive)."
        ),
    ] = None,
    baseline: Annotated[str | None, Option(help="With crops: another model to compare with, same patients.")] = None,
    config: Annotated[Path | None, Option(help="With an archive: TOML file with settings for reading studies.")] = None,
) -> None:
    """Measure a model on labelled patients it never saw, from crops or straight from an archive.

    From an archive it is the external check of a site: the measures also stand by scanner, kernel, slice thickness,
    bone density and contrast, and labels without a vertebra are counted.

    Exit codes: 0 done, 1 the job failed, 2 bad input.
    """
    from spinemet.evaluation.evaluate import run_evaluate
    from spinemet.evaluation.external import run_external
    from spinemet.evaluation.pages import evaluation_page

    require_stores(model, crops, archive, labels, out, baseline)
    with progress_bar("Evaluating") as advance:
        if crops is not None and archive is None and labels is None and config is None:
            found = run_evaluate(model, crops, out, split or "test", advance, baseline)
        elif crops is None and archive is not None and labels is not None and baseline is None:
            settings, names = load_config(config, StudyConfig), Pseudonymizer(load_key(), "shifted")
            found = run_external(model, archive, labels, out, names, split or "all", settings, advance)
        else:
            raise BadInput("expected --crops (with --baseline if you like), or --archive and --labels (with --config).")
    console().print(evaluation_page(found).render())


app = one_command(evaluate)


def main(argv: list[str] | None = None) -> int:
    """Run the job with the arguments `argv` (default: the process's own); gives the exit code."""
    return run_command(app, "evaluate", argv)


if __name__ == "__main__":
    sys.exit(main())
