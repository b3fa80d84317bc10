"""The paper's experiment on our data: recipes over folds of patients and seeds, each fit stored as it ends.

    OUT/plan.json                           the plan; a later run with the same OUT needs the same plan
    OUT/fits/RECIPE/foldF-seedS/fit.json    one fit; beside it vertebrae.parquet and slices.parquet, its calls on the
                                            patients of the fold; while it runs, state.pt to go on from
    OUT/ablation.parquet, .md, .png         the comparison of all recipes

Knows no Ray: the caller of `ablate` says who runs the fits.
"""

import io
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import obstore
import pandas as pd
import torch
from pydantic import BaseModel, ValidationError

from spinemet import __version__
from spinemet.config import FrozenModel
from spinemet.errors import BadInput
from spinemet.evaluation.figures import gains_figure
from spinemet.evaluation.page import Page
from spinemet.evaluation.pages import ablation_page
from spinemet.evaluation.predictions import compared, predictions
from spinemet.files import claim, exists, join, open_store, read_bytes, write_bytes, write_parquet
from spinemet.model.predictor import Predictor
from spinemet.model.tasks import Task
from spinemet.progress import Progress, no_progress
from spinemet.training.config import TrainRecipe
from spinemet.training.crops import Crops
from spinemet.training.dataset import check_crops, patient_strata, training_data
from spinemet.training.loop import train
from spinemet.training.split import fold_patients
from spinemet.training.workers import OneProcess, State

TABLES = {"vertebra": "vertebrae.parquet", "slice": "slices.parquet"}
STATE_EVERY_S = 120.0
"""Between two stored states of a fit. A lost machine costs at most this time and the epoch that it was in."""


@dataclass(frozen=True)
class Fit:
    """One training: a recipe, the fold of patients to test on, and a seed."""

    recipe: TrainRecipe
    fold: int
    seed: int

    @property
    def key(self) -> str:
        """Its folder below OUT."""
        return f"fits/{self.recipe.name}/fold{self.fold}-seed{self.seed}"


class Plan(FrozenModel):
    """The facts that all fits below one OUT share."""

    crops_digest: str
    truth_digest: str
    folds: int


def check_truth(crops: Crops, truth: Crops) -> None:
    """Raise BadInput unless `truth` holds the same slices as `crops`, in the same order."""
    same = ["patient", "study", "level", "offset_mm"]
    if len(crops.table) != len(truth.table) or not crops.table[same].equals(truth.table[same]):
        raise BadInput(
            f"The truth must hold the same slices as the crops, with other labels: its {len(truth.table)} slices are "
            f"not the {len(crops.table)} slices of the crops."
        )


def unfinished(out: str, fits: Iterable[Fit]) -> list[Fit]:
    """The fits without a result. Raises BadInput if the recipe of a finished fit has changed since."""
    waiting = []
    for fit in fits:
        place = join(out, fit.key, "fit.json")
        if not exists(place):
            waiting.append(fit)
        elif not _made_by(fit.recipe, _Result.model_validate_json(read_bytes(place)).recipe):
            raise BadInput(f"{fit.key} was made by an older recipe {fit.recipe.name}; use another folder.")
    return waiting


def _made_by(recipe: TrainRecipe, stored: Mapping[str, Any]) -> bool:
    try:
        return TrainRecipe.model_validate(stored) == recipe
    except ValidationError:
        return False


class _Result(BaseModel):
    """The content of fit.json, which is written last."""

    recipe: dict[str, Any]
    fold: int
    seed: int
    seconds: float
    card_metrics: dict[str, float | None]
    rules: dict[str, Any]
    history: list[dict[str, float]]


class _Stored(OneProcess):
    """One process that stores its state at `uri` between epochs, so another machine can go on."""

    def __init__(self, uri: str, device: str) -> None:
        super().__init__(device=device)
        self._uri, self._stored = uri, time.monotonic()
        if exists(uri):
            state = torch.load(io.BytesIO(read_bytes(uri)), map_location="cpu", weights_only=True)
            self.history, self.state = state.pop("history"), state

    def report(self, metrics: Mapping[str, float], state: State) -> None:
        self.history.append(dict(metrics))
        if time.monotonic() - self._stored >= STATE_EVERY_S:
            buffer = io.BytesIO()
            torch.save({**state, "history": self.history}, buffer)
            write_bytes(self._uri, buffer.getvalue())
            self._stored = time.monotonic()


