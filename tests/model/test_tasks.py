"""Tasks as data: targets from the label table."""

from __future__ import annotations

import pandas as pd
import pytest
from pydantic import ValidationError

from spinemet.errors import BadInput
from spinemet.model.spec import ModelSpec
from spinemet.model.tasks import MISSING, TASKS, Task

LABELS = pd.DataFrame(
    {
        "bone_quality": ["normal", "blastic", "mixed", "lytic", None, float("nan"), ""],
        "posterolateral": ["none", None, "unilateral", "bilateral", "none", "", "none"],
    }
)


def test_mixed_is_both_blastic_and_lytic() -> None:
    targets = {task.name: task.targets(LABELS) for task in TASKS}
    assert targets["blastic"][:4] == [0, 1, 1, 0]
    assert targets["lytic"][:4] == [0, 0, 1, 1]
    assert targets["bone_quality"][:4] == [0, 1, 2, 3]


def test_an_empty_cell_is_missing_only_for_its_task() -> None:
    targets = {task.name: task.targets(LABELS) for task in TASKS}
    assert targets["blastic"][4:] == targets["bone_quality"][4:] == [MISSING] * 3
    assert targets["posterolateral"] == [0, MISSING, 1, 2, 0, MISSING, 0]


def test_without_the_column_every_target_is_missing() -> None:
    task = Task(name="collapse", column="collapse", positive=("yes",))
    assert task.targets(LABELS) == [MISSING] * len(LABELS)


def test_a_slice_has_its_own_label_or_that_of_its_vertebra() -> None:
    labels = pd.DataFrame(
        {"bone_quality": ["lytic", "lytic", None, None], "slice_bone_quality": ["normal", None, "mixed", None]}
    )
    lytic, quality = TASKS[1], TASKS[2]
    assert quality.slice_targets(labels) == [0, 3, 2, MISSING]
    assert lytic.slice_targets(labels) == [0, 1, 1, MISSING]
    assert quality.targets(labels) == [3, 3, MISSING, MISSING]
    assert quality.slice_targets(labels[["bone_quality"]]) == quality.targets(labels)


def test_an_unknown_word_is_refused() -> None:
    labels = pd.DataFrame({"bone_quality": ["sclerotic"]})
    with pytest.raises(BadInput, match="expected one of normal, blastic, mixed, lytic, found 'sclerotic'"):
        TASKS[2].targets(labels)


@pytest.mark.parametrize(
    "tasks",
    [
        (TASKS[2], TASKS[0], TASKS[1]),
        (TASKS[0], TASKS[0]),
        (),
    ],
    ids=["fuses a later task", "twice the same name", "none"],
)
def test_tasks_that_contradict_each_other_are_refused(tasks: tuple[Task, ...]) -> None:
    with pytest.raises(ValidationError):
        ModelSpec(tasks=tasks)


@pytest.mark.parametrize(
    "extra", [{"positive": ()}, {"positive": ("A",)}, {"positive": ("a",), "classes": ("a", "b")}, {"classes": ("a",)}]
)
def test_a_task_that_contradicts_itself_is_refused(extra: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(ValidationError):
        Task.model_validate({"name": "x", "column": "x", **extra})
