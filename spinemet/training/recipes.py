"""Named experiments: a recipe is a function that returns a whole training configuration, or a file that changes one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from spinemet.config import SliceConfig, load_config
from spinemet.errors import BadInput
from spinemet.model.aggregate import Rule
from spinemet.model.spec import DenseNetSpec, ModelSpec
from spinemet.model.tasks import TASKS


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AugmentConfig(_Section):
    """How far training slices are moved and changed; each draw is uniform within plus or minus these limits."""

    rotation_deg: float = Field(10.0, ge=0)
    scale: float = Field(0.1, ge=0, lt=1)
    shift: float = Field(0.05, ge=0, lt=1)
    """As a share of the image's width."""
    flip: bool = True
    """Left for right: unilateral involvement stays unilateral."""
    offset_hu: float = Field(20.0, ge=0)
    gain: float = Field(0.05, ge=0, lt=1)
    noise_hu: float = Field(25.0, ge=0)
    """Largest standard deviation of the added noise; drawn from zero up."""
    blur_px: float = Field(0.7, ge=0, le=0.7)
    """Largest standard deviation of the Gaussian that softens the image, as smoother kernels do; drawn from zero up.
    Three taps make at most the 0.7 pixels."""


class PacingConfig(_Section):
    """Self-paced learning: which share of each class's samples, easiest first, is admitted at which epoch.

    regularizer: what an admitted sample weighs. hard: 1 (Kumar 2010); linear: less, the greater its loss; mixture: 1
    for the easier half of those admitted, less beyond (Jiang 2014, "Easy Samples First").
    """

    regularizer: Literal["hard", "linear", "mixture"] = "hard"
    warm_epochs: int = Field(2, ge=1)
    """All samples are admitted first: losses of an untrained network say nothing of the samples."""
    first_share: float = Field(0.6, gt=0, le=1)
    full_at: float = Field(0.7, gt=0, le=1)
    """The share grows evenly and reaches 1 at this part of all epochs."""


class TrainRecipe(_Section):
    """Everything that decides what training gives, next to the crops and the seed."""

    name: str
    model: ModelSpec
    pretrained: str | None = None
    """Local path or URI of torchvision's ImageNet weights; None for random ones."""
    test_share: float = Field(0.25, ge=0, lt=1)
    validation_share: float = Field(0.15, gt=0, lt=1)
    split_seed: int = 0
    """Apart from the training seed, so that runs of several seeds are tested on the same patients."""
    selects: str = "bone_quality"
    """The task whose log loss on the validation vertebrae, each class counting the same, picks the epoch."""
    rules: tuple[Rule, ...] = (Rule(kind="mean"), Rule(kind="top", share=0.5), Rule(kind="top", share=1 / 3))
    """Aggregations to choose from, for each task on the validation patients."""
    epochs: int = Field(ge=1)
    batch: int = Field(32, ge=1)
    """Slices per step over all workers."""
    epoch_slices: int | None = Field(None, ge=1)
    """Slices per epoch, drawn without repeats; None takes all. Slices of one vertebra are much alike."""
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    warmup_epochs: float = Field(1.0, ge=0)
    clip_norm: float = Field(1.0, gt=0)
    average_decay: float = Field(0.98, ge=0, lt=1)
    """Of the moving average of the weights over steps, which is what is validated and kept; 0 for no averaging."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    balance: float = Field(0.5, ge=0, le=1)
    """Loss weight of a class: its frequency to the power of minus this; 0 not balanced, 1 wholly."""
    pacing: PacingConfig | None = None
    augment: AugmentConfig = AugmentConfig()
    compiled: bool = False
    """By torch.compile: minutes at the start, and numbers that differ in the last digits. Wants a C++ compiler."""


def demo() -> TrainRecipe:
    """A small DenseNet that learns the phantom in two minutes on two cores."""
    return TrainRecipe(
        name="demo",
        model=ModelSpec(
            backbone=DenseNetSpec(growth_rate=16, block_config=(3, 6, 8, 4), init_features=32),
            slices=SliceConfig(size_px=96, pixel_mm=1.15, step_mm=3.0),
        ),
        epochs=14,
        learning_rate=1e-3,
        weight_decay=0.1,
        label_smoothing=0.05,
        balance=0.8,
        pacing=PacingConfig(first_share=0.7, full_at=0.5),
    )


# The paper's experiments (Peng et al. 2019), each the one before with one change. What the paper does not add (balance,
# augmentation, averaged weights, dropout) is in all of them: a weak baseline would flatter the rest.


def densenet121() -> TrainRecipe:
    """The baseline: one DenseNet-121 that is asked for the four classes of bone quality and nothing else.

    Set `pretrained` to ImageNet weights where they are at hand (`--pretrained`).
    """
    (whole,) = (task for task in TASKS if task.name == "bone_quality")
    return TrainRecipe(
        name="densenet121",
        model=ModelSpec(tasks=(whole.model_copy(update={"fuses": ()}),), dropout=0.1),
        epochs=40,
        batch=64,
        learning_rate=3e-4,
        warmup_epochs=0,
        average_decay=0.998,
    )


def subtasks() -> TrainRecipe:
    """Bone quality as two sub-tasks, blastic and lytic, that an MLP fuses."""
    tasks = tuple(task for task in TASKS if task.name != "posterolateral")
    return _changed(densenet121(), "subtasks", model=_model(densenet121(), tasks=tasks))


def mtl_soft() -> TrainRecipe:
    """Posterolateral involvement is learned beside it, with a trunk per task, coupled (soft parameter sharing)."""
    return _changed(subtasks(), "mtl-soft", model=_model(subtasks(), tasks=TASKS, sharing="soft"))


def mtl_hard() -> TrainRecipe:
    """One trunk for all tasks (hard parameter sharing)."""
    return _changed(mtl_soft(), "mtl-hard", model=_model(mtl_soft(), sharing="hard"))


def warmup() -> TrainRecipe:
    """The learning rate grows over the first epochs."""
    return _changed(mtl_hard(), "+warmup", warmup_epochs=3)


def label_smoothing() -> TrainRecipe:
    """Targets are smoothed."""
    return _changed(warmup(), "+label-smoothing", label_smoothing=0.1)


def self_paced() -> TrainRecipe:
    """Easy samples first, harder ones gradually."""
    return _changed(label_smoothing(), "+self-paced", pacing=PacingConfig(warm_epochs=4))


def final() -> TrainRecipe:
    """The paper's whole method: everything above."""
    return _changed(self_paced(), "final")


