"""Screen an archive into result tables: `python jobs/screen.py --help`, or with `ray job submit`."""

from __future__ import annotations

import argparse
import sys
from typing import get_args

from spinemet.config import DatePolicy, StudyConfig, load_config
from spinemet.dicom.pseudonym import load_key
from spinemet.errors import JobFailed, SpineMetError
from spinemet.files import write_bytes
from spinemet.on_ray.screen import ScreenOptions, forecast, run_screen
from spinemet.progress import progress_bar
from spinemet.results.tables import moment
from spinemet.screening.plan import Rescreen, Wanted


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
    arguments.add_argument("--since", help="screen only studies with an object written on this date or later")
    arguments.add_argument(
        "--study", action="append", default=[], help="screen only this study: its key in the archive, or its source_key"
    )
    arguments.add_argument(
        "--rescreen",
        choices=get_args(Rescreen),
        help="do again what failed, or everything; or do only what another model or configuration has done (stale)",
    )
    arguments.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    arguments.add_argument("--max-hours", type=float, help="stop after so many hours, with what is done committed")
    arguments.add_argument(
        "--max-failed-share", type=float, help="exit code 3 where more than this share of the run's studies failed"
    )
    arguments.add_argument("--summary", help="also write the run's counts as JSON to this file or s3:// object")
    arguments.add_argument("--workers", type=int, help="model workers (default: one per GPU, or one per 2 CPUs)")
    arguments.add_argument("--gpus", type=int, help="GPUs to classify on, grown to if need be (default: those there)")
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
    """0 done, 1 the job broke, 2 bad input or another run's lease, 3 too many failed, 143 ended by SIGTERM."""
    given = parser().parse_args(argv)
    try:
        options = _options(given)
        if given.dry_run:
            with progress_bar("Planning") as advance:
                print(forecast(options, advance))
            return 0
        with progress_bar("Screening") as advance:
            run = run_screen(options, advance)
        print(run)
        if given.summary:
            write_bytes(given.summary, run.summary().encode())
    except SpineMetError as error:
        print(f"screen: {error}", file=sys.stderr)
        return 1 if isinstance(error, JobFailed) else 2
    return run.exit_code(given.max_failed_share)


def _options(given: argparse.Namespace) -> ScreenOptions:
    return ScreenOptions(
        archive=given.archive,
        results=given.results,
        model=given.model,
        key=load_key(ephemeral=given.ephemeral_key),
        config=load_config(given.config, StudyConfig),
        dates=given.dates,
        wanted=Wanted(
            limit=given.limit,
            quiet_s=given.quiet_minutes * 60,
            since=moment(given.since).timestamp() if given.since else 0.0,
            studies=frozenset(given.study),
            rescreen=given.rescreen,
        ),
        max_hours=given.max_hours,
        workers=given.workers,
        gpus=given.gpus,
        pictures=not given.no_pictures,
        slices=given.slices,
        linkage=given.linkage,
    )


if __name__ == "__main__":
    sys.exit(main())
