"""`make demo`: the whole job on a phantom archive, on this machine, with nothing else installed.

It makes the archive, cuts crops, trains a model, evaluates it on patients kept for testing, screens the archive into
result tables, asks them a question and writes the report. A later demo in the same folder keeps finished steps.
"""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from rich import box
from rich.table import Column, Table

from spinemet.cohort.population import Population
from spinemet.cohort.prevalence import notes, prevalence
from spinemet.cohort.views import asked, open_cohort
from spinemet.commands import console
from spinemet.config import DatePolicy, FrozenModel, StudyConfig, load_config
from spinemet.dicom.pseudonym import Pseudonymizer, load_key
from spinemet.display.terminal import render_prevalence
from spinemet.errors import BadInput, plain_cause
from spinemet.evaluation.evaluate import run_evaluate
from spinemet.files import claim
from spinemet.machine import usable_cores
from spinemet.model.card import load_card
from spinemet.on_ray.prepare import run_prepare
from spinemet.on_ray.screen import run_screen
from spinemet.on_ray.train import run_train
from spinemet.phantom.archive import write_archive
from spinemet.phantom.plan import PHANTOM_KEY
from spinemet.progress import progress_bar
from spinemet.report.html import write_report
from spinemet.screening.plan import ScreenOptions
from spinemet.screening.run import in_words
from spinemet.statistics.intervals import format_interval
from spinemet.training.crops import MANIFEST, read_info
from spinemet.training.recipes import recipe

SEED = 7
RECIPE = "demo"
DATES: DatePolicy = "shifted"


class DemoRequest(FrozenModel):
    """The facts that all steps in one folder share."""

    patients: int
    seed: int


class DemoPaths:
    """The places below the folder of a demo, and its number of patients."""

    def __init__(self, root: Path, patients: int) -> None:
        self.root, self.patients = root, patients
        self.phantom = f"{root}/phantom"
        self.archive, self.labels = f"{self.phantom}/archive", f"{self.phantom}/labels.csv"
        self.crops, self.runs, self.model = f"{root}/crops", f"{root}/runs", f"{root}/runs/{RECIPE}/model"
        self.evaluation, self.results = f"{root}/evaluation", f"{root}/results"
        self.population = root / "population.toml"


def run_demo(out: Path, *, patients: int) -> None:
    """Run all steps in the folder `out`, then print their results and places.

    Raises BadInput if `out` cannot be written, or holds anything except a demo of `patients` patients.
    """
    paths = DemoPaths(out.absolute(), patients)
    _claim(paths)
    table = Table(
        *("step", "result", Column("place", style="cyan"), Column("seconds", justify="right", style="dim")),
        caption=f"everything is in {paths.root}", caption_justify="left", title_style="bold", title_justify="left",
        box=box.SIMPLE_HEAD,
    )  # fmt: skip
    started = time.monotonic()
    for title, place, step in _STEPS:
        start = time.monotonic()
        result = step(paths)
        table.add_row(title, result, place, f"{time.monotonic() - start:.0f}")
    table.title = f"Demo done in {(time.monotonic() - started) / 60:.1f} minutes"
    console().print(table)


def _claim(paths: DemoPaths) -> None:
    """Reserve the folder for this demo, with the pseudonym key of all phantoms."""
    root = paths.root
    try:
        root.mkdir(parents=True, exist_ok=True)
        if not (root / "demo.json").exists() and any(root.iterdir()):
            raise BadInput(f"{root} holds something other than a demo; use an empty folder.")
        claim(str(root / "demo.json"), DemoRequest(patients=paths.patients, seed=SEED))
        key = root / "pseudonym.key"
        if not key.exists():
            with open(os.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(PHANTOM_KEY.decode())  # the same split and figures in every demo
    except OSError as error:
        raise BadInput(f"The folder {root} cannot be written ({plain_cause(error)}).") from error


def _key(paths: DemoPaths) -> bytes:
    return load_key(key_file=str(paths.root / "pseudonym.key"))


def _make_archive(paths: DemoPaths) -> str:
    summary = Path(paths.phantom, "summary.json")
    if not summary.exists():
        with progress_bar("Making phantom patients") as advance:
            made = write_archive(paths.phantom, paths.patients, SEED, workers=usable_cores(), progress=advance)
        studies = made.studies + made.unusable
        text = f"{studies} studies of {made.patients} patients, {made.size / 1e6:.0f} MB of DICOM"
        summary.write_text(json.dumps(text))
    return str(json.loads(summary.read_text()))


def _prepare(paths: DemoPaths) -> str:
    if not Path(paths.crops, MANIFEST).exists():
        with progress_bar("Cutting training slices") as advance:
            config = StudyConfig(slices=recipe(RECIPE).model.slices)
            names = Pseudonymizer(_key(paths), DATES)
            run_prepare(paths.archive, paths.labels, paths.crops, config, names, advance)
    info = read_info(paths.crops)
    return f"{info.slices} slices of {info.vertebrae} labelled vertebrae"


def _train(paths: DemoPaths) -> str:
    with progress_bar("Training the model") as advance:
        run = run_train(paths.crops, paths.runs, RECIPE, recipe(RECIPE), progress=advance)
    return f"recipe {RECIPE}, trained before" if run.found_finished else f"recipe {RECIPE}"


def _evaluate(paths: DemoPaths) -> str:
    with progress_bar("Evaluating on unseen patients") as advance:
        measured = run_evaluate(paths.model, paths.crops, paths.evaluation, progress=advance)
    macro = format_interval(*measured.value("bone_quality", "macro_sensitivity"))
    return f"macro sensitivity {macro} per vertebra, on {measured.facts['patients']} patients"


def _screen(paths: DemoPaths) -> str:
    options = ScreenOptions(paths.archive, paths.results, paths.model, _key(paths), dates=DATES)
    with progress_bar("Screening the archive") as advance:
        run = run_screen(options, advance)
    return f"{in_words(run.states)}; {run.vertebrae} vertebrae" if run.studies else "nothing new to screen"


def _define(paths: DemoPaths) -> str:
    definition = asked(open_cohort(paths.results))["definition"]
    paths.population.write_text(definition)
    return "the patients whom the model does not know from training"


def _ask(paths: DemoPaths) -> str:
    cohort = open_cohort(paths.results, population=load_config(paths.population, Population))
    table = prevalence(cohort, ["sex"], unit="patient")
    console().print(render_prevalence(table), *notes(cohort), sep="\n")
    table.to_csv(paths.root / "prevalence.csv", index=False)
    return "patients with a lesion, by sex"


def _report(paths: DemoPaths) -> str:
    patients = load_card(paths.model).patients
    known = patients["train"] + patients["validation"]
    title = f"Demo: {paths.patients} phantom patients, without the {known} whom the model knows from training"
    population = load_config(paths.population, Population)
    write_report(
        paths.results, paths.root / "report.html", evaluation=paths.evaluation, population=population, title=title
    )
    return "open it in a browser"


_STEPS: tuple[tuple[str, str, Callable[[DemoPaths], str]], ...] = (
    ("Phantom archive", "phantom/", _make_archive),
    ("Training slices", "crops/", _prepare),
    ("Model", f"runs/{RECIPE}/model/", _train),
    ("Evaluation", "evaluation/evaluation.md", _evaluate),
    ("Result tables", "results/", _screen),
    ("Population", "population.toml", _define),
    ("Prevalence", "prevalence.csv", _ask),
    ("Report", "report.html", _report),
)
"""Title, place below the folder, and the work, which gives its result in words."""
