"""Operating points: where to put the threshold of a class for a wanted specificity, and what it then gives.

The threshold is chosen on other patients than those it is judged on. N samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spinemet.statistics.measures import BoolArray, FloatArray, measures, threshold_for

WANTED = (0.9, 0.95)
"""Specificities."""


@dataclass(frozen=True)
class OperatingPoint:
    """A class called from `threshold` of its probability on (infinite: never), and the shares with 95 % intervals."""

    label: str
    wanted_specificity: float
    threshold: float
    chosen_on: int
    sensitivity: float
    sensitivity_low: float
    sensitivity_high: float
    specificity: float
    specificity_low: float
    specificity_high: float


def operating_points(
    label: str,
    chosen_on: tuple[FloatArray, BoolArray],
    judged_on: tuple[FloatArray, BoolArray],
    patients_N: Sequence[str],
    *,
    seed: int = 0,
) -> Iterator[OperatingPoint]:
    """One point per specificity in WANTED.

    chosen_on, judged_on: scores and which samples have the class; patients_N: of the latter. Gives nothing where there
    is no sample without the class to choose on.
    """
    score_N, positive_N = judged_on
    for wanted in WANTED:
        threshold = threshold_for(*chosen_on, wanted)
        if np.isnan(threshold):
            return
        called_N: npt.NDArray[np.float64] = (score_N >= threshold).astype(np.float64)
        both = np.stack([1 - called_N, called_N], axis=1)
        found = {
            one.name: one
            for one in measures(positive_N.astype(np.int64), both, patients_N, ("no", "yes"), seed=seed)
            if one.label == "yes"
        }
        sensitivity, specificity = found["sensitivity"], found["specificity"]
        yield OperatingPoint(
            label,
            wanted,
            threshold,
            len(chosen_on[0]),
            *(sensitivity.value, sensitivity.low, sensitivity.high),
            *(specificity.value, specificity.low, specificity.high),
        )
