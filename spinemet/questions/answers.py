"""`spinemet sql` and `spinemet report`."""

from pathlib import Path
from typing import Annotated

import typer

from spinemet.questions.options import (
    AsOf,
    OfConfiguration,
    OfModel,
    PopulationFile,
    ResultsPlace,
    moment,
    population_of,
    show,
)


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

    about = population_of(population, model=model, configuration=configuration)
    show(run_sql(results, query, moment(results, as_of), about))


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

    about = population_of(population, model=model, configuration=configuration)
    write_report(results, out, evaluation=evaluation, as_of=moment(results, as_of), population=about)
    typer.echo(f"wrote {out}", err=True)
