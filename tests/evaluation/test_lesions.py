"""Thresholds, and the calls at them."""

from __future__ import annotations

import math

import pandas as pd

from spinemet.evaluation.lesions import called_at, lesion_threshold
from spinemet.model.tasks import TASKS

BONE = TASKS[2]


def table(lesion: list[float], truth: list[str]) -> pd.DataFrame:
    """Rows whose probability of a lesion is given; mixed is the most probable lesion."""
    columns = {"normal": 0.0, "blastic": 0.2, "mixed": 0.5, "lytic": 0.3}
    found = pd.DataFrame({f"bone_quality_p_{name}": [share * p for p in lesion] for name, share in columns.items()})
    return found.assign(bone_quality_p_normal=[1 - p for p in lesion], bone_quality_true=truth, patient="p")


def test_a_tenth_of_the_normals_is_called_at_the_threshold() -> None:
    found = table([n / 20 for n in range(20)] + [0.9, 0.99], ["normal"] * 20 + ["mixed"] * 2)
    threshold = lesion_threshold(found, BONE)
    calls = called_at(found, BONE, threshold)
    assert sum(call != "normal" for call in calls[:20]) == 2
    assert calls[20:] == ["mixed", "mixed"]


def test_the_most_probable_lesion_is_called_even_if_normal_is_more_probable() -> None:
    assert called_at(table([0.4], ["lytic"]), BONE, 0.3) == ["mixed"]
    assert called_at(table([0.4], ["lytic"]), BONE, 0.41) == ["normal"]


def test_without_normal_vertebrae_there_is_no_threshold_and_no_call() -> None:
    found = table([0.4, 0.9], ["lytic", "lytic"])
    assert lesion_threshold(found, BONE) == math.inf
    assert called_at(found, BONE, math.inf) == ["normal", "normal"]
