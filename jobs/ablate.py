"""Train recipes over folds of patients and compare them: `python jobs/ablate.py --help`, or with `ray job submit`."""

from __future__ import annotations

import sys
from typing import Annotated

from typer import Option

from spinemet.commands import console, one_command, run_command
from spinemet.config import changed
from spinemet.doctor.s3 import require_stores
from spinemet.errors import BadInput
from spinemet.files import join
from spinemet.progress import progress_bar
from spinemet.training.recipes import ABLATION, SCALES, recipe, scaled


def ablate(
    out: Annotated[str, Option(help="Folder or s3:// prefix for the fits and the tables.")],
    crops: Annotated[
        str | None, Option(help="Folder or s3:// prefix made by jobs/prepare.py: the slices to learn from.")
    ] = None,
    benchmark: Annotated[
        str | None, Option(help="Instead of crops: folder or s3:// prefix made by `spinemet phantom --benchmark`.")
    ] = None,
    patients: Annotated[
        str, Option(metavar="N,…", help="With --benchmark: patients of the training sets.")
    ] = "80,160,400,1000",
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
        str | None,
        Option(help="DenseNet weights to start from, a file of PyTorch or safetensors; a local path or an s3:// URI."),
    ] = None,
) -> None:
    """Train recipes over folds or the benchmark's training sets, and compare them. Repeat to go on after a stop.

    Exit codes: 0 done, 1 the job failed, 2 bad input.
    """
    from spinemet.on_ray.ablation import run_ablation

    require_stores(crops, benchmark, truth, out, pretrained)
    if (crops is None) == (benchmark is None):
        raise BadInput("expected either --crops or --benchmark.")
    if benchmark:
        crops, truth = join(benchmark, "crops"), join(benchmark, "test")
    more = {"pretrained": pretrained} if pretrained else {}
    chosen = [changed(scaled(recipe(name), scale), **more) for name in recipes.split(",")]
    with progress_bar("Training") as advance:
        data = (str(crops), truth or str(crops), folds, tuple(_numbers("--patients", patients) if benchmark else ()))
        page = run_ablation(data, out, chosen, _numbers("--seeds", seeds), advance)
    console().print(page.render())


def _numbers(option: str, text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise BadInput(f"{option}: expected whole numbers separated by commas, found {text!r}.") from error


app = one_command(ablate)


def main(argv: list[str] | None = None) -> int:
    """Run the job with the arguments `argv` (default: the process's own); gives the exit code."""
    return run_command(app, "ablate", argv)


if __name__ == "__main__":
    sys.exit(main())
