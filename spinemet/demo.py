"""`make demo`: the whole job on a phantom archive, on this machine, with nothing else installed.

Makes the archive, prepares crops, trains, evaluates on patients not trained on, screens the archive into result
tables, asks them, and writes the report. A later demo in the same folder keeps what is finished.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spinemet.config import FrozenModel
from spinemet.errors import BadInput
from spinemet.files import claim
from spinemet.progress import progress_bar

if TYPE_CHECKING:
    from rich.table import Table

SEED = 7
RECIPE = "demo"


class DemoRequest(FrozenModel):
    """What a demo makes."""

    patients: int
    seed: int


@dataclass(frozen=True)
class DemoPaths:
    """Where everything of a demo lies."""

    root: Path

    def __truediv__(self, name: str) -> str:
        return str(self.root / name)

    @property
    def archive(self) -> str:
        """The phantom studies."""
        return self / "phantom/archive"

    @property
    def labels(self) -> str:
        """Their label table."""
        return self / "phantom/labels.csv"

    @property
    def crops(self) -> str:
        """The labelled slices."""
        return self / "crops"

    @property
    def model(self) -> str:
        """The trained model."""
        return self / f"runs/{RECIPE}/model"

    @property
    def evaluation(self) -> str:
        """The measures of the model."""
        return self / "evaluation"

    @property
    def results(self) -> str:
        """The result tables."""
        return self / "results"


@dataclass(frozen=True)
class _Done:
    """A finished step: what came of it, and where that is."""

    title: str
    said: str
    where: str
    seconds: float = 0.0


def run_demo(out: Path, *, patients: int) -> None:
    """Run all steps into the folder `out` and print where everything is.

    Raises BadInput where `out` cannot be written, or holds something else than a demo of `patients` patients.
    """
    from spinemet.display.terminal import console

    paths = DemoPaths(out.absolute())
    _claim(paths, patients)
    started = time.monotonic()
    done = []
    for step in _STEPS:
        start = time.monotonic()
        ended = step(paths, patients)
        done.append(_Done(ended.title, ended.said, ended.where, time.monotonic() - start))
    console().print(_closing(paths, done, time.monotonic() - started))


def _claim(paths: DemoPaths, patients: int) -> None:
    """Take the folder for a demo of `patients` patients, with a pseudonym key of its own."""
    try:
        paths.root.mkdir(parents=True, exist_ok=True)
        if not (paths.root / "demo.json").exists() and any(paths.root.iterdir()):
            raise BadInput(f"{paths.root} holds something other than a demo; use an empty folder.")
        claim(paths / "demo.json", DemoRequest(patients=patients, seed=SEED))
        key = paths.root / "pseudonym.key"
        if not key.exists():
            with open(os.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_hex(16))
    except OSError as error:
        raise BadInput(f"The folder {paths.root} cannot be written ({type(error).__name__}).") from error


def _make_archive(paths: DemoPaths, patients: int) -> _Done:
    from spinemet.phantom.archive import write_archive

    title, summary = "Phantom archive", paths.root / "phantom" / "summary.json"
    if not summary.exists():
        with progress_bar("Making phantom patients") as advance:
            made = write_archive(paths / "phantom", patients, SEED, workers=os.cpu_count() or 1, progress=advance)
        said = f"{made.studies + made.unusable} studies of {made.patients} patients, {made.size / 1e6:.0f} MB of DICOM"
        summary.write_text(json.dumps(said))
    return _Done(title, json.loads(summary.read_text()), "phantom/")


def _prepare(paths: DemoPaths, patients: int) -> _Done:
    from spinemet.config import StudyConfig
    from spinemet.on_ray.prepare import run_prepare
    from spinemet.training.crops import read_info
    from spinemet.training.recipes import recipe

    if not (paths.root / "crops" / "crops.json").exists():
        with progress_bar("Cutting training slices") as advance:
            config = StudyConfig(slices=recipe(RECIPE).model.slices)
            run_prepare(paths.archive, paths.labels, paths.crops, config, advance)
    info = read_info(paths.crops)
    return _Done("Training slices", f"{info.slices} slices of {info.vertebrae} labelled vertebrae", "crops/")


def _train(paths: DemoPaths, patients: int) -> _Done:
    from spinemet.on_ray.train import run_train
    from spinemet.training.recipes import recipe

    with progress_bar("Training the model") as advance:
        run = run_train(paths.crops, paths / "runs", RECIPE, recipe(RECIPE), progress=advance)
    said = f"recipe {RECIPE}, trained before" if run.found_finished else f"recipe {RECIPE}"
    return _Done("Model", said, f"runs/{RECIPE}/model/")


def _evaluate(paths: DemoPaths, patients: int) -> _Done:
    from spinemet.display.terminal import console
    from spinemet.evaluation.evaluate import run_evaluate
    from spinemet.evaluation.evaluation_page import evaluation_page
    from spinemet.statistics.intervals import format_interval

    with progress_bar("Evaluating on unseen patients") as advance:
        measured = run_evaluate(paths.model, paths.crops, paths.evaluation, progress=advance)
    console().print(evaluation_page(measured).render())
    macro = format_interval(*measured.value("bone_quality", "macro_sensitivity"))
    said = f"macro sensitivity {macro} per vertebra, on {measured.facts['patients']} patients"
    return _Done("Evaluation", said, "evaluation/")


def _screen(paths: DemoPaths, patients: int) -> _Done:
    from spinemet.dicom.pseudonym import load_key
    from spinemet.on_ray.screen import run_screen
    from spinemet.screening.options import ScreenOptions
    from spinemet.screening.run import in_words

    key = load_key(key_file=paths / "pseudonym.key")
    with progress_bar("Screening the archive") as advance:
        run = run_screen(ScreenOptions(paths.archive, paths.results, paths.model, key), advance)
    said = f"{in_words(run.states)}; {run.vertebrae} vertebrae" if run.studies else "nothing new to screen"
    return _Done("Result tables", said, "results/")


def _ask(paths: DemoPaths, patients: int) -> _Done:
    from spinemet.cohort.prevalence import prevalence
    from spinemet.cohort.views import open_cohort
    from spinemet.display.terminal import console, render_prevalence

    table = prevalence(open_cohort(paths.results), ["sex"], unit="patient")
    console().print(render_prevalence(table))
    table.to_csv(paths / "prevalence.csv", index=False)
    return _Done("Prevalence", "patients with a lesion, by sex", "prevalence.csv")


def _report(paths: DemoPaths, patients: int) -> _Done:
    from spinemet.report.html import write_report

    write_report(paths.results, paths / "report.html", evaluation=paths.evaluation)
    return _Done("Report", "open it in a browser", "report.html")


_STEPS: tuple[Callable[[DemoPaths, int], _Done], ...] = (
    _make_archive,
    _prepare,
    _train,
    _evaluate,
    _screen,
    _ask,
    _report,
)


def _closing(paths: DemoPaths, done: list[_Done], seconds: float) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(
        title=f"Demo done in {seconds / 60:.1f} minutes",
        caption=f"everything is in {paths.root}",
        box=box.SIMPLE_HEAD,
        title_style="bold",
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("step")
    table.add_column("what came of it")
    table.add_column("where", style="cyan")
    table.add_column("s", justify="right", style="dim")
    for one in done:
        table.add_row(one.title, one.said, one.where, f"{one.seconds:.0f}")
    return table
