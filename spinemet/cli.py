"""`spinemet …`: for people at a terminal. Works without a cluster; only `demo` starts a local one.

Exit codes: 0 done, 1 a job failed, 2 bad usage or input. Answers go to standard output (as CSV or JSON on request or
if piped), everything else to standard error. The jobs of jobs/ run through `one_command` and `run_command` too.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spinemet import __version__
from spinemet.config import Localizer, StudyConfig, changed, load_config
from spinemet.errors import BadInput, JobFailed, SpineMetError

if TYPE_CHECKING:
    from datetime import datetime

    import pandas as pd
    from rich.console import RenderableType


# ---- shared with jobs/ -----------------------------------------------------------------------------------------


def one_command(work: Callable[..., None]) -> typer.Typer:
    """A command line whose only command is `work`: its parameters are the options, its docstring is the help."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(work)
    return app


def run_command(app: typer.Typer, name: str, argv: list[str] | None = None) -> int:
    """Run `app` with `argv` (default: the process's own arguments) and return its exit code.

    0 done, 1 JobFailed, 2 any other SpineMetError or a usage error; `typer.Exit` and SystemExit keep their code. An
    error is printed as one sentence that starts with `name`.
    """
    try:
        app(args=argv, prog_name=name)
    except SystemExit as ended:  # how typer ends, also after success
        return int(ended.code or 0)
    except SpineMetError as error:
        typer.echo(f"{name}: {error}", err=True)
        return 1 if isinstance(error, JobFailed) else 2
    return 0


def print_wide(text: RenderableType) -> None:
    """Print tables to standard output, 130 columns wide in a log, which has no width of its own."""
    from rich.console import Console

    (Console() if sys.stdout.isatty() else Console(width=130)).print(text)


# ---- spinemet … ------------------------------------------------------------------------------------------------

