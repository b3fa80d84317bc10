"""How good a model is at saying which patients have a finding."""

import math

import pandas as pd

from spinemet.cohort.evaluated import ANY, Evaluated
from spinemet.model.tasks import Task
from spinemet.statistics.intervals import beta_interval

PATIENT = "patient"
"""The unit of these measures."""


def patient_measures(vertebrae: pd.DataFrame, task: Task) -> list[dict[str, object]]:
    """Sensitivity and specificity of each finding per patient: rows of `Evaluation.measures`.

    A patient has a finding that at least one of the labelled vertebrae has, and is called so with at least one call;
    unsure calls are left out, as in answers about a cohort. Findings (in the column `label`): `any` and each class but
    the negative one, of a no/yes task `yes`. vertebrae: a table of `predictions`. Intervals are exact.
    """
    if not vertebrae[f"{task.name}_true"].notna().any():
        return []
    findings = task.classes[1:] if len(task.classes) == 2 else (ANY, *task.classes[1:])
    rows: list[dict[str, object]] = []
    for finding in findings:
        errors = Evaluated(vertebrae, None, "").errors(task.name, task.classes, PATIENT, finding)
        for name, side in (("sensitivity", 1), ("specificity", 0)):
            value, count = float(errors.shares_CC[side, side]), int(errors.patients_C[side])
            low, high = beta_interval(value * count, count) if count else (math.nan, math.nan)
            rows.append(
                {"task": task.name, "unit": PATIENT, "name": name, "label": finding, "value": value}
                | {"low": low, "high": high, "n": count, "patients": count}
            )
    return rows
