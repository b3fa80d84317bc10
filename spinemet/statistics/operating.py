"""Operating points: the threshold of a class for a given specificity, and the sensitivity that it gives.

The threshold is chosen on other patients than those that measure it. N samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from spinemet.statistics.intervals import FloatArray
from spinemet.statistics.measures import BoolArray, measure, threshold_for

SPECIFICITIES = (0.9, 0.95)


@dataclass(frozen=True)
class OperatingPoint:
    """A class that is called from a probability of `threshold` (infinite: never), and its shares with 95 % intervals.

    chosen_on: samples that chose the threshold.
    """

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
    measured_on: tuple[FloatArray, BoolArray],
    patients_N: Sequence[str],
    *,
    seed: int = 0,
) -> Iterator[OperatingPoint]:
    """One point for each of SPECIFICITIES; none if every sample of `chosen_on` has the class.

    chosen_on, measured_on: the samples' probabilities of the class, and which of them have it. patients_N: patients
    of `measured_on`.
    """
    score_N, positive_N = measured_on
    for least in SPECIFICITIES:
        threshold = threshold_for(*chosen_on, least)
        if np.isnan(threshold):
            return
        called_N = (score_N >= threshold).astype(np.float64)
        calls_N2 = np.stack([1 - called_N, called_N], axis=1)
        measures = measure(positive_N.astype(np.int64), calls_N2, patients_N, ("no", "yes"), seed=seed)
        found = {one.name: (one.value, one.low, one.high) for one in measures if one.label == "yes"}
        size = len(chosen_on[0])
        yield OperatingPoint(label, least, threshold, size, *found["sensitivity"], *found["specificity"])
