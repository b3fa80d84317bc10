"""Measure a model on crops of patients it never saw: `python jobs/evaluate.py --help`, or with `ray job submit`.

With `--ablation` no model is given: the recipes are trained over folds of patients and seeds, and compared.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from spinemet.errors import SpineMetError
from spinemet.progress import progress_bar
from spinemet.training.recipes import ABLATION, SCALES, recipe, scaled

if TYPE_CHECKING:
    from rich.console import RenderableType


def parser() -> argparse.ArgumentParser:
    """The arguments of this job."""
    arguments = argparse.ArgumentParser(prog="evaluate.py", description=__doc__)
    what = arguments.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", help="model folder, local or s3://")
    what.add_argument("--ablation", action="store_true", help="train and compare recipes; goes on where it stopped")
    arguments.add_argument("--crops", required=True, help="what jobs/prepare.py made, local or s3://")
    arguments.add_argument("--out", required=True, help="folder or s3:// prefix for the tables")
    split = "test: the patients whom training kept apart; all: every patient, for crops the model has never met"
    arguments.add_argument("--split", choices=("test", "all"), default="test", help=split)
    arguments.add_argument("--baseline", help="another model, to be compared with on the same patients")
    several = arguments.add_argument_group("ablation")
    several.add_argument("--truth", help="the same slices with the labels to measure against (default: the crops)")
    several.add_argument("--recipes", nargs="+", default=list(ABLATION), metavar="RECIPE", help="names or TOML files")
    several.add_argument("--folds", type=int, default=5)
    several.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    several.add_argument("--scale", choices=list(SCALES), default="full", help="the size the recipes are run at")
    several.add_argument("--pretrained", help="torchvision's ImageNet weights, a local path or s3:// URI")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Exit code 0 when it is measured, 2 for bad input."""
    wanted = parser().parse_args(argv)
    # After the arguments are known to be right: torch takes seconds to import.
    from rich.console import Console
    from rich.markdown import Markdown

    try:
        found = Markdown(_ablation(wanted)) if wanted.ablation else _model(wanted)
    except SpineMetError as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2
    # In a log there is no width to fit: the tables need that many columns.
    (Console() if sys.stdout.isatty() else Console(width=130)).print(found)
    return 0


def _model(wanted: argparse.Namespace) -> RenderableType:
    from spinemet.evaluation.evaluate import run_evaluate
    from spinemet.evaluation.evaluation_tables import render

    with progress_bar("Evaluating") as advance:
        found = run_evaluate(wanted.model, wanted.crops, wanted.out, wanted.split, advance, wanted.baseline)
    return render(found.facts, found.measures, found.confusions, found.operating, found.differences)


def _ablation(wanted: argparse.Namespace) -> str:
    from spinemet.on_ray.ablation import run_ablation

    changes = {"pretrained": wanted.pretrained} if wanted.pretrained else {}
    recipes = [scaled(recipe(name), wanted.scale).model_copy(update=changes) for name in wanted.recipes]
    truth = wanted.truth or wanted.crops
    with progress_bar("Fitting") as advance:
        return run_ablation(wanted.crops, truth, wanted.out, recipes, wanted.folds, wanted.seeds, advance)


if __name__ == "__main__":
    sys.exit(main())
