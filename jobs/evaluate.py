"""Measure a model on crops of patients it never saw: `python jobs/evaluate.py --help`, or with `ray job submit`.

With `--ablation` no model is given: the recipes are trained over folds of patients and seeds, and compared.
"""

from __future__ import annotations

import argparse
import sys

from spinemet.errors import SpineMetError
from spinemet.progress import progress_bar
from spinemet.recipes import ABLATION, RECIPES, SCALES, recipe, scaled


def parser() -> argparse.ArgumentParser:
    """The arguments of this job."""
    arguments = argparse.ArgumentParser(prog="evaluate.py", description=__doc__)
    what = arguments.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", help="model folder, local or s3://")
    what.add_argument("--ablation", action="store_true", help="train and compare recipes; goes on where it stopped")
    arguments.add_argument("--crops", required=True, help="what jobs/prepare.py made, local or s3://")
    arguments.add_argument("--out", required=True, help="folder or s3:// prefix for the tables")
    arguments.add_argument(
        "--split",
        choices=("test", "all"),
        default="test",
        help="test: the patients whom training kept apart; all: every patient, for crops the model has never met",
    )
    several = arguments.add_argument_group("ablation")
    several.add_argument("--truth", help="the same slices with the labels to measure against (default: the crops)")
    several.add_argument("--recipes", nargs="+", choices=list(RECIPES), default=list(ABLATION), metavar="RECIPE")
    several.add_argument("--folds", type=int, default=5)
    several.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    several.add_argument("--scale", choices=list(SCALES), default="full", help="the size the recipes are run at")
    several.add_argument("--pretrained", help="torchvision's ImageNet weights, a local path or s3:// URI")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Exit code 0 when it is measured, 2 for bad input."""
    wanted = parser().parse_args(argv)
    try:
        text = _ablation(wanted) if wanted.ablation else _model(wanted)
    except SpineMetError as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2
    from rich.console import Console

    console = Console()
    # In a log there is no width to fit: the tables need 100 columns.
    console = console if console.is_terminal else Console(width=110)
    console.print(text)
    return 0


def _model(wanted: argparse.Namespace) -> object:
    # After the arguments are known to be right: torch takes seconds to import.
    from spinemet.evaluate import run_evaluate
    from spinemet.report.evaluation import render

    with progress_bar("Evaluating") as advance:
        evaluation = run_evaluate(wanted.model, wanted.crops, wanted.out, wanted.split, advance)
    return render(evaluation.facts, evaluation.measures, evaluation.confusions)


def _ablation(wanted: argparse.Namespace) -> object:
    from spinemet.on_ray.ablation import run_ablation

    changes = {"pretrained": wanted.pretrained} if wanted.pretrained else {}
    recipes = [scaled(recipe(name), wanted.scale).model_copy(update=changes) for name in wanted.recipes]
    with progress_bar("Fitting") as advance:
        return run_ablation(
            wanted.crops, wanted.truth or wanted.crops, wanted.out, recipes, wanted.folds, wanted.seeds, advance
        )


if __name__ == "__main__":
    sys.exit(main())
