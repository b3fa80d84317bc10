"""The tasks of a model. A task is data: a new one needs a configuration, not code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from spinemet.config import FrozenModel
from spinemet.errors import BadInput
from spinemet.statistics.measures import OVERALL
from spinemet.types import BONE_QUALITY, POSTEROLATERAL

if TYPE_CHECKING:
    import pandas as pd

MISSING = -1
"""The target of a sample without a label for a task; such a sample does not count in the task's loss."""

NO_YES = ("no", "yes")


def slice_column(column: str) -> str:
    """The column of the crops with the labels of single slices; `column` has those of their vertebra."""
    return f"slice_{column}"


class Task(FrozenModel):
    """One question, its possible answers, and how to read the true answer from a column of the label table.

    classes: the first one is the negative (`normal`, `none`, `no`). positive: the words of the column that mean `yes`
    in a binary task; every other word means `no`. In other tasks the words of the column are the classes. All words are
    in lower case, like those of a label table after reading. measures: names from statistics.measures.OVERALL, for this
    task in addition to the measures of every task. fuses: tasks whose logits an MLP combines into those of this task;
    empty for a task with its own head.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    column: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    classes: tuple[str, ...] = NO_YES
    positive: tuple[str, ...] = ()
    fuses: tuple[str, ...] = ()
    weight: float = Field(1.0, gt=0)
    measures: tuple[str, ...] = Field((), exclude_if=lambda names: not names)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.classes) < 2 or len(set(self.classes)) != len(self.classes):
            raise ValueError(f"task {self.name}: expected two or more different classes, found {self.classes}")
        if bool(self.positive) != (self.classes == NO_YES):
            raise ValueError(f"task {self.name}: expected `positive` words for a no/yes task and for no other")
        if odd := [word for word in (*self.classes, *self.positive) if word != word.strip().lower() or not word]:
            raise ValueError(f"task {self.name}: expected words in lower case, found {odd[0]!r}")
        if unknown := set(self.measures) - OVERALL.keys():
            raise ValueError(f"task {self.name}: expected measures from {', '.join(OVERALL)}, found {min(unknown)}")
        return self

    @property
    def kind(self) -> Literal["binary", "multiclass"]:
        """`binary` for a no/yes task."""
        return "binary" if self.classes == NO_YES else "multiclass"

    @property
    def words(self) -> tuple[str, ...]:
        """Allowed words if no other task uses the column."""
        return (NO_YES[0], *self.positive) if self.positive else self.classes

    def targets(self, labels: pd.DataFrame) -> list[int]:
        """The class number of each row of `labels`; MISSING if the cell is empty or there is no such column.

        Raises BadInput for a word that is not a class.
        """
        return self._targets(labels, self.column)

    def slice_targets(self, labels: pd.DataFrame) -> list[int]:
        """The same for single slices: from the label of the slice if it has one, else from that of its vertebra."""
        own = self._targets(labels, slice_column(self.column))
        return [whole if slice == MISSING else slice for slice, whole in zip(own, self.targets(labels), strict=True)]

    def _targets(self, labels: pd.DataFrame, column: str) -> list[int]:
        return [self._target(word) for word in labels[column]] if column in labels else [MISSING] * len(labels)

    def _target(self, word: object) -> int:
        if word is None or word == "" or word != word:  # noqa: PLR0124 (NaN, as pandas marks an empty cell)
            return MISSING
        if self.positive:
            return int(word in self.positive)
        if word not in self.classes:
            raise BadInput(f"column {self.column}: expected one of {', '.join(self.classes)}, found {word!r}.")
        return self.classes.index(str(word))


# Peng et al. 2019 (arXiv 2402.08910): an MLP fuses two binary sub-tasks into bone quality (mixed is both), and
# posterolateral involvement has its own head.
TASKS: tuple[Task, ...] = (
    Task(name="blastic", column="bone_quality", positive=("blastic", "mixed")),
    Task(name="lytic", column="bone_quality", positive=("lytic", "mixed")),
    Task(name="bone_quality", column="bone_quality", classes=BONE_QUALITY, fuses=("blastic", "lytic")),
    Task(name="posterolateral", column="posterolateral", classes=POSTEROLATERAL),
)
