"""Methods compared on the same samples: what each reaches, and how far it is from a baseline, with 95 % intervals.

Axes: R runs (trainings that differ in the seed), N samples, C classes, P patients, B resamples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spinemet.statistics.measures import RESAMPLES, FloatArray, IntArray, percentile_interval, resample_patients
from spinemet.statistics.measures import sensitivity as sensitivity_of
from spinemet.statistics.measures import specificity as specificity_of

RUN_SEED = 1
"""Of the resampling of runs; apart from that of patients."""


@dataclass(frozen=True)
class Compared:
    """One measure of one method: its value, and the difference to the baseline (NaN for the baseline itself).

    name: sensitivity, specificity (with a label), macro_sensitivity or macro_specificity (label "").
    """

    name: str
    label: str
    value: float
    low: float
    high: float
    difference: float
    difference_low: float
    difference_high: float


def patient_confusions(
    true_N: IntArray, called_N: IntArray, patient_N: IntArray, patients: int, classes: int
) -> npt.NDArray[np.int64]:
    """(P, C, C) counts of each patient, rows the truth; `patient_N` counts from 0."""
    counts_PCC = np.zeros((patients, classes, classes), np.int64)
    np.add.at(counts_PCC, (patient_N, true_N, called_N), 1)
    return counts_PCC


def compare(
    runs_RPCC: npt.NDArray[np.int64],
    baseline_RPCC: npt.NDArray[np.int64] | None,
    classes: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Compared]:
    """The mean over the runs of every measure, and its paired difference to the baseline's mean over its runs.

    Both methods are judged on the same resampled patients, which is what pairs them; runs are resampled too, those of
    each method apart, since another seed would have given other runs (with one run, that part is not in the interval).
    Where a class is missing from some resamples these are left out.
    """
    draws_BP = resample_patients(runs_RPCC.shape[1], resamples, seed)
    own = _measures(runs_RPCC, draws_BP, np.random.default_rng([seed, RUN_SEED, 0]), classes)
    other = (
        None
        if baseline_RPCC is None
        else _measures(baseline_RPCC, draws_BP, np.random.default_rng([seed, RUN_SEED, 1]), classes)
    )
    found = []
    for (name, label), (value, values_B) in own.items():
        difference, spread = math.nan, (math.nan, math.nan)
        if other is not None:
            base, base_B = other[name, label]
            difference, spread = value - base, _interval(value - base, values_B - base_B)
        found.append(Compared(name, label, value, *_interval(value, values_B), difference, *spread))
    return found


def _interval(value: float, values_B: FloatArray) -> tuple[float, float]:
    return (math.nan, math.nan) if math.isnan(value) else percentile_interval(values_B)


def _measures(
    runs_RPCC: npt.NDArray[np.int64], draws_BP: npt.NDArray[np.int64], rng: np.random.Generator, classes: Sequence[str]
) -> dict[tuple[str, str], tuple[float, FloatArray]]:
    """(name, label) -> the mean over the runs, and the same of every resample, (B,)."""
    runs, resamples = len(runs_RPCC), len(draws_BP)
    share_BR = rng.multinomial(runs, np.full(runs, 1 / runs), size=resamples) / runs
    found: dict[tuple[str, str], tuple[float, FloatArray]] = {}
    pieces = [
        (dict(_named(confusion.sum(axis=0), classes)), dict(_named(np.tensordot(draws_BP, confusion, axes=1), classes)))
        for confusion in runs_RPCC
    ]
    for key in pieces[0][0]:
        point = float(np.mean([point[key] for point, _ in pieces]))
        drawn_RB = np.stack([drawn[key] for _, drawn in pieces])
        found[key] = (point, np.asarray((share_BR.T * drawn_RB).sum(axis=0)))
    return found


def _named(
    confusion_CC: npt.NDArray[np.number], classes: Sequence[str]
) -> Iterator[tuple[tuple[str, str], FloatArray]]:
    sensitivity, specificity = sensitivity_of(confusion_CC), specificity_of(confusion_CC)
    for n, label in enumerate(classes):
        yield ("sensitivity", label), sensitivity[..., n]
        yield ("specificity", label), specificity[..., n]
    yield ("macro_sensitivity", ""), np.asarray(sensitivity.mean(axis=-1))
    yield ("macro_specificity", ""), np.asarray(specificity.mean(axis=-1))
