"""`spinemet adjudicate …`: readers check a sample of the calls."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spinemet.questions.options import (
    AsJson,
    AsOf,
    OfConfiguration,
    OfModel,
    PopulationFile,
    ResultsPlace,
    answer,
    opened,
    show,
)

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType

    from spinemet.results.schemas import Row

app = typer.Typer(help="Let readers check a sample of the calls.", no_args_is_help=True)


@app.command()
def sample(
    results: ResultsPlace,
    out: Annotated[Path, typer.Argument(help="HTML file for the readers. Its key goes to a second file, .key.csv.")],
    size: Annotated[int, typer.Option(min=1, help="Vertebrae to draw.")] = 200,
    floor: Annotated[int, typer.Option(min=1, help="Of each stratum at least so many.")] = 3,
    sizes: Annotated[
        Path | None, typer.Option(help="CSV file with the columns stratum and drawn: vertebrae to draw of each.")
    ] = None,
    repeat: Annotated[float, typer.Option(help="Share of the vertebrae that come a second time.")] = 0.1,
    seed: Annotated[int, typer.Option(help="The same seed draws the same sample.")] = 0,
    population: PopulationFile = None,
    model: OfModel = None,
    configuration: OfConfiguration = None,
    as_of: AsOf = None,
    as_json: AsJson = False,
) -> None:
    """Draw vertebrae into one HTML file on which readers judge them without knowing the model's calls."""
    from spinemet.adjudication.sample import key_of, write_sample
    from spinemet.adjudication.sheets import read_sizes

    given = None if sizes is None else read_sizes(str(sizes))
    cohort = opened(results, population, model, configuration, as_of)
    found = write_sample(cohort, out, size, seed, sizes=given, floor=floor, repeat=repeat)
    answer(cohort, found.strata, as_json=as_json)
    if found.without_picture:
        typer.echo(
            f"{found.without_picture} evaluable vertebrae have no picture and were not drawn, so the sample does not "
            "stand for them. Screen their studies again without --no-pictures (jobs/screen.py --rescreen all).",
            err=True,
        )
    typer.echo(f"wrote {out} (sample {found.digest}, {len(found.key)} items) for the readers", err=True)
    typer.echo(f"wrote {key_of(out)}, which readers must not see: `adjudicate score` needs it", err=True)


@app.command()
def score(
    key: Annotated[Path, typer.Argument(help="The key that `adjudicate sample` wrote.")],
    sheets: Annotated[list[Path], typer.Argument(help="The sheets that the readers saved.")],
    adjudicator: Annotated[
        Path | None, typer.Option(help="Sheet of the reader whose answer counts where the others tie.")
    ] = None,
    out: Annotated[
        str | None, typer.Option(help="New folder for the evaluation, for the report and cohort prevalence --correct.")
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="New CSV file for label rows; needs --linkage.")] = None,
    linkage: Annotated[str | None, typer.Option(help="Place of the table that jobs/screen.py --linkage wrote.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare the readers with each other, with themselves, and the model with their consensus."""
    import json

    from spinemet.adjudication.outcome import write_evaluation, write_labels
    from spinemet.adjudication.scoring import score as measure
    from spinemet.adjudication.sheets import read_key, read_sheets
    from spinemet.errors import BadInput

    if (labels is None) != (linkage is None):
        raise BadInput("--labels and --linkage need each other: label rows name patients as the archive does.")
    items = read_key(str(key))
    every = read_sheets([str(one) for one in (*sheets, *([adjudicator] if adjudicator else []))], items)
    last = every.pop() if adjudicator else None
    found = measure(items, every, last)
    if out is not None:
        write_evaluation(found, out)
        typer.echo(f"wrote {out}", err=True)
    if labels is not None and linkage is not None:
        written, left = write_labels(found, linkage, labels)
        typer.echo(f"wrote {labels}: {written} rows; {left} vertebrae without a level or a linkage have none", err=True)
    if as_json:
        rows = json.loads(found.table.to_json(orient="records"))
        typer.echo(json.dumps({"about": found.facts, "rows": rows}, indent=2))
        return
    show(found.table, _render)


def _render(table: "pd.DataFrame") -> "RenderableType":
    """At a terminal: one line per task, measure and class or reader, the sample beside the population."""
    import pandas as pd

    from spinemet.display.terminal import render_table
    from spinemet.statistics.intervals import format_interval

    lines: dict[tuple[str, ...], Row] = {}
    for row in table.to_dict("records"):
        names = {name: row[name] for name in ("task", "measure", "of")}
        line = lines.setdefault(tuple(names.values()), names | {"sample": "", "population": ""})
        line[row["among"]] = format_interval(row["value"], row["low"], row["high"])
        line["n"], line["patients"] = row["n"], row["patients"]
    return render_table(pd.DataFrame(list(lines.values())))
