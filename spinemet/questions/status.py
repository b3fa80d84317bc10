"""`spinemet status`."""

from typing import Annotated

import typer

from spinemet.commands import console
from spinemet.errors import BadInput
from spinemet.questions.options import ResultsPlace


def status(
    results: ResultsPlace,
    max_age: Annotated[
        float | None, typer.Option(metavar="HOURS", help="Exit with 1 if the last success is older.")
    ] = None,
    linkage: Annotated[
        str | None, typer.Option(help="Place of the linkage tables: names the failed studies, with identifiers.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the last runs, what failed and why, who holds the lease, drift, and the age of the last success."""
    from spinemet.display.status import render_status, status_json
    from spinemet.results.status import status as status_of

    if max_age is not None and not max_age > 0:
        raise BadInput(f"expected a number of hours above 0, found {max_age:g}.")
    found = status_of(results, linkage)
    if as_json:
        typer.echo(status_json(found, max_age))
    else:
        console().print(render_status(found, max_age))
    if max_age is not None and found.is_too_old(max_age):
        raise typer.Exit(1)
