"""Train a model on prepared crops: `python jobs/train.py --help`, or with `ray job submit`."""

from __future__ import annotations

import argparse
import sys

from spinemet.errors import SpineMetError
from spinemet.on_ray.train import run_train
from spinemet.progress import progress_bar
from spinemet.training.recipes import RECIPES, recipe


def parser() -> argparse.ArgumentParser:
    """The arguments of this job."""
    arguments = argparse.ArgumentParser(prog="train.py", description=__doc__)
    arguments.add_argument("--crops", required=True, help="folder or s3:// prefix made by jobs/prepare.py")
    arguments.add_argument("--out", required=True, help="folder or s3:// prefix for runs; the model: OUT/NAME/model")
    arguments.add_argument("--name", required=True, help="name of the run; the same name goes on where it stopped")
    arguments.add_argument("--recipe", default="final", help=f"{', '.join(RECIPES)} or a TOML file (default: final)")
    arguments.add_argument("--pretrained", help="torchvision's ImageNet weights, a local path or s3:// URI")
    arguments.add_argument("--workers", type=int, help="processes (default: one per GPU, or up to 4 on CPUs)")
    arguments.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto")
    arguments.add_argument("--seed", type=int, default=0)
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Exit code 0 when the model is there, 2 for bad input."""
    wanted = parser().parse_args(argv)
    try:
        chosen = recipe(wanted.recipe)
        if wanted.pretrained:
            chosen = chosen.model_copy(update={"pretrained": wanted.pretrained})
        with progress_bar("Training") as advance:
            run = run_train(
                wanted.crops,
                wanted.out,
                wanted.name,
                chosen,
                seed=wanted.seed,
                workers=wanted.workers,
                device=wanted.device,
                progress=advance,
            )
    except SpineMetError as error:
        print(f"train: {error}", file=sys.stderr)
        return 2
    print(f"{'found finished' if run.found_finished else 'trained'}: {run.model_uri}")
    for name, value in run.card.metrics.items():
        print(f"{name}: {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
