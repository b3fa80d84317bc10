"""The command `spinemet`, for people at a terminal. It needs no cluster; only `demo` starts a local one.

Answers go to standard output, to a pipe as CSV; everything else goes to standard error. Exit codes: commands.py.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from spinemet import __version__
from spinemet.commands import console, run_command
from spinemet.config import Localizer, StudyConfig, changed, load_config
from spinemet.errors import BadInput
from spinemet.progress import progress_bar

if TYPE_CHECKING:
    from datetime import datetime

    import pandas as pd
    from rich.console import RenderableType

    from spinemet.cohort.population import Population


app = typer.Typer(
    name="spinemet",
    help="Find, classify and count spinal metastases in CT archives.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
cohort_app = typer.Typer(help="Count findings in the result tables.", no_args_is_help=True)
app.add_typer(cohort_app, name="cohort")
tables_app = typer.Typer(help="Maintain the result tables.", no_args_is_help=True)
app.add_typer(tables_app, name="tables")

StudyPlace = Annotated[
    str, typer.Argument(help="Folder, zip or tar with DICOM files, or a NIfTI volume; a local path or s3:// URI.")
]
ResultsPlace = Annotated[str, typer.Argument(help="Folder or s3:// prefix with the results of a screening job.")]
AsOf = Annotated[
    str | None,
    typer.Option(help="Read the tables as they were at a date or time (UTC), or at a version of the table studies."),
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
PositiveRule = Annotated[
    str | None, typer.Option("--rule", help="Positive: argmax, or the least probability of a lesion, such as 0.3.")
]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def doctor(
    archive: Annotated[str | None, typer.Option(help="Folder or s3:// prefix with the studies.")] = None,
    results: Annotated[str | None, typer.Option(help="Folder or s3:// prefix of the result tables.")] = None,
    model: Annotated[str | None, typer.Option(help="Model folder, local or s3://, or builtin.")] = None,
    key_file: Annotated[
        str | None, typer.Option(help="File with the pseudonym key; replaces that of the environment.")
    ] = None,
    ray_address: Annotated[str | None, typer.Option(help="Ray head that receives the jobs: http://HOST:8265.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check this machine and the places that a job would use, and say how to fix each problem.

    The exit code is 0 if a job could start, else 2. The check leaves nothing behind.
    """
    from spinemet.doctor import examine
    from spinemet.doctor.findings import as_json as json_of
    from spinemet.doctor.findings import is_ready, render

    findings = []
    with progress_bar("Checking") as advance:
        for finding in examine(archive, results, model, key_file, ray_address):
            findings.append(finding)
            advance(len(findings), 0, finding.subject)
    if as_json:
        typer.echo(json.dumps(json_of(findings), indent=2))
    else:
        console().print(render(findings))
    if not is_ready(findings):
        raise typer.Exit(2)


@app.command()
def phantom(
    out: Annotated[str, typer.Argument(help="Folder or s3:// prefix to write to.")],
    patients: Annotated[int, typer.Option(min=1, help="Number of patients.")] = 24,
    seed: Annotated[int, typer.Option(help="The same seed makes the same patients.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Number of processes.")] = 2,
    benchmark: Annotated[
        bool, typer.Option("--benchmark", help="Instead make the crops of a hard benchmark: OUT/crops, OUT/test.")
    ] = False,
    scale: Annotated[
        str | None, typer.Option(help="With --benchmark: scale of the recipes that will train on it (default: full).")
    ] = None,
    test: Annotated[int | None, typer.Option(help="With --benchmark: patients to measure on (default: 1500).")] = None,
) -> None:
    """Make a phantom CT archive with known truth: OUT/archive, OUT/labels.csv, OUT/truth.csv."""
    if (scale, test) != (None, None) and not benchmark:
        raise BadInput("--scale and --test need --benchmark: an archive has neither.")
    with progress_bar("Making phantom patients") as advance:
        if benchmark:
            from spinemet.evaluation.benchmark import TEST, write_benchmark
            from spinemet.training.recipes import recipe, scaled

            slices = scaled(recipe("final"), scale or "full").model.slices
            made = write_benchmark(
                out, patients, seed, slices, test=TEST if test is None else test, workers=workers, progress=advance
            )
            summary = str(made["test"])
        else:
            from spinemet.phantom.archive import write_archive

            summary = str(write_archive(out, patients, seed, workers=workers, progress=advance))
    typer.echo(summary)


@app.command()
def implant(
    archive: Annotated[str, typer.Argument(help="Folder or s3:// prefix with studies without disease.")],
    out: Annotated[Path, typer.Argument(help="New folder to write to.")],
    patients: Annotated[int | None, typer.Option(min=1, help="Use only so many patients; all if left out.")] = None,
    studies: Annotated[int, typer.Option(min=1, help="Studies to make of each study of the archive.")] = 1,
    seed: Annotated[int, typer.Option(help="The same seed makes the same lesions.")] = 0,
) -> None:
    """Put lesions into normal studies for training: OUT/archive, OUT/labels.csv, OUT/truth.csv."""
    from spinemet.training.implant import write_implants

    with progress_bar("Implanting") as advance:
        typer.echo(write_implants(archive, out, seed, patients=patients, studies=studies, progress=advance))


