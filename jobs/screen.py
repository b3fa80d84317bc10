"""Screen an archive into result tables: `python jobs/screen.py --help`, or with `ray job submit`."""

from __future__ import annotations

import argparse
import sys
from typing import get_args

from spinemet.config import DatePolicy, StudyConfig, load_config
from spinemet.dicom.pseudonym import load_key
from spinemet.errors import JobFailed, SpineMetError
from spinemet.on_ray.screen import ScreenOptions, run_screen
from spinemet.progress import progress_bar
from spinemet.screening.run import in_words


def parser() -> argparse.ArgumentParser:
    """The arguments of this job."""
    arguments = argparse.ArgumentParser(prog="screen.py", description=__doc__)
    arguments.add_argument("--archive", required=True, help="folder or s3:// prefix with the studies")
    arguments.add_argument("--results", required=True, help="folder or s3:// prefix of the result tables")
    arguments.add_argument("--model", required=True, help="model folder, local or s3://")
    arguments.add_argument("--config", help="TOML file with reading settings (localizer, series selection)")
    arguments.add_argument("--limit", type=int, help="screen at most so many new studies")
    arguments.add_argument(
        "--quiet-minutes", type=float, default=0.0, help="leave studies with younger objects for the next run (0: none)"
    )
    arguments.add_argument("--workers", type=int, help="model workers (default: one per GPU, or one per 4 CPUs)")
    arguments.add_argument(
        "--dates", choices=get_args(DatePolicy), default="shifted", help="study dates in the tables (default: shifted)"
    )
    arguments.add_argument(
        "--ephemeral-key", action="store_true", help="a key for this run alone: the results cannot be continued"
    )
    arguments.add_argument("--no-pictures", action="store_true", help="do not store the straightened spines")
    arguments.add_argument("--linkage", help="also write what the pseudonyms stand for, to this place")
    arguments.add_argument("--slices", action="store_true", help="also store every slice's probabilities")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Exit code 0 when every study is accounted for, 1 for a job that broke, 2 for bad input or another run's lease."""
    wanted = parser().parse_args(argv)
    try:
        options = ScreenOptions(
            archive=wanted.archive,
            results=wanted.results,
            model=wanted.model,
            key=load_key(ephemeral=wanted.ephemeral_key),
            config=load_config(wanted.config, StudyConfig),
            dates=wanted.dates,
            limit=wanted.limit,
            quiet_minutes=wanted.quiet_minutes,
            workers=wanted.workers,
            pictures=not wanted.no_pictures,
            slices=wanted.slices,
            linkage=wanted.linkage,
        )
        with progress_bar("Screening") as advance:
            run = run_screen(options, advance)
    except SpineMetError as error:
        print(f"screen: {error}", file=sys.stderr)
        return 1 if isinstance(error, JobFailed) else 2
    print(f"run {run.run_id}: {run.listed} studies in the archive, {run.planned} new: {in_words(run.states)}")
    if run.waiting:
        print(f"{run.waiting} studies are still being written or cannot be told apart yet: left for the next run")
    for reason, count in sorted(run.reasons.items()):
        print(f"  {reason}: {count}")
    if run.studies:
        print(f"{run.vertebrae} vertebrae in {run.seconds:.0f} s, {run.studies_per_hour:.0f} studies per hour")
    return 0


if __name__ == "__main__":
    sys.exit(main())