class Scale(_Section):
    """A size at which every recipe can be run, so that recipes stay comparable on a machine that full size is not for.

    Warm-up and self-pacing keep their parts of all epochs.
    """

    backbone: DenseNetSpec
    slices: SliceConfig
    epochs: int = Field(ge=1)
    batch: int = Field(ge=1)
    average_decay: float = Field(ge=0, lt=1)
    learning_rate: float = Field(gt=0)


SCALES: dict[str, Scale | None] = {
    "full": None,
    # The demo's network: 420 slices of 64 pixels per second and core, forward and back, where DenseNet-121 has 115.
    "small": Scale(
        backbone=DenseNetSpec(growth_rate=16, block_config=(3, 6, 8, 4), init_features=32),
        slices=SliceConfig(size_px=64, pixel_mm=1.5, step_mm=4.0),
        epochs=12,
        batch=32,
        average_decay=0.98,
        learning_rate=1e-3,
    ),
}


def scaled(recipe: TrainRecipe, scale: str) -> TrainRecipe:
    """`recipe` at the size called `scale`. Raises BadInput where there is none."""
    if scale not in SCALES:
        raise BadInput(f"expected a scale ({', '.join(SCALES)}), found {scale}.")
    size = SCALES[scale]
    if size is None:
        return recipe
    part = size.epochs / recipe.epochs
    pacing = recipe.pacing
    if pacing is not None:
        pacing = pacing.model_copy(update={"warm_epochs": max(1, round(pacing.warm_epochs * part))})
    return _changed(
        recipe,
        recipe.name,
        model=_model(recipe, slices=size.slices, backbone=size.backbone),
        warmup_epochs=recipe.warmup_epochs * part,
        pacing=pacing,
        **size.model_dump(exclude={"slices", "backbone"}),
    )


def composed() -> TrainRecipe:
    """Beyond the paper: the MLP corrects what blastic and lytic give by themselves, instead of learning it anew; all
    samples from the first epoch on, for self-pacing keeps the few that are mixed away for too long.
    """
    return _changed(label_smoothing(), "+composed", model=_model(label_smoothing(), composed=True))


def _changed(recipe: TrainRecipe, name: str, **changes: object) -> TrainRecipe:
    return recipe.model_copy(update={"name": name, **changes})


def _model(recipe: TrainRecipe, **changes: object) -> ModelSpec:
    return recipe.model.model_copy(update=changes)


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
"""The rungs of the paper's comparison, baseline first; `+self-paced` and `final` are one."""


class _RecipeFile(TrainRecipe):
    """TOML: `base`, the recipe that is changed (default: final); `[[tasks]]`, which are added to the base's; anything
    else as in TrainRecipe, instead of what the base says."""

    @model_validator(mode="before")
    @classmethod
    def _merge(cls, given: dict[str, Any]) -> dict[str, Any]:
        given = dict(given)
        base = recipe(str(given.pop("base", "final"))).model_dump()
        further = given.pop("tasks", [])
        if not isinstance(further, list):
            raise ValueError("expected [[tasks]], a list of them")
        base["model"]["tasks"] = (*base["model"]["tasks"], *further)
        for key, value in given.items():
            nested = isinstance(value, dict) and isinstance(base.get(key), dict)
            base[key] = {**base[key], **value} if nested else value
        return base


def recipe(name: str) -> TrainRecipe:
    """The recipe called `name`; for the path of a TOML file the one in it, called as the file is.

    Raises BadInput where there is none, or the file says what no recipe can.
    """
    if name.endswith(".toml"):
        fields = load_config(name, _RecipeFile).model_dump()
        return TrainRecipe.model_validate({**fields, "name": Path(name).stem})
    if name not in RECIPES:
        raise BadInput(f"expected a recipe ({', '.join(RECIPES)}) or a TOML file, found {name}.")
    return RECIPES[name]()
