"""How far readers agree: shares of equal answers, Cohen's and Fleiss' kappa, with 95 % intervals over patients.

Axes: N items (vertebrae), R readers, C classes, P patients, B resamples. An item may stand for several: `weight_N` says
for how many. Anything undefined is NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spinemet.statistics.intervals import RESAMPLES, FloatArray, percentile_interval, resample_patients

MISSING = -1
"""The class number of an answer that a reader did not give."""
SEED = 0
"""The same answers give the same intervals."""

COHEN, FLEISS, SHARE = "cohen_kappa", "fleiss_kappa", "agreement"

_Measure = Callable[[FloatArray], FloatArray]


@dataclass(frozen=True)
class Agreement:
    """One measure of agreement with its 95 % interval. items: answered by all readers compared; patients: theirs."""

    name: str
    value: float
    low: float
    high: float
    items: int
    patients: int


def cohen_kappa(counts_CC: npt.NDArray[np.number]) -> FloatArray:
    """(...) agreement of two readers beyond chance (Cohen 1960), of (..., C, C) counts of their pairs of answers.

    1 is perfect, 0 is chance. NaN without an item, and if both gave one and the same class to all.
    """
    counts = np.asarray(counts_CC, np.float64)
    total = counts.sum(axis=(-2, -1))
    equal = np.trace(counts, axis1=-2, axis2=-1)
    by_chance = (counts.sum(axis=-1) * counts.sum(axis=-2)).sum(axis=-1)
    return _kappa(_ratio(equal, total), _ratio(by_chance, total**2))


def fleiss_kappa(answers_NC: npt.NDArray[np.number]) -> float:
    """Agreement of two or more readers beyond chance (Fleiss 1971), of the number of readers per item and class.

    Every item needs the same number of readers. NaN as for `cohen_kappa`.
    """
    return float(_fleiss(_fleiss_sums(np.asarray(answers_NC, np.float64), np.ones(len(answers_NC))).sum(axis=0)))


def agreement(
    answers_RN: npt.NDArray[np.integer],
    patient_N: npt.NDArray[np.integer],
    classes: int,
    weight_N: npt.NDArray[np.floating] | None = None,
    *,
    resamples: int = RESAMPLES,
) -> list[Agreement]:
    """SHARE, the share of items to which all readers gave the same answer, and their kappa.

    The kappa of two readers is Cohen's, of more Fleiss'. Items that one of them did not answer (MISSING) are left out.
    Intervals: percentiles over resampled whole patients. If no resample can differ, the interval is unknown.

    answers_RN: class numbers of at least two readers. patient_N: number of the item's patient.
    """
    known_N = (answers_RN != MISSING).all(axis=0)
    answers, patients = answers_RN[:, known_N], patient_N[known_N]
    weight = np.ones(answers.shape[1]) if weight_N is None else np.asarray(weight_N, np.float64)[known_N]
    names, patient = np.unique(patients, return_inverse=True)
    equal_N = (answers == answers[0]).all(axis=0)
    shares_N2 = weight[:, None] * np.stack([equal_N, np.ones(len(equal_N))], axis=1)
    if len(answers) == 2:
        name, sums = COHEN, np.zeros((len(weight), classes, classes))
        sums[np.arange(len(weight)), answers[0], answers[1]] = weight
    else:
        name, sums = FLEISS, _fleiss_sums((answers[:, :, None] == np.arange(classes)).sum(axis=0), weight)
    draws_BP = resample_patients(len(names), resamples, SEED) if len(names) else np.zeros((resamples, 0), np.int64)

    def bounded(name: str, items: FloatArray, measure: _Measure) -> Agreement:
        per_patient = np.zeros((len(names), *items.shape[1:]))
        np.add.at(per_patient, patient, items)
        value = float(measure(per_patient.sum(axis=0)))
        low, high = percentile_interval(value, measure(np.tensordot(draws_BP.astype(np.float64), per_patient, axes=1)))
        if low == high:
            low = high = float("nan")
        return Agreement(name, value, low, high, len(weight), len(names))

    kappa = cohen_kappa if name == COHEN else _fleiss
    return [bounded(SHARE, shares_N2, lambda sums: _ratio(sums[..., 0], sums[..., 1])), bounded(name, sums, kappa)]


def _fleiss_sums(answers_NC: npt.NDArray[np.number], weight_N: FloatArray) -> FloatArray:
    """(N, C + 2) per item: answers per class, pairs of equal answers over all pairs, 1; each times its weight."""
    readers = answers_NC.sum(axis=1)
    pairs = _ratio((answers_NC * (answers_NC - 1)).sum(axis=1), readers * (readers - 1))
    return weight_N[:, None] * np.column_stack([_ratio(answers_NC, readers[:, None]), pairs, np.ones(len(readers))])


def _fleiss(sums: FloatArray) -> FloatArray:
    """(...) kappa of sums of rows of `_fleiss_sums`, (..., C + 2)."""
    shares = _ratio(sums[..., :-2], sums[..., -1:])
    return _kappa(_ratio(sums[..., -2], sums[..., -1]), (shares**2).sum(axis=-1))


def _kappa(found: FloatArray, by_chance: FloatArray) -> FloatArray:
    # Rounding could leave 1e-16 between a chance of 1 and 1.
    return np.where(by_chance < 1 - 1e-12, _ratio(found - by_chance, 1 - by_chance), np.nan)


def _ratio(above: npt.ArrayLike, below: npt.ArrayLike) -> FloatArray:
    """above / below, NaN where below is 0."""
    above, below = np.asarray(above, np.float64), np.asarray(below, np.float64)
    return np.divide(above, below, out=np.full(np.broadcast(above, below).shape, np.nan), where=below != 0)
