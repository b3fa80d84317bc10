"""`spinemet cohort …`: a population and the measures asked of it."""

from typing import Annotated

import typer

from spinemet.errors import BadInput
from spinemet.questions import follow_up, groups
from spinemet.questions.options import (
    AsJson,
    AsOf,
    Counted,
    Form,
    MinCell,
    OfConfiguration,
    OfModel,
    Picture,
    PopulationFile,
    PositiveRule,
    ResultsPlace,
    Since,
    TrainingPatients,
    Until,
    Where,
    answer,
    columns_of,
    opened,
    population_of,
)

app = typer.Typer(help="Count findings in the result tables.", no_args_is_help=True)
for measured in (groups.table1, groups.density, groups.compare, groups.agreement):
    app.command()(measured)
for measure_over_time in (follow_up.incidence, follow_up.survival, follow_up.transitions):
    app.command()(measure_over_time)


@app.command()
def prevalence(
    results: ResultsPlace,
    by: Annotated[
        str, typer.Option(help="Columns to group by, separated by commas: level, sex, age_group, …")
    ] = "level",
    unit: Annotated[str, typer.Option(help="Unit that is counted: vertebra, study or patient.")] = "vertebra",
    task: Annotated[str, typer.Option(help="Task of the model whose classes are counted.")] = "bone_quality",
    evaluation: Annotated[
        str | None, typer.Option("--correct", help="Folder of jobs/evaluate.py: correct for the errors measured there.")
    ] = None,
    standardise: Annotated[
        str | None,
        typer.Option(help="Also standardise by age: world, europe, or a CSV with age_group, weight (, sex)."),
    ] = None,
    population: PopulationFile = None,
    model: OfModel = None,
    configuration: OfConfiguration = None,
    as_of: AsOf = None,
    as_json: AsJson = False,
    form: Form = None,
    min_cell: MinCell = None,
    png: Picture = None,
) -> None:
    """Show how often each class was found, with its denominator and a 95 % interval."""
    from spinemet.cohort import prevalence as measure
    from spinemet.cohort.evaluated import read_evaluation
    from spinemet.cohort.standard import read_standard
    from spinemet.display.terminal import render_prevalence

    columns = columns_of(by)
    cohort = opened(results, population, model, configuration, as_of)
    evaluated = read_evaluation(cohort, evaluation) if evaluation else None
    correction = measure.correction_of(cohort, evaluated, unit, task) if evaluated else None
    standard = read_standard(standardise) if standardise else None
    table = measure.prevalence(cohort, columns, unit, task, correction, standard)
    notes = [*(standard.notes(table) if standard else []), *(correction.notes(table) if correction else [])]
    if png is not None and (min_cell or form):
        raise BadInput("a picture shows every group: leave out --png, or --min-cell and --form.")
    if png is not None:
        from spinemet.display.measure_figure import Columns, write_measure

        units = {"vertebra": "vertebrae", "study": "studies", "patient": "patients"}[unit]
        words = ("%, with 95 % interval", f"Share of evaluable {units} called positive")
        shares = Columns(columns, "prevalence", "ci_low", "ci_high", *words, series="finding", scale=100)
        write_measure(png, table, shares)
    answer(
        cohort,
        table,
        render_prevalence,
        as_json=as_json,
        notes=notes,
        measure="prevalence",
        form=form,
        min_cell=min_cell,
    )


@app.command()
def flow(
    results: ResultsPlace,
    population: PopulationFile = None,
    model: OfModel = None,
    configuration: OfConfiguration = None,
    as_of: AsOf = None,
    as_json: AsJson = False,
    form: Form = None,
    min_cell: MinCell = None,
) -> None:
    """Show what leaves on the way from the archive to the evaluable vertebrae, as studies, patients and vertebrae."""
    from spinemet.cohort.flow import study_flow

    cohort = opened(results, population, model, configuration, as_of)
    answer(cohort, study_flow(cohort).table(), as_json=as_json, measure="flow", form=form, min_cell=min_cell)


@app.command()
def define(
    results: ResultsPlace,
    model: OfModel = None,
    configuration: OfConfiguration = None,
    since: Since = None,
    until: Until = None,
    where: Where = None,
    counted: Counted = None,
    training_patients: TrainingPatients = None,
    rule: PositiveRule = None,
) -> None:
    """Print a population as TOML, with the model and configuration that it is about: a file for --population."""
    from spinemet.cohort.views import asked, open_cohort

    about = population_of(
        None,
        model=model,
        configuration=configuration,
        since=since,
        until=until,
        where=where,
        counted=counted,
        training_patients=training_patients,
        rule=rule,
    )
    typer.echo(asked(open_cohort(results, population=about))["definition"], nl=False)
