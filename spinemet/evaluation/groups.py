"""How good a model is where it is sure, and on each kind of scan: scanner, kernel, thickness, density, contrast.

One hospital's mean can hide a scanner on which the model fails. Groups of few are marked: their values mean nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from statistics import median

import numpy as np
import pandas as pd

from spinemet.dicom.values import names_contrast
from spinemet.evaluation.predictions import CERTAINTY, labelled
from spinemet.model.tasks import Task
from spinemet.reading import Screened
from spinemet.statistics.measures import Measure, measure
from spinemet.types import Completeness

GROUPS = ("scanner", "kernel", "slice_thickness", "bone_density", "contrast")
"""Columns of a vertebra table by which it is divided; `scan_groups` gives their values."""
FEW_VERTEBRAE = 10
FEW_PATIENTS = 5
"""A measure on fewer vertebrae or patients is not shown."""
THICKNESS_MM = (1.0, 2.0, 3.0, 5.0)
DENSITY_HU = (50.0, 110.0, 160.0, 220.0)
"""Upper ends of the bands. In L1, osteoporosis is likely below 110 HU and unlikely above 160 HU (Pickhardt, Annals of
Internal Medicine 158:588, 2013)."""
UNKNOWN = "unknown"
_OF_NEGATIVE = {"sensitivity": "specificity", "specificity": "sensitivity", "auc": "auc"}
"""Measures of the negative class -> the same of all positive classes together."""


def scan_groups(reading: Screened) -> dict[str, str]:
    """GROUPS -> the group of a study; `unknown` if its headers or its bones do not say.

    The bone density is the median trabecular HU of the study's whole vertebrae: that of a diseased vertebra alone would
    show its lesion, not the patient's bone.
    """
    chosen = reading.chosen
    whole = [one for one in reading.spine.vertebrae if one.completeness is Completeness.WHOLE]
    hu = [value for one in whole if (value := one.measures.get("trabecular_hu")) is not None]
    thickness = chosen.instances[0].SliceThickness if chosen.instances else None
    return {
        "scanner": " ".join(f"{chosen.Manufacturer} {chosen.ManufacturerModelName}".split()) or UNKNOWN,
        "kernel": " ".join(chosen.ConvolutionKernel.split()) or UNKNOWN,
        "slice_thickness": _band(thickness, THICKNESS_MM, "mm"),
        "bone_density": _band(median(hu) if hu else None, DENSITY_HU, "HU"),
        "contrast": {True: "yes", False: "no", None: UNKNOWN}[names_contrast(chosen.ContrastBolusAgent)],
    }


def _band(value: float | None, ends: Sequence[float], unit: str) -> str:
    if value is None:
        return UNKNOWN
    low = max((end for end in ends if end < value), default=None)
    high = min((end for end in ends if end >= value), default=None)
    if low is None or high is None:
        return f"up to {high:g} {unit}" if low is None else f"over {low:g} {unit}"
    return f"{low:g} to {high:g} {unit}"


def group_measures(vertebrae: pd.DataFrame, tasks: Sequence[Task]) -> pd.DataFrame:
    """One row per task, group, its `value` and measure, all positive classes taken together.

    Measures: sensitivity, specificity, auc, ece, and the shares of positive vertebrae that the probabilities say
    (`expected_share`) and that are labelled (`observed_share`). The other columns are those of
    `statistics.measures.Measure`, and `few`: True if too few vertebrae or patients stand behind the value (for auc and
    ece, of one of the two kinds).

    vertebrae: a table of `predictions`. Groups: those of CERTAINTY and GROUPS that are columns of it.
    """
    rows = []
    for task in tasks:
        known = vertebrae[vertebrae[f"{task.name}_true"].notna()]
        for group in (name for name in (CERTAINTY, *GROUPS) if name in known.columns):
            for value in sorted(known[group].unique(), key=_place):
                part = known[known[group] == value]
                where = {"task": task.name, "group": group, "value_of_group": value}
                rows += [{**where, **one} for one in _rows(part, task)]
    return pd.DataFrame(rows)


def _place(value: str) -> tuple[bool, float, str]:
    """Bands in order, then words by the alphabet, `unknown` last."""
    first = next((word for word in value.split() if word.replace(".", "").isdigit()), "")
    place = float(first) - value.startswith("up to") if first and value.endswith((" mm", " HU")) else 0.0
    return value == UNKNOWN, place, value


def _rows(part: pd.DataFrame, task: Task) -> Iterator[dict[str, object]]:
    true_N, prob_NC, patients_N = labelled(part, task)
    found = {
        name: replace(one, name=name, label="")
        for one in measure(true_N, prob_NC, patients_N.tolist(), task.classes)
        if (name := _OF_NEGATIVE.get(one.name) if one.label == task.classes[0] else one.name if not one.label else None)
    }
    few = {name: _is_few(found[name]) for name in ("sensitivity", "specificity")}
    for name in ("sensitivity", "specificity", "auc", "ece"):
        yield _row(found[name], few.get(name, any(few.values())))
    everyone, count = found["ece"], len(true_N)
    for name, share in (("expected_share", 1 - prob_NC[:, 0].mean()), ("observed_share", np.mean(true_N > 0))):
        yield _row(replace(everyone, name=name, value=float(share), n=count), _is_few(everyone))


def _row(one: Measure, few: bool) -> dict[str, object]:
    values = asdict(one)
    return {"measure": values.pop("name"), **{k: v for k, v in values.items() if k != "label"}, "few": few}


def _is_few(one: Measure) -> bool:
    return one.n < FEW_VERTEBRAE or one.patients < FEW_PATIENTS
