"""Train a model without labels: `python jobs/coldstart.py --help`, or with `ray job submit`.

SpineMet's own model, `builtin`, is made by this job from public CT; a site makes one from its own normal studies.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import pandas as pd
from typer import Option

from spinemet.commands import one_command, run_command
from spinemet.config import StudyConfig
from spinemet.dicom.pseudonym import Pseudonymizer, load_key
from spinemet.machine import usable_cores
from spinemet.progress import progress_bar
from spinemet.training.recipes import recipe


def coldstart(
    archive: Annotated[str, Option(help="Folder or s3:// prefix with normal studies: without metastases.")],
    out: Annotated[Path, Option(help="Local folder for everything that is made; the model: OUT/runs/RECIPE/model.")],
    phantoms: Annotated[int, Option(min=2, help="Number of phantom patients.")] = 120,
    studies: Annotated[int, Option(min=1, help="Studies with implanted lesions per normal study.")] = 16,
    recipe_name: Annotated[str, Option("--recipe", metavar="NAME", help="Recipe or TOML file.")] = "builtin",
    seed: Annotated[int, Option(help="Seed of phantoms, implants and training.")] = 0,
) -> None:
    """Train a model on phantoms and on lesions implanted into normal studies. Steps that are finished are kept.

    Exit codes: 0 done, 1 the job failed, 2 bad input.
    """
    from spinemet.on_ray.prepare import run_prepare
    from spinemet.on_ray.train import run_train
    from spinemet.phantom.archive import write_archive
    from spinemet.training.crops import MANIFEST
    from spinemet.training.implant import write_implants

    chosen, names = recipe(recipe_name), Pseudonymizer(load_key(), "shifted")
    made = {name: out / name for name in ("implants", "phantoms")}
    out.mkdir(parents=True, exist_ok=True)
    if not made["implants"].exists():
        with progress_bar("Implanting lesions") as advance:
            print(write_implants(archive, made["implants"], seed, studies=studies, progress=advance))
    if not (made["phantoms"] / "labels.csv").exists():
        with progress_bar("Making phantom patients") as advance:
            write_archive(str(made["phantoms"]), phantoms, seed, progress=advance, workers=usable_cores())
    labels = out / "labels.csv"
    pd.concat([pd.read_csv(folder / "labels.csv", dtype=str) for folder in made.values()]).to_csv(labels, index=False)
    data = out / "data"
    data.mkdir(exist_ok=True)
    for patient in (patient for folder in made.values() for patient in (folder / "archive").iterdir()):
        if not (data / patient.name).exists():
            (data / patient.name).symlink_to(patient.absolute())
    if not (out / "crops" / MANIFEST).exists():
        with progress_bar("Cutting training slices") as advance:
            print(
                run_prepare(
                    str(data), str(labels), str(out / "crops"), StudyConfig(slices=chosen.model.slices), names, advance
                )
            )
    with progress_bar("Training the model") as advance:
        run = run_train(str(out / "crops"), str(out / "runs"), chosen.name, chosen, seed=seed, progress=advance)
    print(f"{'found finished' if run.found_finished else 'trained'}: {run.model_uri}")


app = one_command(coldstart)


def main(argv: list[str] | None = None) -> int:
    """Run the job with the arguments `argv` (default: the process's own); gives the exit code."""
    return run_command(app, "coldstart", argv)


if __name__ == "__main__":
    sys.exit(main())
