"""Sizes at which any recipe can run, so that recipes stay comparable on a machine too small for the full size."""

from __future__ import annotations

from pydantic import Field

from spinemet.config import FrozenModel, SliceConfig, changed
from spinemet.errors import BadInput
from spinemet.model.spec import DenseNetSpec
from spinemet.training.config import TrainRecipe
from spinemet.training.recipes import SMALL_DENSENET


class Scale(FrozenModel):
    """The fields of a recipe that set its size."""

    backbone: DenseNetSpec
    slices: SliceConfig
    epochs: int = Field(ge=1)
    batch: int = Field(ge=1)
    average_decay: float = Field(ge=0, lt=1)
    learning_rate: float = Field(gt=0)


SCALES: dict[str, Scale | None] = {
    "full": None,
    # Forward and back, this network does 420 slices of 64 pixels per second and core; DenseNet-121 does 115.
    "small": Scale(
        backbone=SMALL_DENSENET,
        slices=SliceConfig(size_px=64, pixel_mm=1.5, step_mm=4.0),
        epochs=12,
        batch=32,
        average_decay=0.98,
        learning_rate=1e-3,
    ),
}


def scaled(recipe: TrainRecipe, scale: str) -> TrainRecipe:
    """`recipe` at the size called `scale`; warm-up and self-pacing keep their part of all epochs.

    Raises BadInput if there is no such scale.
    """
    if scale not in SCALES:
        raise BadInput(f"expected a scale ({', '.join(SCALES)}), found {scale}.")
    size = SCALES[scale]
    if size is None:
        return recipe
    part = size.epochs / recipe.epochs
    pacing = recipe.pacing
    if pacing is not None:
        pacing = changed(pacing, warm_epochs=max(1, round(pacing.warm_epochs * part)))
    return changed(
        recipe,
        model=changed(recipe.model, slices=size.slices, backbone=size.backbone),
        warmup_epochs=recipe.warmup_epochs * part,
        pacing=pacing,
        **size.model_dump(exclude={"slices", "backbone"}),
    )
