"""The settings of a training run: a TrainRecipe holds everything that decides the result, except crops and seed."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from spinemet.config import FrozenModel
from spinemet.model.aggregate import Rule
from spinemet.model.spec import ModelSpec


class AugmentConfig(FrozenModel):
    """How far training slices are moved and changed; each value is drawn evenly between minus and plus its limit."""

    rotation_deg: float = Field(10.0, ge=0)
    scale: float = Field(0.1, ge=0, lt=1)
    shift: float = Field(0.05, ge=0, lt=1)
    """As a share of the image's width."""
    flip: bool = True
    """Swaps left and right in half of the slices; unilateral involvement stays unilateral."""
    offset_hu: float = Field(20.0, ge=0)
    gain: float = Field(0.05, ge=0, lt=1)
    noise_hu: float = Field(25.0, ge=0)
    """Largest standard deviation of the added noise; drawn between 0 and this."""
    grain_mm: float = Field(1.0, ge=0)
    """Largest standard deviation of the blur of the noise: in real scans neighbouring pixels have noise in common."""
    density: float = Field(0.6, ge=0)
    """Bone differs from soft tissue by up to 1 + density times as much as it did, or as little: 1.6 to 0.6 times."""
    blur_mm: float = Field(1.8, ge=0)
    """Largest standard deviation of the Gaussian blur that imitates smooth kernels, in a quarter of the slices."""
    edge: float = Field(1.2, ge=0)
    """Largest strength of the edge enhancement that imitates sharp kernels, in another quarter."""


class PacingConfig(FrozenModel):
    """Self-paced learning (Kumar 2010): each epoch admits a share of each class's samples, the easiest ones first."""

    warm_epochs: int = Field(2, ge=1)
    """First epochs that admit all samples: the losses of an untrained network do not tell easy from hard."""
    first_share: float = Field(0.6, gt=0, le=1)
    full_at: float = Field(0.7, gt=0, le=1)
    """The share grows evenly and reaches 1 after this part of all epochs."""


class TrainRecipe(FrozenModel):
    """Everything that decides the result of training, except the crops and the seed."""

    name: str
    model: ModelSpec
    pretrained: str | None = None
    """Local path or URI of DenseNet weights (`model/weights.py` says which); None starts from random weights."""
    test_share: float = Field(0.25, ge=0, lt=1)
    validation_share: float = Field(0.15, gt=0, lt=1)
    split_seed: int = 0
    """Separate from the training seed, so that runs with different seeds are tested on the same patients."""
    selects: str = "bone_quality"
    """The epoch with the lowest log loss of this task on the validation vertebrae (all classes count the same) is
    kept."""
    rules: tuple[Rule, ...] = Field(
        (Rule(kind="mean"), Rule(kind="top", share=0.5), Rule(kind="top", share=1 / 3)), min_length=1
    )
    """Aggregation rules to choose from; each task gets the best one for the validation patients."""
    epochs: int = Field(ge=1, le=10_000)
    batch: int = Field(32, ge=1, le=65_536)
    """Slices per step, summed over all workers."""
    epoch_slices: int | None = Field(None, ge=1)
    """Slices per epoch, drawn without repeats; None takes all. The slices of one vertebra are much alike."""
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    warmup_epochs: float = Field(1.0, ge=0)
    clip_norm: float = Field(1.0, gt=0)
    average_decay: float = Field(0.98, ge=0, lt=1)
    """Decay per step of the moving average of the weights. The averaged weights are validated and kept; 0 turns the
    average off."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    balance: float = Field(0.5, ge=0, le=1)
    """The loss weight of a class is its frequency to the power of -balance: 0 does not balance, 1 balances fully."""
    prevalence: dict[str, Annotated[float, Field(gt=0, lt=1)]] = Field(default_factory=dict)
    """Task -> share of positive vertebrae that its calls assume. Other tasks assume that of the training slices as
    `balance` weighs them, in which disease is far more common than in an archive."""
    pacing: PacingConfig | None = None
    augment: AugmentConfig = AugmentConfig()
    compiled: bool = False
    """Use torch.compile: takes minutes to start, changes the last digits of the numbers, needs a C++ compiler."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        feeding = {name for task in self.model.tasks for name in task.fuses}
        composed = {task.name for task in self.model.tasks if task.fuses and self.model.composed}
        names = [task.name for task in self.model.tasks if task.name not in feeding | composed]
        if wrong := sorted(set(self.prevalence) - set(names)):
            raise ValueError(
                f"prevalence: expected tasks that are neither fused into another nor composed ({', '.join(names)}), "
                f"found {', '.join(wrong)}"
            )
        return self
