"""Methods compared on the same patients: their measures and their differences to a baseline, with 95 % intervals.

Axes: R runs (trainings that differ in the seed), N samples, C classes, P patients, B resamples.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spinemet.statistics.intervals import RESAMPLES, FloatArray, percentile_interval, resample_patients
from spinemet.statistics.measures import OVERALL, Confusion, sensitivity, specificity

SEED = 0
"""The same predictions give the same intervals."""
RUN_SEED = 1
"""Keeps the draws of runs apart from the draws of patients."""

Named = dict[tuple[str, str], FloatArray]
"""(measure, label) -> values."""


@dataclass(frozen=True)
class Compared:
    """One measure of one method, and its difference to the baseline (NaN for the baseline itself).

    name: sensitivity or specificity (with a label), or a measure over all classes (label "").
    """

    name: str
    label: str
    value: float
    low: float
    high: float
    difference: float
    difference_low: float
    difference_high: float


def compare(
    runs_RPCC: npt.NDArray[np.int64],
    baseline_RPCC: npt.NDArray[np.int64] | None,
    classes: Sequence[str],
    *,
    further: Sequence[str] = (),
) -> list[Compared]:
    """The mean of each measure over the runs, and its paired difference to the baseline's mean over its runs.

    The comparison is paired: both methods are measured on the same resampled patients. Runs are resampled too,
    separately for each method, since another seed would have given another model; with one run the interval lacks that
    part. Resamples without a class are left out of its measures.

    further: names from measures.OVERALL, next to macro sensitivity and macro specificity.
    """
    draws_BP = resample_patients(runs_RPCC.shape[1], RESAMPLES, SEED)
    names = ("macro_sensitivity", "macro_specificity", *further)

    def mean(counts_RPCC: npt.NDArray[np.int64], stream: int) -> tuple[Named, Named]:
        rng = np.random.default_rng([SEED, RUN_SEED, stream])
        return _mean_over_runs(counts_RPCC, draws_BP, rng, classes, names)

    values, drawn = mean(runs_RPCC, 0)
    base, base_drawn = ({}, {}) if baseline_RPCC is None else mean(baseline_RPCC, 1)
    found = []
    for key, one in values.items():
        value, difference, bounds = float(one), math.nan, (math.nan, math.nan)
        if key in base:
            difference = value - float(base[key])
            bounds = percentile_interval(difference, drawn[key] - base_drawn[key])
        found.append(Compared(*key, value, *percentile_interval(value, drawn[key]), difference, *bounds))
    return found


def _mean_over_runs(
    counts_RPCC: npt.NDArray[np.int64],
    draws_BP: npt.NDArray[np.int64],
    rng: np.random.Generator,
    classes: Sequence[str],
    names: Sequence[str],
) -> tuple[Named, Named]:
    """The mean of every measure over the runs, () each; the same over resampled runs and patients, (B,) each."""
    runs = len(counts_RPCC)
    share_RB = rng.multinomial(runs, np.full(runs, 1 / runs), size=len(draws_BP)).T / runs
    points = [_all_measures(counts.sum(axis=0), classes, names) for counts in counts_RPCC]
    drawn = [_all_measures(np.tensordot(draws_BP, counts, axes=1), classes, names) for counts in counts_RPCC]
    return (
        {key: np.asarray(np.mean([one[key] for one in points])) for key in points[0]},
        {key: np.asarray((share_RB * np.stack([one[key] for one in drawn])).sum(axis=0)) for key in points[0]},
    )


def _all_measures(confusion_CC: Confusion, classes: Sequence[str], names: Sequence[str]) -> Named:
    sens, spec = sensitivity(confusion_CC), specificity(confusion_CC)
    found: Named = {}
    for n, label in enumerate(classes):
        found |= {("sensitivity", label): sens[..., n], ("specificity", label): spec[..., n]}
    return found | {(name, ""): OVERALL[name](confusion_CC) for name in names}
