import pandas as pd
import pytest

from spinemet.evaluation.patients import patient_measures
from spinemet.model.tasks import Task
from spinemet.types import BONE_QUALITY

BONE_QUALITY_TASK = Task(name="bone_quality", column="bone_quality", classes=BONE_QUALITY)


def _vertebrae(*lines: tuple[str, str, str]) -> pd.DataFrame:
    """One row per (patient, true, called)."""
    table = pd.DataFrame(lines, columns=["patient", "bone_quality_true", "called"]).assign(study="s")
    for name in BONE_QUALITY:
        table[f"bone_quality_p_{name}"] = table["called"].eq(name) * 0.7 + 0.1
    return table


def test_a_patient_has_what_one_vertebra_has() -> None:
    table = _vertebrae(
        ("p1", "normal", "normal"), ("p1", "lytic", "lytic"),
        ("p2", "lytic", "normal"), ("p2", "normal", "blastic"),
        ("p3", "normal", "normal"), ("p3", "normal", "normal"),
        ("p4", "normal", "lytic"),
        ("p5", "lytic", "normal"),
    )  # fmt: skip
    found = {(row["label"], row["name"]): row for row in patient_measures(table, BONE_QUALITY_TASK)}
    assert found["any", "sensitivity"]["value"] == pytest.approx(2 / 3), "p1 and p2, not p5"
    assert found["any", "specificity"]["value"] == 1 / 2
    assert found["lytic", "sensitivity"]["value"] == pytest.approx(1 / 3)
    assert found["blastic", "specificity"]["value"] == pytest.approx(4 / 5)
    assert (found["any", "sensitivity"]["n"], found["any", "specificity"]["patients"]) == (3, 2)
    assert found["any", "specificity"]["low"] == pytest.approx(0.0126, abs=1e-4)


def test_an_unsure_call_says_nothing_of_its_patient() -> None:
    table = _vertebrae(("p1", "normal", "lytic"), ("p1", "normal", "normal"), ("p2", "lytic", "lytic"))
    table["unsure"] = ["smooth", "", ""]
    found = {(row["label"], row["name"]): row["value"] for row in patient_measures(table, BONE_QUALITY_TASK)}
    assert found["any", "specificity"] == 1
