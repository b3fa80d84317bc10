"""Screen an archive into result tables: `python jobs/screen.py --help`, or with `ray job submit`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from typer import Exit, Option

from spinemet.commands import one_command, run_command
from spinemet.config import DatePolicy, StudyConfig, load_config
from spinemet.dicom.pseudonym import load_key
from spinemet.doctor.s3 import require_stores
from spinemet.files import write_bytes
from spinemet.on_ray.screen import run_screen
from spinemet.progress import progress_bar
from spinemet.results.tables import moment
from spinemet.screening.night import forecast
from spinemet.screening.plan import Rescreen, ScreenOptions, Selection


def screen(
    archive: Annotated[str, Option(help="Folder or s3:// prefix with the studies.")],
    results: Annotated[str, Option(help="Folder or s3:// prefix of the result tables.")],
    model: Annotated[str, Option(help="Model folder, local or s3://, or builtin.")],
    config: Annotated[Path | None, Option(help="TOML file: localizer, series selection and other settings.")] = None,
    limit: Annotated[int | None, Option(help="Screen at most this many new studies.")] = None,
    quiet_minutes: Annotated[float, Option(help="Leave studies with younger objects to the next run.")] = 0.0,
    since: Annotated[str | None, Option(help="Only studies with an object written at this date or later.")] = None,
    study: Annotated[list[str] | None, Option(metavar="KEY", help="Only the study with this key; repeatable.")] = None,
    rescreen: Annotated[Rescreen | None, Option(help="Repeat failed, all or stale (by another model) studies.")] = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Print the plan and do nothing.")] = False,
    max_hours: Annotated[float | None, Option(help="Stop after this time; finished studies are kept.")] = None,
    max_failed_share: Annotated[float | None, Option(help="Exit with 3 if a greater share of studies failed.")] = None,
    summary: Annotated[str | None, Option(help="Also write the run's counts as JSON to this place.")] = None,
    workers: Annotated[int | None, Option(help="Model workers. Default: one per GPU, or one per 2 CPUs.")] = None,
    gpus: Annotated[int | None, Option(help="GPUs to use; the cluster may grow to them. Default: all there.")] = None,
    dates: Annotated[DatePolicy, Option(help="Study dates in the tables; nightly commits undo a shift.")] = "shifted",
    ephemeral_key: Annotated[bool, Option("--ephemeral-key", help="Throwaway key: no later run can go on.")] = False,
    no_pictures: Annotated[bool, Option("--no-pictures", help="Do not store the straightened spines.")] = False,
    linkage: Annotated[str | None, Option(help="Place for a table of pseudonyms and identifiers.")] = None,
    moved_from: Annotated[str | None, Option(help="Earlier address of the archive: known studies stay known.")] = None,
    slices: Annotated[bool, Option("--slices", help="Also store every slice's probabilities.")] = False,
) -> None:
    """Screen an archive into result tables. Repeat the command to screen what is new or was not reached.

    Exit codes: 0 done, 1 the job failed, 2 bad input or another run, 3 too many failed, 4 none done, 143 SIGTERM.
    """
    require_stores(archive, results, model, linkage)
    start = moment(since).timestamp() if since else None
    options = ScreenOptions(
        archive, results, model, load_key(ephemeral=ephemeral_key),
        config=load_config(config, StudyConfig), dates=dates, max_hours=max_hours, workers=workers, gpus=gpus,
        selection=Selection(limit, quiet_minutes * 60, start, frozenset(study or ()), rescreen),
        pictures=not no_pictures, slices=slices, linkage=linkage, moved_from=moved_from)  # fmt: skip
    if dry_run:
        with progress_bar("Planning") as advance:
            print(forecast(options, advance))
        return
    with progress_bar("Screening") as advance:
        run = run_screen(options, advance)
    print(run)
    if summary:
        write_bytes(summary, run.summary().encode())
    raise Exit(run.exit_code(max_failed_share))


app = one_command(screen)


def main(argv: list[str] | None = None) -> int:
    """Run the job with the arguments `argv` (default: the process's own); gives the exit code."""
    return run_command(app, "screen", argv)


if __name__ == "__main__":
    sys.exit(main())
