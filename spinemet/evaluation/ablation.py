"""The paper's experiment: recipes over seeds and over folds of patients, or over training sets of the benchmark.

    OUT/plan.json                     the plan; a later run with the same OUT needs the same plan
    OUT/fits/RECIPE/PART-seedS/       one fit: fit.json, and vertebrae.parquet and slices.parquet, its calls on the
                                      patients that it is measured on; while it runs, state.pt to go on from
    OUT/ablation.parquet, .md, .png   the comparison of all recipes; curve.png with several training sets

The primary measures, fixed before any fit, are the AUC of lesions, and the macro sensitivity of lesions at the
threshold that reaches the specificity `lesions.SPECIFICITY` on the fit's validation patients. The most probable class
is shown beside them. Knows no Ray: the caller of `ablate` says who runs the fits.
"""

import io
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import obstore
import pandas as pd
import torch
from pydantic import BaseModel, ValidationError

from spinemet import __version__
from spinemet.config import FrozenModel
from spinemet.errors import BadInput
from spinemet.evaluation.figures import curve_figure, gains_figure
from spinemet.evaluation.gains import ablation_page
from spinemet.evaluation.lesions import called_at, compared_lesions, lesion_threshold
from spinemet.evaluation.page import Page
from spinemet.evaluation.predictions import compared, predictions
from spinemet.evaluation.sources import Source
from spinemet.files import claim, exists, join, open_store, read_bytes, write_bytes, write_parquet
from spinemet.model.predictor import Predictor
from spinemet.model.tasks import Task
from spinemet.progress import Progress, no_progress
from spinemet.training.config import TrainRecipe
from spinemet.training.dataset import check_crops
from spinemet.training.loop import train
from spinemet.training.workers import OneProcess, State

TABLES = {"vertebra": "vertebrae.parquet", "slice": "slices.parquet"}
STATE_EVERY_S = 120.0
"""Between two stored states of a fit. A lost machine costs at most this time and the epoch that it was in."""


@dataclass(frozen=True)
class Fit:
    """One training: a recipe, the part of the data that it is trained on, and a seed."""

    recipe: TrainRecipe
    part: str
    seed: int

    @property
    def key(self) -> str:
        """Its folder below OUT."""
        return f"fits/{self.recipe.name}/{self.part}-seed{self.seed}"


class Plan(FrozenModel):
    """The facts that all fits below one OUT share. method: changes when the same recipe trains another model."""

    crops_digest: str
    truth_digest: str
    folds: int
    method: Literal[2] = 2


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
    part: str
    seed: int
    seconds: float
    card_metrics: dict[str, float | None]
    rules: dict[str, Any]
    thresholds: dict[str, float]
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


def run_fit(fit: Fit, source: Source, out: str, device: str = "cpu") -> None:
    """Train `fit` on its part of `source` and store its calls on the patients that it is measured on."""
    started = time.monotonic()
    workers = _Stored(join(out, fit.key, "state.pt"), device)
    data, measured = source.of(fit.part, fit.recipe)
    trained = train(data, fit.recipe, fit.seed, workers)
    predictor = Predictor(trained.model, trained.card, device)
    tables = predictions(predictor, measured)
    chosen = source.crops.table["patient"].isin(data.split["validation"]).to_numpy()
    validation = predictions(predictor, source.crops.take(chosen))["vertebra"]
    thresholds = {task.name: lesion_threshold(validation, task) for task in measured_tasks(fit.recipe)}
    for task in measured_tasks(fit.recipe):
        for table in tables.values():
            table[f"{task.name}_at_threshold"] = called_at(table, task, thresholds[task.name])
    for unit, name in TABLES.items():
        write_parquet(join(out, fit.key, name), tables[unit])
    result = _Result(
        recipe=fit.recipe.model_dump(mode="json"),
        part=fit.part,
        seed=fit.seed,
        seconds=time.monotonic() - started,
        card_metrics=trained.card.metrics,
        rules={name: rule.model_dump() for name, rule in trained.card.rules.items()},
        thresholds={name: one for name, one in thresholds.items() if math.isfinite(one)},
        history=workers.history,
    )
    write_bytes(join(out, fit.key, "fit.json"), (result.model_dump_json(indent=1) + "\n").encode())
    if exists(join(out, fit.key, "state.pt")):
        obstore.delete(open_store(join(out, fit.key)), "state.pt")


