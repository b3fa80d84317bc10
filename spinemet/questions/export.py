"""`spinemet export …`: the results in the forms of other programs."""

from typing import Annotated

import typer

from spinemet.questions.options import (
    AsOf,
    OfConfiguration,
    OfModel,
    PopulationFile,
    ResultsPlace,
    opened,
)

app = typer.Typer(help="Write the results in the forms of other programs.", no_args_is_help=True)

Out = Annotated[str, typer.Argument(help="New folder or s3:// prefix to write to.")]


@app.command()
def tables(
    results: ResultsPlace,
    out: Out,
    population: PopulationFile = None,
    model: OfModel = None,
    configuration: OfConfiguration = None,
    as_of: AsOf = None,
) -> None:
    """Write a population as plain Parquet and CSV with a codebook: studies, vertebrae, calls; each row stands once."""
    from spinemet.cohort.export import export_tables

    about = export_tables(opened(results, population, model, configuration, as_of), out)
    counts = ", ".join(f"{rows} {name}" for name, rows in about["rows"].items())
    typer.echo(f"wrote {counts} to {out}", err=True)
    for sentence in about["notes"]:
        typer.echo(sentence, err=True)


@app.command()
def omop(
    results: ResultsPlace,
    out: Out,
    population: PopulationFile = None,
    model: OfModel = None,
    configuration: OfConfiguration = None,
    as_of: AsOf = None,
) -> None:
    """Write a population as OMOP Medical Imaging tables (image_occurrence, image_feature) with their measurements."""
    from spinemet.cohort.omop import export_omop

    about = export_omop(opened(results, population, model, configuration, as_of), out)
    typer.echo(f"wrote {', '.join(f'{rows} {name}' for name, rows in about['rows'].items())} to {out}", err=True)
    if about["undated"]:
        typer.echo(f"{about['undated']} studies have no date, which OMOP needs: they are left out.", err=True)
    for sentence in about["notes"]:
        typer.echo(sentence, err=True)
