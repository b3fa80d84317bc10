"""The commands of `spinemet` that ask the result tables and maintain them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spinemet.commands import console
from spinemet.config import changed, load_config

if TYPE_CHECKING:
    from datetime import datetime

    import pandas as pd
    from duckdb import DuckDBPyConnection
    from rich.console import RenderableType

    from spinemet.cohort.population import Population

cohort_app = typer.Typer(help="Count findings in the result tables.", no_args_is_help=True)
tables_app = typer.Typer(help="Maintain the result tables.", no_args_is_help=True)

ResultsPlace = Annotated[str, typer.Argument(help="Folder or s3:// prefix with the results of a screening job.")]
AsOf = Annotated[
    str | None,
    typer.Option(help="Read the tables as they were at a date or time (UTC), or at a version of the table studies."),
]
PopulationFile = Annotated[Path | None, typer.Option("--population", help="TOML file that cohort define wrote.")]
OfModel = Annotated[str | None, typer.Option("--model", help="First digits of the model's digest.")]
OfConfiguration = Annotated[
    str | None, typer.Option("--configuration", help="First digits of the reading configuration's digest.")
]
Since = Annotated[str | None, typer.Option(help="First day of the period, such as 2015-01-01.")]
Until = Annotated[str | None, typer.Option(help="Last day of the period.")]
Where = Annotated[str | None, typer.Option(help="Condition of SQL on the columns of the table studies.")]
Counted = Annotated[str | None, typer.Option(help="Study of a patient that gives a level: latest or first.")]
PositiveRule = Annotated[
    str | None, typer.Option("--rule", help="Positive: argmax, or the least probability of a lesion, such as 0.3.")
]


@cohort_app.command()
def prevalence(
    results: ResultsPlace,
    by: Annotated[
        str, typer.Option(help="Columns to group by, separated by commas: level, sex, age_group, …")
    ] = "level",
    unit: Annotated[str, typer.Option(help="Unit that is counted: vertebra, study or patient.")] = "vertebra",
    task: Annotated[str, typer.Option(help="Task of the model whose classes are counted.")] = "bone_quality",
    population: PopulationFile = None,
    model: OfModel = None,
    configuration: OfConfiguration = None,
    as_of: AsOf = None,
) -> None:
    """Show how often each class was found, with its denominator and a 95 % interval."""
    from spinemet.cohort import prevalence as measure
    from spinemet.display.terminal import render_prevalence

    columns = [name.strip() for name in by.split(",") if name.strip()]
    cohort = _cohort(results, population, model, configuration, as_of)
    _show(measure.prevalence(cohort, columns, unit=unit, task=task), render_prevalence)
    _show_notes(cohort)


@cohort_app.command()
def flow(
    results: ResultsPlace,
    population: PopulationFile = None,
    model: OfModel = None,
    configuration: OfConfiguration = None,
    as_of: AsOf = None,
) -> None:
    """Show what leaves on the way from the archive to the evaluable vertebrae, as studies, patients and vertebrae."""
    from spinemet.cohort.flow import study_flow

    cohort = _cohort(results, population, model, configuration, as_of)
    _show(study_flow(cohort).table())
    _show_notes(cohort)


@cohort_app.command()
def define(
    results: ResultsPlace,
    model: OfModel = None,
    configuration: OfConfiguration = None,
    since: Since = None,
    until: Until = None,
    where: Where = None,
    counted: Counted = None,
    rule: PositiveRule = None,
) -> None:
    """Print a population as TOML, with the model and configuration that it is about: a file for --population."""
    from spinemet.cohort.views import asked, open_cohort

    about = _population(
        None,
        model=model,
        configuration=configuration,
        since=since,
        until=until,
        where=where,
        counted=counted,
        rule=rule,
    )
    typer.echo(asked(open_cohort(results, population=about))["definition"], nl=False)


def sql(
    results: ResultsPlace,
    query: Annotated[str, typer.Argument(help="One SELECT over studies, vertebrae, calls, slices, pictures, runs.")],
    population: PopulationFile = None,
    model: OfModel = None,
    configuration: OfConfiguration = None,
    as_of: AsOf = None,
) -> None:
    """Run a query on the result tables, in the SQL of DuckDB. A pipe gets the answer as CSV."""
    from spinemet.cohort.views import run_sql

    about = _population(population, model=model, configuration=configuration)
    _show(run_sql(results, query, _moment(results, as_of), about))


def report(
    results: ResultsPlace,
    out: Annotated[Path, typer.Argument(help="HTML file to write.")],
    evaluation: Annotated[
        str | None, typer.Option(help="Also show the measures in this folder, which jobs/evaluate.py wrote.")
    ] = None,
    population: PopulationFile = None,
    model: OfModel = None,
    configuration: OfConfiguration = None,
    as_of: AsOf = None,
) -> None:
    """Write one self-contained HTML report with pictures."""
    from spinemet.report.html import write_report

    about = _population(population, model=model, configuration=configuration)
    write_report(results, out, evaluation=evaluation, as_of=_moment(results, as_of), population=about)
    typer.echo(f"wrote {out}", err=True)


@tables_app.command()
def compact(results: ResultsPlace) -> None:
    """Merge small files and remove rows that no longer count; answers stay the same."""
    from spinemet.results import maintenance

    _show(maintenance.compact(results))


@tables_app.command()
def vacuum(
    results: ResultsPlace,
    keep_days: Annotated[float, typer.Option(help="Days of history that --as-of can still read afterwards.")] = 30,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count the files.")] = False,
) -> None:
    """Delete files that only versions older than --keep-days need."""
    from spinemet.results import maintenance

    _show(maintenance.vacuum(results, keep_days, dry_run=dry_run))


@tables_app.command()
def migrate(results: ResultsPlace) -> None:
    """Convert the tables of an earlier version of SpineMet; run it again if it was interrupted."""
    from spinemet.results import maintenance

    _show(maintenance.migrate(results))


@tables_app.command()
def dictionary() -> None:
    """Print the data dictionary of the result tables as Markdown."""
    from spinemet.results import schemas

    typer.echo(schemas.dictionary(), nl=False)


@tables_app.command()
def history(results: ResultsPlace) -> None:
    """List every version of every table, newest first."""
    from spinemet.results import maintenance

    _show(maintenance.history(results))


def _cohort(
    results: str, population: Path | None, model: str | None, configuration: str | None, as_of: str | None
) -> DuckDBPyConnection:
    """The tables at `results`, opened for questions to one population."""
    from spinemet.cohort.views import open_cohort

    about = _population(population, model=model, configuration=configuration)
    return open_cohort(results, _moment(results, as_of), about)


def _show_notes(cohort: DuckDBPyConnection) -> None:
    """Say on standard error what an answer of `cohort` rests on."""
    from spinemet.cohort.prevalence import notes

    for sentence in notes(cohort):
        typer.echo(sentence, err=True)


def _population(file: Path | None, **options: str | None) -> Population:
    """The population in `file`, by default of all studies, with the options that were given."""
    from spinemet.cohort.population import Population

    return changed(load_config(file, Population), **{k: value for k, value in options.items() if value is not None})


def _moment(results: str, text: str | None) -> datetime | None:
    from spinemet.results.tables import moment_of

    return None if text is None else moment_of(results, text)


def _show(table: pd.DataFrame, render: Callable[[pd.DataFrame], RenderableType] | None = None) -> None:
    """Print `table` at a terminal with `render` (by default as it is), or as CSV to a pipe."""
    from spinemet.display.terminal import lists_as_text, render_table

    if sys.stdout.isatty():
        console().print((render or render_table)(table))
    else:
        lists_as_text(table).to_csv(sys.stdout, index=False)
