"""Make crops of the labelled vertebrae of an archive: `python jobs/prepare.py --help`, or with `ray job submit`."""

from __future__ import annotations

import argparse
import os
import sys

from spinemet.config import StudyConfig, load_config
from spinemet.errors import SpineMetError
from spinemet.evaluation.benchmark import write_benchmark
from spinemet.on_ray.prepare import run_prepare
from spinemet.progress import progress_bar
from spinemet.training.labels import LABEL_CLASSES, label_words
from spinemet.training.recipes import SCALES, recipe, scaled


def parser() -> argparse.ArgumentParser:
    """The arguments of this job."""
    arguments = argparse.ArgumentParser(prog="prepare.py", description=__doc__)
    source = arguments.add_mutually_exclusive_group(required=True)
    source.add_argument("--archive", help="folder or s3:// prefix with the studies")
    source.add_argument(
        "--phantom",
        type=int,
        metavar="PATIENTS",
        help="instead of an archive: the hard benchmark, OUT/crops + OUT/truth",
    )
    arguments.add_argument("--labels", help="label table of the archive, CSV or Parquet, local or s3://")
    arguments.add_argument("--out", required=True, help="folder or s3:// prefix for the crops")
    arguments.add_argument("--config", help="TOML file with reading settings (localizer, series selection, …)")
    arguments.add_argument(
        "--recipe", default="final", help="name or TOML file: cut slices and take labels as it wants (default: final)"
    )
    arguments.add_argument("--scale", choices=list(SCALES), default="full", help="the size the recipe is run at")
    arguments.add_argument("--seed", type=int, default=0, help="of the phantom benchmark")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Exit code 0 when the crops are made, 2 for bad input."""
    arguments = parser()
    wanted = arguments.parse_args(argv)
    if (wanted.archive is None) != (wanted.labels is None):
        arguments.error("expected --labels with --archive, and with it only")
    try:
        config, words = load_config(wanted.config, StudyConfig), dict(LABEL_CLASSES)
        if wanted.recipe:
            model = scaled(recipe(wanted.recipe), wanted.scale).model
            config, words = config.model_copy(update={"slices": model.slices}), label_words(model.tasks)
        with progress_bar("Preparing crops") as advance:
            if wanted.phantom is not None:
                cores = os.cpu_count() or 1
                made = write_benchmark(
                    wanted.out, wanted.phantom, wanted.seed, config.slices, workers=cores, progress=advance
                )
                info = made["truth"]
            else:
                info = run_prepare(wanted.archive, wanted.labels, wanted.out, config, advance, words)
    except SpineMetError as error:
        print(f"prepare: {error}", file=sys.stderr)
        return 2
    print(f"{info.slices} slices of {info.vertebrae} vertebrae, {info.studies} studies, {info.patients} patients")
    for what, classes in (("", info.classes), (" of single slices", info.slice_classes)):
        for column, counts in classes.items():
            print(f"{column}{what}: " + ", ".join(f"{name} {count}" for name, count in counts.items()))
    print(f"labels without a whole vertebra or a slice of it: {info.labels_unmatched}")
    if info.strays:
        rows = ", ".join(map(str, info.strays[:20])) + (", …" if len(info.strays) > 20 else "")
        print(f"label row {rows}, column slice: expected the SOPInstanceUID of one slice of the study, found another")
    for reason, count in info.problems.items():
        print(f"studies not used, {reason}: {count}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
