"""Make crops of the labelled vertebrae of an archive: `python jobs/prepare.py --help`, or with `ray job submit`."""

from __future__ import annotations

import argparse
import sys

from spinemet.config import StudyConfig, load_config
from spinemet.errors import SpineMetError
from spinemet.on_ray.prepare import run_prepare
from spinemet.progress import progress_bar
from spinemet.recipes import recipe


def parser() -> argparse.ArgumentParser:
    """The arguments of this job."""
    arguments = argparse.ArgumentParser(prog="prepare.py", description=__doc__)
    arguments.add_argument("--archive", required=True, help="folder or s3:// prefix with the studies")
    arguments.add_argument("--labels", required=True, help="label table, CSV or Parquet, local or s3://")
    arguments.add_argument("--out", required=True, help="folder or s3:// prefix for the crops")
    arguments.add_argument("--config", help="TOML file with reading settings (localizer, series selection, …)")
    arguments.add_argument(
        "--recipe", default="final", help="cut the slices as this recipe wants them (default: final)"
    )
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Exit code 0 when the crops are made, 2 for bad input."""
    wanted = parser().parse_args(argv)
    try:
        config = load_config(wanted.config, StudyConfig)
        if wanted.recipe:
            config = config.model_copy(update={"slices": recipe(wanted.recipe).model.slices})
        with progress_bar("Preparing crops") as advance:
            info = run_prepare(wanted.archive, wanted.labels, wanted.out, config, advance)
    except SpineMetError as error:
        print(f"prepare: {error}", file=sys.stderr)
        return 2
    print(f"{info.slices} slices of {info.vertebrae} vertebrae, {info.studies} studies, {info.patients} patients")
    for column, counts in info.classes.items():
        print(f"{column}: " + ", ".join(f"{name} {count}" for name, count in counts.items()))
    print(f"labels without a whole vertebra: {info.labels_unmatched}")
    for reason, count in info.problems.items():
        print(f"studies not used, {reason}: {count}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
