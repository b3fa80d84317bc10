"""`spinemet cohort table1`, `density`, `compare`, `agreement`: groups of patients, and readers, side by side."""

from pathlib import Path
from typing import Annotated

import typer

from spinemet.errors import BadInput
from spinemet.questions.options import (
    AsJson,
    AsOf,
    OfConfiguration,
    OfModel,
    Picture,
    PopulationFile,
    ResultsPlace,
    answer,
    columns_of,
    opened,
)


def table1(
    results: ResultsPlace,
    by: Annotated[str, typer.Option(help="One column to describe groups apart: sex, year, manufacturer, …")] = "",
    unit: Annotated[str, typer.Option(help="Unit that is described: patient or study.")] = "patient",
    population: PopulationFile = None,
    model: OfModel = None,
    configuration: OfConfiguration = None,
    as_of: AsOf = None,
    as_json: AsJson = False,
) -> None:
    """Describe the patients of a population: age, sex, scanners, studies, and what is missing."""
    from spinemet.cohort import table1 as measure
    from spinemet.display.measure_tables import render_table1

    cohort = opened(results, population, model, configuration, as_of)
    answer(cohort, measure.table1(cohort, by, unit), render_table1, as_json=as_json)


def density(
    results: ResultsPlace,
    by: Annotated[str, typer.Option(help="Columns to group by, separated by commas: sex, level, age_group, …")] = "sex",
    population: PopulationFile = None,
    model: OfModel = None,
    configuration: OfConfiguration = None,
    as_of: AsOf = None,
    as_json: AsJson = False,
    png: Picture = None,
) -> None:
    """Show the density of the spongy bone of vertebrae without a lesion, and its change with age."""
    from spinemet.cohort import density as measure
    from spinemet.display.measure_tables import render_density

    columns = columns_of(by)
    cohort = opened(results, population, model, configuration, as_of)
    found = measure.density(cohort, columns)
    if png is not None:
        from spinemet.display.measure_figure import Columns, write_measure

        words = ("HU, mean and 95 % interval", "Trabecular density without lesions")
        write_measure(png, found, Columns(columns, "mean_hu", "ci_low", "ci_high", *words))
    answer(cohort, found, render_density, as_json=as_json)


def compare(
    results: ResultsPlace,
    groups: Annotated[
        str, typer.Argument(help="A column and two of its values, sex=F,M; or a TOML file of a second population.")
    ],
    unit: Annotated[str, typer.Option(help="Unit that is counted: patient or vertebra.")] = "patient",
    population: PopulationFile = None,
    model: OfModel = None,
    configuration: OfConfiguration = None,
    as_of: AsOf = None,
    as_json: AsJson = False,
    png: Picture = None,
) -> None:
    """Compare how often each class was found in two groups or two populations: difference and ratio."""
    from spinemet.cohort import comparison as measure
    from spinemet.display.measure_tables import render_comparison

    cohort = opened(results, population, model, configuration, as_of)
    column, is_pair, values = groups.partition("=")
    if is_pair:
        found = measure.compare(cohort, column.strip(), columns_of(values), unit)
    else:
        if not Path(groups).is_file():
            raise BadInput(f"expected a column and two values such as sex=F,M, or a TOML file, found {groups}.")
        found = measure.compare_populations(cohort, opened(results, Path(groups), model, configuration, as_of), unit)
    if png is not None:
        from spinemet.display.measure_figure import Columns, write_measure

        units = "vertebrae" if unit == "vertebra" else "patients"
        title = f"{found['second'].iloc[0]} less {found['first'].iloc[0]}: share of {units} called positive"
        ends = ("difference", "difference_low", "difference_high", "percentage points, 95 % interval")
        write_measure(png, found, Columns(["finding"], *ends, title, series="finding", scale=100, middle=0))
    answer(cohort, found, render_comparison, as_json=as_json)


def agreement(
    results: ResultsPlace,
    second_model: Annotated[
        str, typer.Option("--second-model", help="First digits of the second model's digest.")
    ] = "",
    second_configuration: Annotated[
        str, typer.Option("--second-configuration", help="First digits of the second configuration's digest.")
    ] = "",
    population: PopulationFile = None,
    model: OfModel = None,
    configuration: OfConfiguration = None,
    as_of: AsOf = None,
    as_json: AsJson = False,
) -> None:
    """Show how far two models, or two reading configurations, agree on the same vertebrae."""
    from spinemet.cohort import agreement as measure
    from spinemet.cohort.population import Population
    from spinemet.display.measure_tables import render_agreement

    cohort = opened(results, population, model, configuration, as_of)
    other = Population(model=second_model, configuration=second_configuration)
    answer(cohort, measure.agreement(cohort, other), render_agreement, as_json=as_json)
