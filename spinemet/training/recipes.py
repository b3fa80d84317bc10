"""Named experiments: a recipe is a function that returns a whole TrainRecipe, or a TOML file that changes one.

Any recipe can also run at a smaller scale, so that recipes stay comparable on a machine too small for the full size.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import model_validator

from spinemet.config import SliceConfig, changed, load_config
from spinemet.errors import BadInput
from spinemet.model.spec import DenseNetSpec, ModelSpec
from spinemet.model.tasks import TASKS
from spinemet.training.config import PacingConfig, TrainRecipe

SMALL_DENSENET = DenseNetSpec(growth_rate=16, block_config=(3, 6, 8, 4), init_features=32)


def demo() -> TrainRecipe:
    """A small DenseNet that learns the phantom in two minutes on two cores."""
    return TrainRecipe(
        name="demo",
        model=ModelSpec(backbone=SMALL_DENSENET, slices=SliceConfig(size_px=96, pixel_mm=1.15, step_mm=3.0)),
        epochs=14,
        learning_rate=1e-3,
        weight_decay=0.1,
        label_smoothing=0.05,
        balance=0.8,
        pacing=PacingConfig(first_share=0.7, full_at=0.5),
    )


# The paper's experiments (Peng et al. 2019). Each changes one thing in the recipe before it. All of them use class
# balance, augmentation, averaged weights and dropout, which the paper does not: a weak baseline would flatter the rest.


def densenet121() -> TrainRecipe:
    """The baseline: one DenseNet-121 that learns the four classes of bone quality and nothing else.

    Set `pretrained` (`--pretrained`) if you have ImageNet weights.
    """
    (bone_quality,) = (task for task in TASKS if task.name == "bone_quality")
    return TrainRecipe(
        name="densenet121",
        model=ModelSpec(tasks=(changed(bone_quality, fuses=()),), dropout=0.1),
        epochs=40,
        batch=64,
        learning_rate=3e-4,
        warmup_epochs=0,
        average_decay=0.998,
    )


def subtasks() -> TrainRecipe:
    """Bone quality as two sub-tasks, blastic and lytic, which an MLP fuses."""
    tasks = tuple(task for task in TASKS if task.name != "posterolateral")
    return _with_model(densenet121(), "subtasks", tasks=tasks)


def mtl_soft() -> TrainRecipe:
    """Posterolateral involvement as a further task; each task has its own trunk, coupled (soft parameter sharing)."""
    return _with_model(subtasks(), "mtl-soft", tasks=TASKS, sharing="soft")


def mtl_hard() -> TrainRecipe:
    """One trunk for all tasks (hard parameter sharing)."""
    return _with_model(mtl_soft(), "mtl-hard", sharing="hard")


def warmup() -> TrainRecipe:
    """The learning rate grows over the first epochs."""
    return changed(mtl_hard(), name="+warmup", warmup_epochs=3)


def label_smoothing() -> TrainRecipe:
    """Targets are smoothed."""
    return changed(warmup(), name="+label-smoothing", label_smoothing=0.1)


def self_paced() -> TrainRecipe:
    """Easy samples first, hard ones gradually."""
    return changed(label_smoothing(), name="+self-paced", pacing=PacingConfig(warm_epochs=4))


def final() -> TrainRecipe:
    """The paper's whole method: the same as `+self-paced`."""
    return changed(self_paced(), name="final")


def composed() -> TrainRecipe:
    """Beyond the paper: the MLP corrects the product of blastic and lytic instead of learning bone quality anew.

    Without self-pacing, which keeps the few mixed vertebrae away for too long.
    """
    return _with_model(label_smoothing(), "+composed", composed=True)


def _with_model(recipe: TrainRecipe, name: str, **changes: object) -> TrainRecipe:
    return changed(recipe, name=name, model=changed(recipe.model, **changes))


RECIPES: dict[str, Callable[[], TrainRecipe]] = {
    "demo": demo,
    "densenet121": densenet121,
    "subtasks": subtasks,
    "mtl-soft": mtl_soft,
    "mtl-hard": mtl_hard,
    "+warmup": warmup,
    "+label-smoothing": label_smoothing,
    "+self-paced": self_paced,
    "final": final,
    "+composed": composed,
}

ABLATION = ("densenet121", "subtasks", "mtl-soft", "mtl-hard", "+warmup", "+label-smoothing", "final")
"""The paper's comparison, baseline first; `+self-paced` is left out because `final` equals it."""


def recipe(name: str) -> TrainRecipe:
    """The recipe called `name`. The path of a TOML file gives the recipe in it, named after the file.

    Raises BadInput if there is no such recipe or the file is not valid.
    """
    if name.endswith(".toml"):
        fields = load_config(name, _RecipeFile).model_dump()
        return TrainRecipe.model_validate({**fields, "name": Path(name).stem})
    if name not in RECIPES:
        raise BadInput(f"expected a recipe ({', '.join(RECIPES)}) or a TOML file, found {name}.")
    return RECIPES[name]()


class _RecipeFile(TrainRecipe):
    """A TOML file: `base` names the recipe to change (default: final), `[[tasks]]` adds tasks to it, and every other
    key replaces a field of TrainRecipe."""

    @model_validator(mode="before")
    @classmethod
    def _merge(cls, given: dict[str, Any]) -> dict[str, Any]:
        given = dict(given)
        base = recipe(str(given.pop("base", "final"))).model_dump()
        further = given.pop("tasks", [])
        if not isinstance(further, list):
            raise ValueError("write each task as its own [[tasks]] table")
        base["model"]["tasks"] = (*base["model"]["tasks"], *further)
        for key, value in given.items():
            nested = isinstance(value, dict) and isinstance(base.get(key), dict)
            base[key] = {**base[key], **value} if nested else value
        return base


SCALES: dict[str, dict[str, Any]] = {
    "full": {},
    # Forward and back, this network does 420 slices of 64 pixels per second and core; DenseNet-121 does 115.
    "small": {
        "backbone": SMALL_DENSENET,
        "slices": SliceConfig(size_px=64, pixel_mm=1.5, step_mm=4.0),
        "epochs": 12,
        "batch": 32,
        "average_decay": 0.98,
        "learning_rate": 1e-3,
    },
}
"""Scale -> the fields of recipe and model that set their size."""


def scaled(recipe: TrainRecipe, scale: str) -> TrainRecipe:
    """`recipe` at the size called `scale`; warm-up and self-pacing keep their part of all epochs.

    Raises BadInput if there is no such scale.
    """
    if scale not in SCALES:
        raise BadInput(f"expected a scale ({', '.join(SCALES)}), found {scale}.")
    in_model = {name: value for name, value in SCALES[scale].items() if name in ModelSpec.model_fields}
    in_recipe = {name: value for name, value in SCALES[scale].items() if name not in in_model}
    part = in_recipe.get("epochs", recipe.epochs) / recipe.epochs
    pacing = recipe.pacing and changed(recipe.pacing, warm_epochs=max(1, round(recipe.pacing.warm_epochs * part)))
    return changed(
        recipe,
        model=changed(recipe.model, **in_model),
        warmup_epochs=recipe.warmup_epochs * part,
        pacing=pacing,
        **in_recipe,
    )
