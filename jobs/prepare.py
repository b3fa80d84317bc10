"""Cut crops of the labelled vertebrae of an archive: `python jobs/prepare.py --help`, or with `ray job submit`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from typer import Option

from spinemet.commands import one_command, run_command
from spinemet.config import StudyConfig, changed, load_config
from spinemet.dicom.pseudonym import Pseudonymizer, load_key
from spinemet.doctor.s3 import require_stores
from spinemet.progress import progress_bar
from spinemet.training.labels import label_words
from spinemet.training.recipes import SCALES, recipe, scaled


def prepare(
    archive: Annotated[str, Option(help="Folder or s3:// prefix with the studies.")],
    labels: Annotated[str, Option(help="Label table of the archive: CSV or Parquet, local or s3://.")],
    out: Annotated[str, Option(help="Folder or s3:// prefix for the crops.")],
    config: Annotated[
        Path | None, Option(help="TOML file with reading settings (localizer, series selection).")
    ] = None,
    recipe_name: Annotated[
        str,
        Option("--recipe", metavar="NAME", help="Recipe or TOML file that says how to cut and what to label."),
    ] = "final",
    scale: Annotated[str, Option(help=f"Size at which the recipe will be trained: {', '.join(SCALES)}.")] = "full",
) -> None:
    """Cut the labelled vertebrae of an archive into crops for jobs/train.py, under the pseudonyms of the results.

    Exit codes: 0 done, 1 the job failed, 2 bad input.
    """
    from spinemet.on_ray.prepare import run_prepare

    require_stores(archive, labels, out)
    model = scaled(recipe(recipe_name), scale).model
    settings = changed(load_config(config, StudyConfig), slices=model.slices)
    names = Pseudonymizer(load_key(), "shifted")
    with progress_bar("Preparing crops") as advance:
        info = run_prepare(archive, labels, out, settings, names, advance, label_words(model.tasks))
    print(info)


app = one_command(prepare)


def main(argv: list[str] | None = None) -> int:
    """Run the job with the arguments `argv` (default: the process's own); gives the exit code."""
    return run_command(app, "prepare", argv)


if __name__ == "__main__":
    sys.exit(main())
