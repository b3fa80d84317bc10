"""The description of a model without its weights: its tasks, network and preprocessing. Does not use torch."""

from typing import Literal, Self

from pydantic import Field, FiniteFloat, model_validator

from spinemet.config import FrozenModel, SliceConfig
from spinemet.model.tasks import TASKS, Task


class DenseNetSpec(FrozenModel):
    """The shape of a DenseNet (Huang et al. 2017); the defaults are DenseNet-121."""

    growth_rate: int = Field(32, gt=0)
    block_config: tuple[int, int, int, int] = (6, 12, 24, 16)
    init_features: int = Field(64, gt=0)


class Window(FrozenModel):
    """The range of HU that fills the scale of one input channel; values outside are clipped."""

    center: FiniteFloat
    width: float = Field(gt=0, allow_inf_nan=False)


WINDOWS: tuple[Window, Window, Window] = (
    Window(center=50, width=400),  # soft tissue: a lytic lesion against muscle and marrow fat
    Window(center=200, width=600),  # trabecular bone
    Window(center=600, width=1800),  # cortex and sclerosis
)


class ModelSpec(FrozenModel):
    """Tasks, network and preprocessing; the same in training and prediction."""

    tasks: tuple[Task, ...] = TASKS
    backbone: DenseNetSpec = DenseNetSpec()
    slices: SliceConfig = SliceConfig()
    windows: tuple[Window, Window, Window] = WINDOWS
    sharing: Literal["hard", "soft"] = "hard"
    """hard: one trunk for all tasks. soft: one for each task that fuses no others, coupled by cross-stitch units."""
    fusion_width: int = Field(16, gt=0)
    """Hidden units of the MLP that fuses sub-tasks."""
    composed: bool = False
    """False, as in the paper: an MLP fuses the logits of sub-tasks, slice by slice. True: the probabilities of a fused
    task follow from those of its sub-tasks (mixed means blastic and lytic), for a vertebra after its slices are
    combined: half of a mixed vertebra's slices show one kind alone."""
    dropout: float = Field(0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        seen: set[str] = set()
        for task in self.tasks:
            if task.name in seen:
                raise ValueError(f"expected different task names, found {task.name} twice")
            if missing := set(task.fuses) - seen:
                raise ValueError(f"task {task.name} fuses {', '.join(sorted(missing))}: expected earlier tasks")
            if self.composed and any(not self.task(name).positive for name in task.fuses):
                raise ValueError(f"task {task.name}: expected no/yes tasks to compose, found others in its `fuses`")
            seen.add(task.name)
        if not self.tasks:
            raise ValueError("expected at least one task, found none")
        return self

    def task(self, name: str) -> Task:
        """The task called `name`. Raises KeyError if the model has none."""
        return {task.name: task for task in self.tasks}[name]

    def parts(self, task: Task) -> dict[str, list[int]]:
        """Sub-task of a fused `task` -> the class of the sub-task that each class of `task` means."""
        return {name: [int(word in self.task(name).positive) for word in task.classes] for name in task.fuses}
