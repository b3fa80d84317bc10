"""The command `spinemet`, for people at a terminal. It needs no cluster; only `demo` starts a local one.

Answers go to standard output, to a pipe as CSV; everything else goes to standard error. Exit codes: commands.py.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from spinemet import __version__, files
from spinemet.commands import console, run_command
from spinemet.config import Localizer, StudyConfig, changed, load_config
from spinemet.errors import BadInput
from spinemet.progress import progress_bar
from spinemet.questions import adjudicate, answers, cohort, export, status, tables

app = typer.Typer(
    name="spinemet",
    help="Find, classify and count spinal metastases in CT archives.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
app.add_typer(cohort.app, name="cohort")
app.add_typer(tables.app, name="tables")
app.add_typer(adjudicate.app, name="adjudicate")
app.add_typer(export.app, name="export")

StudyPlace = Annotated[
    str, typer.Argument(help="Folder, zip or tar with DICOM files, or a NIfTI volume; a local path or s3:// URI.")
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
    sr: Annotated[
        Path | None,
        typer.Option(help="Also write a DICOM Structured Report for the PACS to this file; needs --model."),
    ] = None,
) -> None:
    """Find the vertebrae of one study and, with --model, classify them. The exit code of a broken study is 2."""
    from spinemet.archive.listing import study_at
    from spinemet.display.figures import study_figure
    from spinemet.display.study_json import study_json
    from spinemet.display.terminal import render_study
    from spinemet.model.card import caution
    from spinemet.reading import Screened, State
    from spinemet.study import read_study

    if png is not None and png.suffix.lower() != ".png":
        raise BadInput(f"expected a file name that ends in .png, found {png.name}.")
    if sr is not None and model is None:
        raise BadInput("--sr needs --model: without one there is nothing to report.")
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
    if sr is not None and calls is not None and predictor and isinstance(reading, Screened):
        from spinemet.display.structured_report import structured_report

        files.write_bytes(str(sr), structured_report(study_at(path), reading, calls, predictor.digest))
        typer.echo(f"wrote {sr}: it holds the patient's identifiers, like the study itself", err=True)
    if as_json:
        typer.echo(json.dumps(study_json(reading, calls, trained_on), indent=2))
    else:
        console().print(render_study(reading, calls, caution(trained_on)))
    if reading.state is State.FAILED:
        raise typer.Exit(2)


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


@app.command()
def demo(
    out: Annotated[Path, typer.Argument(help="Folder for all files of the demo.")] = Path("demo"),
    patients: Annotated[int, typer.Option(min=8, help="Number of phantom patients.")] = 48,
) -> None:
    """Run every step on a phantom archive: make it, prepare, train, evaluate, screen, count, report."""
    from spinemet.demo import run_demo

    run_demo(out, patients=patients)


app.command()(answers.sql)
app.command()(answers.report)
app.command()(status.status)


def main(argv: list[str] | None = None) -> int:
    """Run the console script `spinemet` and return its exit code."""
    return run_command(app, "spinemet", argv)


if __name__ == "__main__":
    sys.exit(main())