def ablate(
    source: Source,
    out: str,
    recipes: Sequence[TrainRecipe],
    seeds: Sequence[int],
    run_fits: Callable[[Sequence[Fit]], Iterator[Fit]],
    progress: Progress = no_progress,
) -> Page:
    """Fit every recipe to every part of `source` with every seed, write the comparison to `out` and give its page.

    The first recipe is the baseline. run_fits: does `run_fit` for each fit and yields the fit when it is stored; it
    gets only fits without a result below `out`. Raises BadInput if the data do not match the recipes, or if `out` holds
    other fits.
    """
    for recipe in recipes:
        check_crops(source.crops.info, recipe)
        check_crops(source.truth.info, recipe)
    plan = Plan(crops_digest=source.crops.info.digest, truth_digest=source.truth.info.digest, folds=source.folds)
    claim(join(out, "plan.json"), plan)
    # Seeds in the outer loop: after an early stop, all recipes can be compared over the finished seeds.
    fits = [
        Fit(recipe, part, seed) for seed in seeds for group in source.parts() for part in group for recipe in recipes
    ]
    waiting = unfinished(out, fits)
    done = len(fits) - len(waiting)
    progress(done, len(fits), "finished before" if done else "")
    if waiting:
        for number, fit in enumerate(run_fits(waiting), start=done + 1):
            progress(number, len(fits), fit.key.removeprefix("fits/"))
    return write_ablation(out, fits, source, plan)


# ---- the comparison of all recipes ------------------------------------------------------------------------------


def write_ablation(out: str, fits: Sequence[Fit], source: Source, plan: Plan) -> Page:
    """Write `ablation.parquet`, the figures and `.md` to `out`; gives the page.

    The recipe of the first fit is the baseline.
    """
    baseline = fits[0].recipe.name
    table = summarize(out, fits, source, baseline)
    page = ablation_page(table, {**plan.model_dump(), "software_version": __version__}, baseline)
    write_parquet(join(out, "ablation.parquet"), table)
    write_bytes(join(out, "ablation.png"), gains_figure(table[table["patients"] == table["patients"].max()], baseline))
    if table["patients"].nunique() > 1:
        write_bytes(join(out, "curve.png"), curve_figure(table))
    write_bytes(join(out, "ablation.md"), page.markdown().encode())
    return page


def summarize(out: str, fits: Sequence[Fit], source: Source, baseline: str) -> pd.DataFrame:
    """One row per training set (its patients), recipe, task, unit and `statistics.comparison.Compared`, and the number
    of seeds.

    With folds, a seed counts when all its folds are finished: then a model that never saw the patient has called each
    of them, and the calls of all folds are measured together. The difference is to the recipe `baseline` on the same
    training set; NaN for a task it lacks. A no/yes task is left out unless it names measures of its own.
    """
    recipes = {fit.recipe.name: fit.recipe for fit in fits}
    rows: list[dict[str, object]] = []
    for group in source.parts():
        runs = _whole_runs(out, fits, group)
        if runs and baseline not in runs:
            raise BadInput(f"No seed of the baseline {baseline} has finished {', '.join(group)}.")
        for name, tables in runs.items():
            where = {"patients": source.patients(group[0]), "recipe": name, "seeds": len(tables)}
            for task in measured_tasks(recipes[name]):
                known = name != baseline and task.name in {one.name for one in measured_tasks(recipes[baseline])}
                base = runs[baseline] if known else None
                found = [row for unit in TABLES for row in compared(task, unit, tables, base)]
                found += compared_lesions(task, tables, base)
                rows += [{**where, **row} for row in found]
    if not rows:
        raise BadInput(f"No seed of the baseline {baseline} has finished.")
    return pd.DataFrame(rows).rename(columns={"name": "measure"})


def _whole_runs(out: str, fits: Sequence[Fit], group: Sequence[str]) -> dict[str, list[dict[str, pd.DataFrame]]]:
    """Recipe -> per seed with all parts of the group: unit -> the calls on all patients."""
    done: dict[tuple[str, int], list[Fit]] = defaultdict(list)
    for fit in fits:
        if fit.part in group and exists(join(out, fit.key, "fit.json")):
            done[fit.recipe.name, fit.seed].append(fit)
    runs: dict[str, list[dict[str, pd.DataFrame]]] = {}
    for (name, _), finished in done.items():
        if len(finished) == len(group):
            tables = {}
            for unit, file in TABLES.items():
                parts = (pd.read_parquet(io.BytesIO(read_bytes(join(out, fit.key, file)))) for fit in finished)
                tables[unit] = pd.concat(parts, ignore_index=True)
            runs.setdefault(name, []).append(tables)
    return runs


def measured_tasks(recipe: TrainRecipe) -> list[Task]:
    """The tasks that the comparison shows."""
    return [task for task in recipe.model.tasks if task.kind != "binary" or task.measures]
