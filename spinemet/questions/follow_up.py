"""`spinemet cohort incidence`, `survival` and `transitions`: what changes from one study of a patient to the next."""

from typing import Annotated

import typer

from spinemet.errors import BadInput
from spinemet.questions.options import (
    AsJson,
    AsOf,
    Form,
    MinCell,
    OfConfiguration,
    OfModel,
    PopulationFile,
    ResultsPlace,
    answer,
    opened,
)

Evaluation = Annotated[
    str | None, typer.Option("--correct", help="Folder of jobs/evaluate.py: correct for the errors measured there.")
]
Uncorrected = Annotated[bool, typer.Option("--uncorrected", help="Count what the model called, errors included.")]
ByVisit = Annotated[str, typer.Option(help="Columns to group by, separated by commas: sex, age_group.")]


def incidence(
    results: ResultsPlace,
    by: Annotated[str, typer.Option(help="Columns to group by, separated by commas: sex, age_group, year.")] = "",
    washout: Annotated[
        int | None, typer.Option(min=0, help="Days without a lesion before an event; by default all earlier visits.")
    ] = None,
    repeated: Annotated[bool, typer.Option("--repeated", help="Count further events of a patient.")] = False,
    evaluation: Evaluation = None,
    uncorrected: Uncorrected = False,
    population: PopulationFile = None,
    model: OfModel = None,
    configuration: OfConfiguration = None,
    as_of: AsOf = None,
    as_json: AsJson = False,
    form: Form = None,
    min_cell: MinCell = None,
) -> None:
    """Show how many patients get a lesion per 100,000 person-years in which they were seen without one."""
    from spinemet.cohort import follow_up
    from spinemet.cohort import incidence as measure
    from spinemet.display.over_time import render_over_time

    _check(evaluation, uncorrected)
    cohort = opened(results, population, model, configuration, as_of)
    errors = follow_up.visit_errors(cohort, evaluation) if evaluation else None
    table = measure.incidence(cohort, _columns(by), washout, repeated, errors)
    notes = follow_up.notes(cohort, errors)
    if repeated:
        notes.append("The interval takes the repeated events of a patient as independent: it may be too narrow.")
    answer(
        cohort, table, render_over_time, as_json=as_json, notes=notes, measure="incidence", form=form, min_cell=min_cell
    )


def survival(
    results: ResultsPlace,
    at: Annotated[str, typer.Option(help="Days since the first visit, separated by commas: 180,365.")] = "",
    by: ByVisit = "",
    evaluation: Evaluation = None,
    uncorrected: Uncorrected = False,
    population: PopulationFile = None,
    model: OfModel = None,
    configuration: OfConfiguration = None,
    as_of: AsOf = None,
    as_json: AsJson = False,
    form: Form = None,
    min_cell: MinCell = None,
) -> None:
    """Show how many patients are still free of a lesion some time after a first visit without one."""
    from spinemet.cohort import follow_up
    from spinemet.cohort import survival as measure
    from spinemet.display.over_time import render_over_time

    _check(evaluation, uncorrected)
    cohort = opened(results, population, model, configuration, as_of)
    errors = follow_up.visit_errors(cohort, evaluation) if evaluation else None
    table = measure.survival(cohort, _days(at), _columns(by), errors)
    answer(
        cohort,
        table,
        render_over_time,
        as_json=as_json,
        notes=follow_up.notes(cohort, errors),
        measure="survival",
        form=form,
        min_cell=min_cell,
    )


def transitions(
    results: ResultsPlace,
    by: Annotated[
        str, typer.Option(help="Columns to group by, separated by commas: level, region, sex, age_group.")
    ] = "",
    evaluation: Evaluation = None,
    uncorrected: Uncorrected = False,
    population: PopulationFile = None,
    model: OfModel = None,
    configuration: OfConfiguration = None,
    as_of: AsOf = None,
    as_json: AsJson = False,
    form: Form = None,
    min_cell: MinCell = None,
) -> None:
    """Show what became of normal, blastic, mixed and lytic vertebrae in the next study that shows them."""
    from spinemet.cohort import follow_up
    from spinemet.cohort import transitions as measure
    from spinemet.display.over_time import render_over_time

    _check(evaluation, uncorrected)
    cohort = opened(results, population, model, configuration, as_of)
    errors = follow_up.vertebra_errors(cohort, evaluation) if evaluation else None
    table = measure.transitions(cohort, _columns(by), errors)
    answer(
        cohort,
        table,
        render_over_time,
        as_json=as_json,
        notes=measure.notes(cohort, errors),
        measure="transitions",
        form=form,
        min_cell=min_cell,
    )


def _check(evaluation: str | None, uncorrected: bool) -> None:
    if evaluation is None and not uncorrected:
        raise BadInput(
            "what changes between two studies may be an error of the model. Give --correct FOLDER to correct for "
            "the errors that jobs/evaluate.py measured, or --uncorrected to count what the model called."
        )
    if evaluation is not None and uncorrected:
        raise BadInput("expected --correct or --uncorrected, found both.")


def _columns(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _days(text: str) -> list[int]:
    try:
        days = [int(part) for part in _columns(text)]
    except ValueError:
        days = [-1]
    if any(day < 0 for day in days):
        raise BadInput(f"expected whole days such as 180,365, found {text}.")
    return days
