"""Train a model on prepared crops: `python jobs/train.py --help`, or with `ray job submit`."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

from typer import Option

from spinemet.commands import one_command, run_command
from spinemet.config import changed
from spinemet.doctor.s3 import require_stores
from spinemet.progress import progress_bar
from spinemet.training.recipes import RECIPES, recipe


def train(
    crops: Annotated[str, Option(help="Folder or s3:// prefix made by jobs/prepare.py.")],
    out: Annotated[str, Option(help="Folder or s3:// prefix for all runs; the model: OUT/NAME/model.")],
    name: Annotated[str, Option(help="Name of the run. A run of this name that stopped early goes on.")],
    recipe_name: Annotated[
        str, Option("--recipe", metavar="NAME", help=f"{', '.join(RECIPES)}, or a TOML file.")
    ] = "final",
    pretrained: Annotated[
        str | None,
        Option(help="DenseNet weights to start from, a file of PyTorch or safetensors; a local path or an s3:// URI."),
    ] = None,
    workers: Annotated[int | None, Option(help="Processes. Default: one per GPU, or up to 4 on CPUs.")] = None,
    device: Annotated[Literal["auto", "cpu", "gpu"], Option(help="auto: GPUs if the cluster has any.")] = "auto",
    seed: Annotated[int, Option(help="Seed of the weights and of the order of the slices.")] = 0,
) -> None:
    """Train a model on the crops that jobs/prepare.py made.

    Exit codes: 0 done, 1 the job failed, 2 bad input.
    """
    from spinemet.model.backbone import Trunk
    from spinemet.model.weights import load_pretrained
    from spinemet.on_ray.train import run_train

    require_stores(crops, out, pretrained)
    chosen = recipe(recipe_name)
    if pretrained:
        chosen = changed(chosen, pretrained=pretrained)
    if chosen.pretrained:
        print(load_pretrained(Trunk(chosen.model.backbone), chosen.pretrained))
    with progress_bar("Training") as advance:
        run = run_train(crops, out, name, chosen, seed=seed, workers=workers, device=device, progress=advance)
    print(f"{'found finished' if run.found_finished else 'trained'}: {run.model_uri}")
    for metric, value in run.card.metrics.items():
        print(f"{metric}: {value}")


app = one_command(train)


def main(argv: list[str] | None = None) -> int:
    """Run the job with the arguments `argv` (default: the process's own); gives the exit code."""
    return run_command(app, "train", argv)


if __name__ == "__main__":
    sys.exit(main())
