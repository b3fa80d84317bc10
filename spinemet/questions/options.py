"""What the commands that ask the result tables share: their options, the tables they open, how they print an answer."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from spinemet.commands import console
from spinemet.config import changed, load_config

if TYPE_CHECKING:
    from datetime import datetime

    import pandas as pd
    from duckdb import DuckDBPyConnection
    from rich.console import RenderableType

    from spinemet.cohort.population import Population

ResultsPlace = Annotated[str, typer.Argument(help="Folder or s3:// prefix with the results of a screening job.")]
AsOf = Annotated[
    str | None,
    typer.Option(help="Read the tables as at a date or time (UTC), a version of the table studies, or a pin's name."),
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
TrainingPatients = Annotated[
    str | None, typer.Option(help="Patients that the model was trained on: left out or counted.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, with what the answer is about.")]
Form = Annotated[
    Literal["summarised-result"] | None,
    typer.Option(help="Print OHDSI's summarised_result as CSV, with small counts hidden (--min-cell 5)."),
]
MinCell = Annotated[
    int | None, typer.Option(help="Hide counts of 1 to N - 1 and everything that gives them away, such as 5.")
]
Picture = Annotated[Path | None, typer.Option("--png", help="Also draw the answer into this PNG file.")]
PositiveRule = Annotated[
    str | None,
    typer.Option(help="Positive: argmax, a least probability such as 0.3, or an operating point: specificity_90."),
]


def opened(
    results: str, population: Path | None, model: str | None, configuration: str | None, as_of: str | None
) -> DuckDBPyConnection:
    """The tables at `results`, opened for questions to one population."""
    from spinemet.cohort.views import open_cohort

    about = population_of(population, model=model, configuration=configuration)
    return open_cohort(results, moment(results, as_of), about)


def answer(
    cohort: DuckDBPyConnection,
    table: pd.DataFrame,
    render: Callable[[pd.DataFrame], RenderableType] | None = None,
    *,
    as_json: bool = False,
    notes: Sequence[str] = (),
    measure: str = "",
    form: Literal["summarised-result"] | None = None,
    min_cell: int | None = None,
) -> None:
    """Print a measure of `cohort`, and on standard error what it rests on and `notes`.

    measure: its name in `cohort.disclosure`. min_cell: small counts are hidden (by default only in a
    `summarised-result`).
    """
    from spinemet.cohort import prevalence
    from spinemet.cohort.disclosure import MIN_CELL, suppress
    from spinemet.cohort.views import asked

    about, sentences = asked(cohort), [*prevalence.notes(cohort), *notes]
    least = (MIN_CELL if form else 0) if min_cell is None else min_cell
    shown = suppress(table, measure, least)
    if least > 1:
        sentences = [_without_counts(sentence) for sentence in sentences]
        sentences.append(f"Counts of 1 to {least - 1} are hidden, and what would give them away (--min-cell {least}).")
    if form:
        from spinemet.cohort.summarised_result import summarised_result

        summarised_result(table, shown, measure, about, least).to_csv(sys.stdout, index=False)
    elif as_json:
        rows = json.loads(shown.to_json(orient="records", date_format="iso"))
        values = {name: value for name, value in about.items() if name != "committed_at"}
        typer.echo(json.dumps({"about": values, "notes": sentences, "rows": rows}, indent=2))
        return
    else:
        show(shown, None if shown.isna().sum().sum() > table.isna().sum().sum() else render)
    for sentence in sentences:
        typer.echo(sentence, err=True)


def _without_counts(sentence: str) -> str:
    """A note with "some" in place of counts, from which a hidden one could be computed."""
    words = re.sub(
        r"(?<![\w.])[\d,]+(?= (patients?|studies|vertebrae|screened|unnamed|times|of them|have)\b)", "some", sentence
    )
    return words[:1].upper() + words[1:]


def columns_of(text: str) -> list[str]:
    """The names in `text`, separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def population_of(file: Path | None, **options: str | None) -> Population:
    """The population in `file`, by default of all studies, with the options that were given."""
    from spinemet.cohort.population import Population

    return changed(load_config(file, Population), **{k: value for k, value in options.items() if value is not None})


def moment(results: str, text: str | None) -> datetime | None:
    from spinemet.results.versions import moment_of

    return None if text is None else moment_of(results, text)


def show(table: pd.DataFrame, render: Callable[[pd.DataFrame], RenderableType] | None = None) -> None:
    """Print `table` at a terminal with `render` (by default as it is), or as CSV to a pipe."""
    from spinemet.display.terminal import lists_as_text, render_table

    if sys.stdout.isatty():
        console().print((render or render_table)(table))
    else:
        lists_as_text(table).to_csv(sys.stdout, index=False)
