"""`spinemet tables …`: upkeep of the result tables."""

from typing import Annotated

import typer

from spinemet.errors import BadInput
from spinemet.questions.options import AsOf, OfConfiguration, ResultsPlace, show

app = typer.Typer(help="Maintain the result tables.", no_args_is_help=True)


@app.command()
def compact(results: ResultsPlace) -> None:
    """Merge small files and remove rows that no longer count; answers stay the same."""
    from spinemet.results import maintenance

    show(maintenance.compact(results))


@app.command()
def vacuum(
    results: ResultsPlace,
    keep_days: Annotated[float, typer.Option(help="Days of history that --as-of can still read afterwards.")] = 30,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count the files.")] = False,
) -> None:
    """Delete files that only versions older than --keep-days need; pinned versions keep theirs."""
    from spinemet.results import maintenance

    show(maintenance.vacuum(results, keep_days, dry_run=dry_run))


@app.command()
def pin(
    results: ResultsPlace,
    name: Annotated[str, typer.Argument(help="Name for --as-of, such as paper-2026.")],
    as_of: AsOf = None,
) -> None:
    """Keep the tables as they are now under a name: --as-of NAME reads them, also after compact and vacuum."""
    from spinemet.results import maintenance

    show(maintenance.pin(results, name, as_of))


@app.command()
def unpin(results: ResultsPlace, name: Annotated[str, typer.Argument(help="Name of the pin.")]) -> None:
    """Remove a pin; a later vacuum may delete the files of its version."""
    from spinemet.results import maintenance

    maintenance.unpin(results, name)


@app.command()
def migrate(results: ResultsPlace) -> None:
    """Convert the tables of an earlier version of SpineMet; run it again if it was interrupted."""
    from spinemet.results import maintenance

    show(maintenance.migrate(results))


@app.command()
def restore(
    results: ResultsPlace,
    version: Annotated[str, typer.Argument(help="Pin, version of the table studies, or date or time (UTC).")],
) -> None:
    """Go back to an earlier version of all tables; the next run screens what then is missing."""
    from spinemet.results import maintenance

    show(maintenance.restore(results, version))


@app.command()
def compare(
    results: ResultsPlace,
    old: Annotated[str, typer.Argument(help="First digits of a model's digest.")],
    new: Annotated[str, typer.Argument(help="First digits of another model's.")],
) -> None:
    """Count how often two models call the same vertebrae alike, for each task."""
    from spinemet.cohort import compare as comparison

    show(comparison.compare(results, old, new))


@app.command()
def erase(
    results: ResultsPlace,
    patient: Annotated[
        str | None, typer.Option(help="PatientID. Without it the command asks: other users see what is typed here.")
    ] = None,
    linkage: Annotated[str | None, typer.Option(help="Place of the linkage tables; they lose the patient too.")] = None,
    key_file: Annotated[
        str | None, typer.Option(help="File with the pseudonym key; replaces that of the environment.")
    ] = None,
) -> None:
    """Erase a patient from all tables, their history and the linkage, and keep later runs from bringing them back.

    No earlier version and no pin of the tables can be read afterwards. Training crops, models and reports stay as they
    are: prepare, train and report again without the patient.
    """
    from spinemet.dicom.pseudonym import Pseudonymizer, load_key
    from spinemet.results.erasure import erase as erase_patient
    from spinemet.results.tables import open_results
    from spinemet.screening.linkage import erase_linked
    from spinemet.screening.plan import check_key

    names = Pseudonymizer(load_key(key_file=key_file), "shifted")
    check_key(open_results(results).last_run(), names)
    key = names.patient_key(patient if patient is not None else typer.prompt("PatientID", hide_input=True))
    if not key:
        raise BadInput("expected a PatientID, found an empty one.")
    linked = erase_linked(linkage, key) if linkage else None  # first: it may be refused, and then nothing has changed
    removed = erase_patient(results, key)
    show(removed)
    if not len(removed):
        typer.echo("The tables hold nothing of this patient. Later runs will leave the patient out.", err=True)
    else:
        typer.echo("Earlier versions and pins of the tables can no longer be read: they held the patient.", err=True)
    if linked is not None:
        typer.echo(f"{linked} rows removed from the linkage tables.", err=True)
    typer.echo("Crops, models and reports that were made with the patient stay as they are.", err=True)


@app.command()
def publish(
    results: ResultsPlace,
    model: Annotated[str | None, typer.Argument(help="First digits of the model's digest.")] = None,
    configuration: OfConfiguration = None,
    back: Annotated[bool, typer.Option("--back", help="Take the last publication back.")] = False,
) -> None:
    """Choose the model that answers are about if a question names none. Without MODEL, list what was published."""
    import pandas as pd

    from spinemet.results import published

    if back and model:
        raise BadInput("expected a model or --back, found both.")
    if back:
        known = published.take_back(results)
    elif model:
        known = published.publish(results, model, configuration or "")
    else:
        known = published.publications(results)
    show(pd.DataFrame([one.model_dump() for one in reversed(known)], columns=[*published.Publication.model_fields]))


@app.command()
def dictionary() -> None:
    """Print the data dictionary of the result tables as Markdown."""
    from spinemet.results import schemas

    typer.echo(schemas.dictionary(), nl=False)


@app.command()
def history(results: ResultsPlace) -> None:
    """List every version of every table, newest first, with the pins that keep it."""
    from spinemet.results import maintenance

    show(maintenance.history(results))
