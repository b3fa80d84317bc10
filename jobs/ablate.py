"""Train recipes over folds of patients and compare them: `python jobs/ablate.py --help`, or with `ray job submit`."""

from __future__ import annotations

import sys
from typing import Annotated

from typer import Option

from spinemet.commands import console, one_command, run_command
from spinemet.config import changed
from spinemet.errors import BadInput
from spinemet.progress import progress_bar
from spinemet.training.recipes import ABLATION, SCALES, recipe, scaled


def ablate(
    crops: Annotated[str, Option(help="Folder or s3:// prefix made by jobs/prepare.py: the slices to learn from.")],
    out: Annotated[str, Option(help="Folder or s3:// prefix for the fits and the tables.")],
    truth: Annotated[
        str | None, Option(help="The same slices with the labels to measure against. Default: the crops.")
    ] = None,
    recipes: Annotated[
        str, Option(metavar="NAME,…", show_default="the paper's steps", help="Recipes or TOML files, baseline first.")
    ] = ",".join(ABLATION),
    folds: Annotated[int, Option(min=2, help="Parts of the patients; each is measured by models of the rest.")] = 5,
    seeds: Annotated[str, Option(metavar="N,…", help="Every recipe is trained with each of these seeds.")] = "0,1,2",
    scale: Annotated[str, Option(help=f"Size of the recipes: {', '.join(SCALES)}.")] = "full",
    pretrained: Annotated[
        str | None, Option(help="torchvision's ImageNet weights: a local path or an s3:// URI.")
    ] = None,
) -> None:
    """Train recipes over folds of patients and seeds, and compare them. Repeat the command to go on after a stop.

    Exit codes: 0 done, 1 the job failed, 2 bad input.
    """
    from spinemet.on_ray.ablation import run_ablation

    changes = {"pretrained": pretrained} if pretrained else {}
    chosen = [changed(scaled(recipe(name), scale), **changes) for name in recipes.split(",")]
    with progress_bar("Training") as advance:
        page = run_ablation(crops, truth or crops, out, chosen, folds, _numbers(seeds), advance)
    console().print(page.render())


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise BadInput(f"--seeds: expected whole numbers separated by commas, found {text!r}.") from error


app = one_command(ablate)


def main(argv: list[str] | None = None) -> int:
    """Run the job with the arguments `argv` (default: the process's own); gives the exit code."""
    return run_command(app, "ablate", argv)


if __name__ == "__main__":
    sys.exit(main())