app = typer.Typer(
    name="spinemet",
    help="Find, classify and count spinal metastases in CT archives.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
cohort_app = typer.Typer(help="Ask the result tables.", no_args_is_help=True)
app.add_typer(cohort_app, name="cohort")
import_app = typer.Typer(help="Public data sets as label tables.", no_args_is_help=True)
app.add_typer(import_app, name="import")

tables_app = typer.Typer(help="Look after the result tables.", no_args_is_help=True)
app.add_typer(tables_app, name="tables")
AsOf = Annotated[
    str | None,
    typer.Option(help="Read the tables as they were at a date or time (UTC), or at a version of the ledger."),
]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    pass


@app.command()
def doctor(
    archive: Annotated[str | None, typer.Option(help="Folder or s3:// prefix with the studies.")] = None,
    results: Annotated[str | None, typer.Option(help="Folder or s3:// prefix of the result tables.")] = None,
    model: Annotated[str | None, typer.Option(help="Model folder, local or s3://.")] = None,
    key_file: Annotated[
        str | None, typer.Option(help="File with the pseudonym key, instead of the environment's.")
    ] = None,
    ray_address: Annotated[
        str | None, typer.Option(help="Ray head that jobs are submitted to, http://HOST:8265.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check this machine and the places that a job would use, and say how to mend what is wrong.

    Exit code 0 if a job could start, 2 if not. Leaves nothing behind.
    """
    from spinemet.display.terminal import console
    from spinemet.doctor.examine import Places, examine
    from spinemet.doctor.findings import as_json as json_of
    from spinemet.doctor.findings import is_ready, render
    from spinemet.progress import progress_bar

    findings = []
    with progress_bar("Checking") as advance:
        for finding in examine(Places(archive, results, model, key_file, ray_address)):
            findings.append(finding)
            advance(len(findings), 0, finding.subject)
    if as_json:
        typer.echo(json.dumps(json_of(findings), indent=2))
    else:
        console().print(render(findings))
    if not is_ready(findings):
        raise typer.Exit(2)


@app.command()
def phantom(
    out: Annotated[str, typer.Argument(help="Folder or s3:// prefix to write to.")],
    patients: Annotated[int, typer.Option(min=1, help="How many patients.")] = 24,
    seed: Annotated[int, typer.Option(help="The same seed makes the same patients.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes that render.")] = 2,
    benchmark: Annotated[
        bool, typer.Option("--benchmark", help="Make the crops of a hard benchmark instead: OUT/crops, OUT/truth.")
    ] = False,
    scale: Annotated[
        str | None, typer.Option(help="With --benchmark: size of the recipes that will learn from it, full or small.")
    ] = None,
) -> None:
    """Make a phantom CT archive with known truth: OUT/archive, OUT/labels.csv, OUT/truth.csv."""
    from spinemet.progress import progress_bar

    if scale is not None and not benchmark:
        raise BadInput("--scale needs --benchmark: an archive has no scale.")
    with progress_bar("Making phantom patients") as advance:
        if benchmark:
            from spinemet.evaluation.benchmark import write_benchmark
            from spinemet.training.recipes import final
            from spinemet.training.scales import scaled

            slices = scaled(final(), scale or "full").model.slices
            made = write_benchmark(out, patients, seed, slices, workers=workers, progress=advance)
            summary = str(made["truth"])
        else:
            from spinemet.phantom.archive import write_archive

            summary = str(write_archive(out, patients, seed, workers=workers, progress=advance))
    typer.echo(summary)


@app.command()
def study(
    path: Annotated[
        str, typer.Argument(help="Folder, zip or tar of DICOM objects, or a NIfTI volume; local or s3://.")
    ],
    model: Annotated[str | None, typer.Option(help="Model folder; without one, nothing is classified.")] = None,
    localizer: Annotated[Localizer | None, typer.Option(help="Where the vertebrae come from.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with reading settings.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    png: Annotated[Path | None, typer.Option(help="Also draw the straightened spine to this PNG.")] = None,
) -> None:
    """Find the vertebrae of one study and, with a model, classify them."""
    from spinemet.archive.listing import study_at
    from spinemet.display.figures import study_figure
    from spinemet.display.study_json import study_json
    from spinemet.display.terminal import console, render_study
    from spinemet.study import read_study
    from spinemet.types import Screened

    settings = load_config(config, StudyConfig)
    if localizer is not None:
        settings = changed(settings, localizer=localizer)
    predictor = None
    if model is not None:
        from spinemet.model.predictor import Predictor

        predictor = Predictor.load(model)
        settings = changed(settings, slices=predictor.slices)
    reading = read_study(study_at(path), settings, views=png is not None)
    calls = predictor.predict(reading.stacks) if predictor is not None and isinstance(reading, Screened) else None
    if png is not None and isinstance(reading, Screened):
        study_figure(reading, calls, png)
    if as_json:
        typer.echo(json.dumps(study_json(reading, calls), indent=2))
    else:
        console().print(render_study(reading, calls))


@app.command()
def volume(
    path: Annotated[
        str, typer.Argument(help="Folder, zip or tar of DICOM objects, or a NIfTI volume; local or s3://.")
    ],
    out: Annotated[Path, typer.Argument(help="NIfTI file to write (.nii or .nii.gz).")],
) -> None:
    """Write the series that SpineMet would read as a NIfTI volume in HU."""
    from spinemet.archive.listing import study_at
    from spinemet.dicom.volume import write_nifti
    from spinemet.study import read_volume_of

    if not out.name.endswith((".nii", ".nii.gz")):
        raise BadInput(f"expected a file name that ends in .nii or .nii.gz, found {out.name}.")
    write_nifti(read_volume_of(study_at(path), StudyConfig()), out)
    typer.echo(f"wrote {out}", err=True)


@import_app.command("spine-mets-ct-seg")
def import_spine_mets_ct_seg(
    folder: Annotated[Path, typer.Argument(help="The set as TCIA gives it, with its spreadsheet.")],
    out: Annotated[str, typer.Argument(help="CSV to write, local or s3://.")],
) -> None:
    """Bone quality of the vertebrae of Spine-Mets-CT-SEG (TCIA), ready for jobs/prepare.py."""
    from spinemet.training.importers import import_spine_mets

    found = import_spine_mets(folder)
    found.write(out)
    typer.echo(str(found), err=True)


@import_app.command("verse")
def import_verse_set(
    folder: Annotated[Path, typer.Argument(help="VerSe, with its rawdata and derivatives.")],
    out: Annotated[str, typer.Argument(help="CSV to write, local or s3://.")],
) -> None:
    """The vertebrae of VerSe as a table to fill in: the set has no labels of lesions."""
    from spinemet.training.importers import import_verse

    found = import_verse(folder)
    found.write(out)
    typer.echo(str(found), err=True)


@cohort_app.command()
def prevalence(
    results: Annotated[str, typer.Argument(help="Results folder or s3:// prefix of a screening job.")],
    by: Annotated[
        str, typer.Option(help="Columns to group by, separated by commas: level, sex, age_group, …")
    ] = "level",
    unit: Annotated[str, typer.Option(help="What is counted: vertebra or patient.")] = "vertebra",
    task: Annotated[str, typer.Option(help="Task of the model that is counted.")] = "bone_quality",
    as_of: AsOf = None,
) -> None:
    """Count how often each class is found, with its denominator and a 95 % interval."""
    from spinemet.cohort.prevalence import prevalence as ask
    from spinemet.cohort.views import open_cohort
    from spinemet.display.terminal import render_prevalence

    columns = [name.strip() for name in by.split(",") if name.strip()]
    table = ask(open_cohort(results, _moment(results, as_of)), columns, unit=unit, task=task)
    _show(table, render_prevalence(table))


@app.command()
def sql(
    results: Annotated[str, typer.Argument(help="Results folder or s3:// prefix of a screening job.")],
    query: Annotated[str, typer.Argument(help="One SELECT over studies, vertebrae, calls, slices, pictures, runs.")],
    as_of: AsOf = None,
) -> None:
    """Ask the result tables in SQL (DuckDB's dialect). Piped, the answer is CSV."""
    from spinemet.cohort.views import run_sql
    from spinemet.display.terminal import render_table

    table = run_sql(results, query, _moment(results, as_of))
    _show(table, render_table(table))


@app.command()
def report(
    results: Annotated[str, typer.Argument(help="Results folder or s3:// prefix of a screening job.")],
    out: Annotated[Path, typer.Argument(help="HTML file to write.")],
    evaluation: Annotated[
        str | None, typer.Option(help="Also show how good the model is: the folder that jobs/evaluate.py wrote.")
    ] = None,
    as_of: AsOf = None,
) -> None:
    """Write one self-contained HTML report with pictures."""
    from spinemet.report.html import write_report

    write_report(results, out, evaluation=evaluation, as_of=_moment(results, as_of))
    typer.echo(f"wrote {out}", err=True)


@tables_app.command()
def compact(
    results: Annotated[str, typer.Argument(help="Results folder or s3:// prefix of a screening job.")],
) -> None:
    """Merge small files and remove rows that no longer count. Answers stay the same."""
    from spinemet.display.terminal import render_table
    from spinemet.results.maintenance import compact as work

    done = work(results)
    _show(done, render_table(done))


@tables_app.command()
def vacuum(
    results: Annotated[str, typer.Argument(help="Results folder or s3:// prefix of a screening job.")],
    keep_days: Annotated[float, typer.Option(help="How far back --as-of can look afterwards.")] = 30,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count the files.")] = False,
) -> None:
    """Delete files that no version of the last days needs."""
    from spinemet.display.terminal import render_table
    from spinemet.results.maintenance import vacuum as work

    done = work(results, keep_days, dry_run=dry_run)
    _show(done, render_table(done))


@tables_app.command()
def migrate(
    results: Annotated[str, typer.Argument(help="Results folder or s3:// prefix of a screening job.")],
) -> None:
    """Bring tables of an earlier version of SpineMet up to date. Killed half way, run it again."""
    from spinemet.display.terminal import render_table
    from spinemet.results.maintenance import migrate as work

    done = work(results)
    _show(done, render_table(done))


@tables_app.command()
def dictionary() -> None:
    """Print the data dictionary of the result tables as Markdown."""
    from spinemet.results.schemas import dictionary as write

    typer.echo(write(), nl=False)


@tables_app.command()
def history(
    results: Annotated[str, typer.Argument(help="Results folder or s3:// prefix of a screening job.")],
) -> None:
    """List every version of every table, newest first."""
    from spinemet.display.terminal import render_table
    from spinemet.results.maintenance import history as ask

    versions = ask(results)
    _show(versions, render_table(versions))


@app.command()
def demo(
    out: Annotated[Path, typer.Argument(help="Folder for everything the demo makes.")] = Path("demo"),
    patients: Annotated[int, typer.Option(min=8, help="Phantom patients.")] = 48,
) -> None:
    """Run the whole job on a phantom archive: make, prepare, train, evaluate, screen, ask, report."""
    from spinemet.demo import run_demo

    run_demo(out, patients=patients)


def _moment(results: str, text: str | None) -> datetime | None:
    from spinemet.results.tables import moment_of

    return None if text is None else moment_of(results, text)


def _show(table: pd.DataFrame, rendered: object) -> None:
    """Print a table for a reader at a terminal, as CSV for a program behind a pipe."""
    from spinemet.display.terminal import console, lists_as_text

    if sys.stdout.isatty():
        console().print(rendered)
    else:
        lists_as_text(table).to_csv(sys.stdout, index=False)


def main(argv: list[str] | None = None) -> int:
    """The console script `spinemet`; gives the exit code."""
    return run_command(app, "spinemet", argv)


if __name__ == "__main__":
    sys.exit(main())