@app.command()
def study(
    path: StudyPlace,
    model: Annotated[
        str | None, typer.Option(help="Model folder, or builtin. Without it no vertebra is classified.")
    ] = None,
    localizer: Annotated[Localizer | None, typer.Option(help="Method that finds the vertebrae.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with settings for reading studies.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    png: Annotated[
        Path | None, typer.Option(help="Also write a picture of the straightened spine to this PNG file.")
    ] = None,
) -> None:
    """Find the vertebrae of one study and, with --model, classify them."""
    from spinemet.archive.listing import study_at
    from spinemet.display.figures import study_figure
    from spinemet.display.study_json import study_json
    from spinemet.display.terminal import render_study
    from spinemet.model.card import caution
    from spinemet.reading import Screened
    from spinemet.study import read_study

    if png is not None and png.suffix.lower() != ".png":
        raise BadInput(f"expected a file name that ends in .png, found {png.name}.")
    settings = changed(load_config(config, StudyConfig), **({"localizer": localizer} if localizer else {}))
    predictor, trained_on = None, ""
    if model is not None:
        from spinemet.model.predictor import Predictor

        predictor = Predictor.load(model)
        settings, trained_on = changed(settings, slices=predictor.slices), predictor.card.trained_on
    reading = read_study(study_at(path), settings, views=png is not None)
    calls = predictor.predict(reading.stacks) if predictor and isinstance(reading, Screened) else None
    if png is not None and isinstance(reading, Screened):
        study_figure(reading, calls, png, caution(trained_on))
        typer.echo(f"wrote {png}", err=True)
    if as_json:
        typer.echo(json.dumps(study_json(reading, calls, trained_on), indent=2))
    else:
        console().print(render_study(reading, calls, caution(trained_on)))


@app.command()
def volume(
    path: StudyPlace,
    out: Annotated[Path, typer.Argument(help="NIfTI file to write (.nii or .nii.gz).")],
) -> None:
    """Write the series that SpineMet would choose, as a NIfTI volume in HU."""
    from spinemet.archive.listing import study_at
    from spinemet.dicom.volume import write_nifti
    from spinemet.study import read_volume_of

    if not out.name.endswith((".nii", ".nii.gz")):
        raise BadInput(f"expected a file name that ends in .nii or .nii.gz, found {out.name}.")
    write_nifti(read_volume_of(study_at(path), StudyConfig()), out)
    typer.echo(f"wrote {out}", err=True)


@app.command("import")
def import_labels(
    data_set: Annotated[Literal["spine-mets-ct-seg", "verse"], typer.Argument(help="Public data set.")],
    folder: Annotated[Path, typer.Argument(help="Folder with the set as it was downloaded.")],
    out: Annotated[str, typer.Argument(help="CSV file to write; a local path or s3:// URI.")],
) -> None:
    """Make the label table of a public data set.

    Of Spine-Mets-CT-SEG (TCIA, with its spreadsheet) the table holds the bone quality of the vertebrae. Of VerSe (with
    rawdata and derivatives) it lists the vertebrae, to fill in: the set has no lesion labels.
    """
    from spinemet.training.importers import import_spine_mets, import_verse

    found = (import_verse if data_set == "verse" else import_spine_mets)(folder)
    found.write(out)
    typer.echo(str(found), err=True)


@app.command()
def weights(
    path: Annotated[
        str, typer.Argument(help="File of PyTorch (.pth, .pt, .ckpt) or safetensors; a path or s3:// URI.")
    ],
    out: Annotated[str, typer.Argument(help="File to write, .safetensors; a local path or s3:// URI.")],
) -> None:
    """Convert DenseNet weights to safetensors with torchvision's names, unpickling nothing.

    For weights of torchvision, RadImageNet, MONAI, torchxrayvision and the like, also whole pickled networks. The head
    is left out. Training reads such files as they are.
    """
    from spinemet.model.weights import convert

    if not out.endswith(".safetensors"):
        raise BadInput(f"expected a file name that ends in .safetensors, found {out}.")
    typer.echo(convert(path, out), err=True)


@cohort_app.command()
def prevalence(
    results: ResultsPlace,
    by: Annotated[
        str, typer.Option(help="Columns to group by, separated by commas: level, sex, age_group, …")
    ] = "level",
    unit: Annotated[str, typer.Option(help="Unit that is counted: vertebra, study or patient.")] = "vertebra",
    task: Annotated[str, typer.Option(help="Task of the model whose classes are counted.")] = "bone_quality",
    population: PopulationFile = None,
    model: OfModel = None,
    configuration: OfConfiguration = None,
    as_of: AsOf = None,
) -> None:
    """Show how often each class was found, with its denominator and a 95 % interval."""
    from spinemet.cohort import prevalence as measure
    from spinemet.cohort.views import open_cohort
    from spinemet.display.terminal import render_prevalence

    about = _population(population, model=model, configuration=configuration)
    columns = [name.strip() for name in by.split(",") if name.strip()]
    cohort = open_cohort(results, _moment(results, as_of), about)
    _show(measure.prevalence(cohort, columns, unit=unit, task=task), render_prevalence)
    for sentence in measure.notes(cohort):
        typer.echo(sentence, err=True)


@cohort_app.command()
def flow(
    results: ResultsPlace,
    population: PopulationFile = None,
    model: OfModel = None,
    configuration: OfConfiguration = None,
    as_of: AsOf = None,
) -> None:
    """Show what leaves on the way from the archive to the evaluable vertebrae, as studies, patients and vertebrae."""
    from spinemet.cohort.flow import study_flow
    from spinemet.cohort.prevalence import notes
    from spinemet.cohort.views import open_cohort

    cohort = open_cohort(
        results, _moment(results, as_of), _population(population, model=model, configuration=configuration)
    )
    _show(study_flow(cohort).table())
    for sentence in notes(cohort):
        typer.echo(sentence, err=True)


@cohort_app.command()
def define(
    results: ResultsPlace,
    model: OfModel = None,
    configuration: OfConfiguration = None,
    since: Since = None,
    until: Until = None,
    where: Where = None,
    counted: Counted = None,
    rule: PositiveRule = None,
) -> None:
    """Print a population as TOML, with the model and configuration that it is about: a file for --population."""
    from spinemet.cohort.views import asked, open_cohort

    about = _population(
        None,
        model=model,
        configuration=configuration,
        since=since,
        until=until,
        where=where,
        counted=counted,
        rule=rule,
    )
    typer.echo(asked(open_cohort(results, population=about))["definition"], nl=False)


@app.command()
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

    about = _population(population, model=model, configuration=configuration)
    _show(run_sql(results, query, _moment(results, as_of), about))


@app.command()
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

    about = _population(population, model=model, configuration=configuration)
    write_report(results, out, evaluation=evaluation, as_of=_moment(results, as_of), population=about)
    typer.echo(f"wrote {out}", err=True)


@tables_app.command()
def compact(results: ResultsPlace) -> None:
    """Merge small files and remove rows that no longer count; answers stay the same."""
    from spinemet.results import maintenance

    _show(maintenance.compact(results))


@tables_app.command()
def vacuum(
    results: ResultsPlace,
    keep_days: Annotated[float, typer.Option(help="Days of history that --as-of can still read afterwards.")] = 30,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count the files.")] = False,
) -> None:
    """Delete files that only versions older than --keep-days need."""
    from spinemet.results import maintenance

    _show(maintenance.vacuum(results, keep_days, dry_run=dry_run))


@tables_app.command()
def migrate(results: ResultsPlace) -> None:
    """Convert the tables of an earlier version of SpineMet; run it again if it was interrupted."""
    from spinemet.results import maintenance

    _show(maintenance.migrate(results))


@tables_app.command()
def dictionary() -> None:
    """Print the data dictionary of the result tables as Markdown."""
    from spinemet.results import schemas

    typer.echo(schemas.dictionary(), nl=False)


@tables_app.command()
def history(results: ResultsPlace) -> None:
    """List every version of every table, newest first."""
    from spinemet.results import maintenance

    _show(maintenance.history(results))


@app.command()
def demo(
    out: Annotated[Path, typer.Argument(help="Folder for all files of the demo.")] = Path("demo"),
    patients: Annotated[int, typer.Option(min=8, help="Number of phantom patients.")] = 48,
) -> None:
    """Run every step on a phantom archive: make it, prepare, train, evaluate, screen, count, report."""
    from spinemet.demo import run_demo

    run_demo(out, patients=patients)


def _population(file: Path | None, **options: str | None) -> Population:
    """The population in `file`, by default of all studies, with the options that were given."""
    from spinemet.cohort.population import Population

    return changed(load_config(file, Population), **{k: value for k, value in options.items() if value is not None})


def _moment(results: str, text: str | None) -> datetime | None:
    from spinemet.results.tables import moment_of

    return None if text is None else moment_of(results, text)


def _show(table: pd.DataFrame, render: Callable[[pd.DataFrame], RenderableType] | None = None) -> None:
    """Print `table` at a terminal with `render` (by default as it is), or as CSV to a pipe."""
    from spinemet.display.terminal import lists_as_text, render_table

    if sys.stdout.isatty():
        console().print((render or render_table)(table))
    else:
        lists_as_text(table).to_csv(sys.stdout, index=False)


def main(argv: list[str] | None = None) -> int:
    """Run the console script `spinemet` and return its exit code."""
    return run_command(app, "spinemet", argv)


if __name__ == "__main__":
    sys.exit(main())