def run_fit(fit: Fit, folds: int, crops: Crops, truth: Crops, out: str, device: str = "cpu") -> None:
    """Train on the other folds of `crops`, and store the calls on this fold's slices of `truth`."""
    started = time.monotonic()
    fold_of = fold_patients(crops.table["patient"], folds, fit.recipe.split_seed, patient_strata(crops, fit.recipe))
    test = sorted(patient for patient, fold in fold_of.items() if fold == fit.fold)
    workers = _Stored(join(out, fit.key, "state.pt"), device)
    trained = train(training_data(crops, fit.recipe, test=test), fit.recipe, fit.seed, workers)
    predictor = Predictor(trained.model, trained.card, device)
    tables = predictions(predictor, truth.take(truth.table["patient"].isin(test).to_numpy()))
    for unit, name in TABLES.items():
        write_parquet(join(out, fit.key, name), tables[unit])
    result = _Result(
        recipe=fit.recipe.model_dump(mode="json"),
        fold=fit.fold,
        seed=fit.seed,
        seconds=time.monotonic() - started,
        card_metrics=trained.card.metrics,
        rules={name: rule.model_dump() for name, rule in trained.card.rules.items()},
        history=workers.history,
    )
    write_bytes(join(out, fit.key, "fit.json"), (result.model_dump_json(indent=1) + "\n").encode())
    if exists(join(out, fit.key, "state.pt")):
        obstore.delete(open_store(join(out, fit.key)), "state.pt")


def ablate(
    crops: Crops,
    truth: Crops,
    out: str,
    recipes: Sequence[TrainRecipe],
    folds: int,
    seeds: Sequence[int],
    run_fits: Callable[[Sequence[Fit]], Iterator[Fit]],
    progress: Progress = no_progress,
) -> Page:
    """Fit every recipe to every fold with every seed, write the comparison to `out` and give its page.

    crops: the slices to learn from. truth: the same slices with the labels to measure against. The first recipe is the
    baseline. run_fits: does `run_fit` for each fit and yields the fit when it is stored; it gets only fits without a
    result below `out`. Raises BadInput if the two sets do not match each other or the recipes, or if `out` holds other
    fits.
    """
    check_truth(crops, truth)
    for recipe in recipes:
        check_crops(crops.info, recipe)
    plan = Plan(crops_digest=crops.info.digest, truth_digest=truth.info.digest, folds=folds)
    claim(join(out, "plan.json"), plan)
    # Seeds in the outer loop: after an early stop, all recipes can be compared over the finished seeds.
    fits = [Fit(recipe, fold, seed) for seed in seeds for fold in range(folds) for recipe in recipes]
    waiting = unfinished(out, fits)
    done = len(fits) - len(waiting)
    progress(done, len(fits), "finished before" if done else "")
    if waiting:
        for number, fit in enumerate(run_fits(waiting), start=done + 1):
            progress(number, len(fits), fit.key.removeprefix("fits/"))
    return write_ablation(out, fits, plan)


# ---- the comparison of all recipes ------------------------------------------------------------------------------


def write_ablation(out: str, fits: Sequence[Fit], plan: Plan) -> Page:
    """Write `ablation.parquet`, `.png` and `.md` to `out`; gives the page. The first fit's recipe is the baseline."""
    baseline = fits[0].recipe.name
    table = summarize(out, fits, plan.folds, baseline)
    page = ablation_page(table, {**plan.model_dump(), "software_version": __version__}, baseline)
    write_parquet(join(out, "ablation.parquet"), table)
    write_bytes(join(out, "ablation.png"), gains_figure(table, baseline))
    write_bytes(join(out, "ablation.md"), page.markdown().encode())
    return page


def summarize(out: str, fits: Sequence[Fit], folds: int, baseline: str) -> pd.DataFrame:
    """One row per recipe, task, unit and `statistics.comparison.Compared`, and the number of seeds.

    A seed counts when all its folds are finished: then a model that never saw the patient has called each of them, and
    the calls of all folds are measured together. The difference is to the recipe `baseline`; NaN for a task it lacks.
    A no/yes task is left out unless it names measures of its own.
    """
    runs = _whole_runs(out, fits, folds)
    if baseline not in runs:
        raise BadInput(f"No seed of the baseline {baseline} has finished all {folds} folds.")
    recipes = {fit.recipe.name: fit.recipe for fit in fits}
    rows: list[dict[str, object]] = []
    for name, tables in runs.items():
        for task in _measured(recipes[name]):
            known = name != baseline and task.name in {one.name for one in _measured(recipes[baseline])}
            for unit in TABLES:
                found = compared(task, unit, tables, runs[baseline] if known else None)
                rows += [{"recipe": name, "seeds": len(tables), **row} for row in found]
    return pd.DataFrame(rows).rename(columns={"name": "measure"})


def _whole_runs(out: str, fits: Sequence[Fit], folds: int) -> dict[str, list[dict[str, pd.DataFrame]]]:
    """Recipe -> per seed with all its folds: unit -> the calls on all patients."""
    done: dict[tuple[str, int], list[Fit]] = defaultdict(list)
    for fit in fits:
        if exists(join(out, fit.key, "fit.json")):
            done[fit.recipe.name, fit.seed].append(fit)
    runs: dict[str, list[dict[str, pd.DataFrame]]] = {}
    for (name, _), finished in done.items():
        if len(finished) == folds:
            tables = {}
            for unit, file in TABLES.items():
                parts = (pd.read_parquet(io.BytesIO(read_bytes(join(out, fit.key, file)))) for fit in finished)
                tables[unit] = pd.concat(parts, ignore_index=True)
            runs.setdefault(name, []).append(tables)
    return runs


def _measured(recipe: TrainRecipe) -> list[Task]:
    return [task for task in recipe.model.tasks if task.kind != "binary" or task.measures]
