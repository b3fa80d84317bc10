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
