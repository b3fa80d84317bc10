"""How good predictions are, with intervals that know that vertebrae of one patient resemble each other.

Axes: N samples, C classes, P patients, B resamples. What is not defined (no sample of a class) is NaN, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.integer]
BoolArray = npt.NDArray[np.bool_]

Z_95 = 1.959963984540054
RESAMPLES = 2000
DEFINED_SHARE = 0.5
"""Share of the resamples in which a measure must be defined for its interval to be given."""

CALIBRATION_BINS = 10
"""Of confidence, for the expected calibration error."""

AUC_BLOCK = 4_000_000
"""Sample weights that are worked on at a time: 32 MB, where 2,000 resamples of 100,000 slices would be 1.6 GB."""


@dataclass(frozen=True)
class Measure:
    """One figure: its value and 95 % interval (NaN where not defined), and what it was counted on.

    name: sensitivity, specificity, auc, macro_sensitivity or ece; label: the class, "" for a figure over all classes.
    n: samples in the figure's denominator (for auc, macro_sensitivity and ece: all); patients: whom they came from.
    """

    name: str
    label: str
    value: float
    low: float
    high: float
    n: int
    patients: int


# ---- points ---------------------------------------------------------------------------------------------------


def confusion_matrix(true_N: IntArray, predicted_N: IntArray, classes: int) -> npt.NDArray[np.int64]:
    """(C, C) counts, rows the truth and columns the prediction."""
    flat = np.bincount(np.asarray(true_N) * classes + np.asarray(predicted_N), minlength=classes * classes)
    return flat.reshape(classes, classes)


def sensitivity(confusion_CC: npt.NDArray[np.number]) -> FloatArray:
    """(..., C) share of each class's samples that were called so, of (..., C, C) confusion matrices."""
    confusion = np.asarray(confusion_CC, np.float64)
    return _ratio(np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(axis=-1))


def specificity(confusion_CC: npt.NDArray[np.number]) -> FloatArray:
    """(..., C) share of all other samples that were not called so (one class against the rest)."""
    confusion = np.asarray(confusion_CC, np.float64)
    total = confusion.sum(axis=(-2, -1))[..., None]
    others = total - confusion.sum(axis=-1)
    wrongly = confusion.sum(axis=-2) - np.diagonal(confusion, axis1=-2, axis2=-1)
    return _ratio(others - wrongly, others)


def macro_sensitivity(confusion_CC: npt.NDArray[np.number]) -> FloatArray:
    """(...) mean of the classes' sensitivities; NaN where a class has no sample, since its part is not known."""
    return np.asarray(sensitivity(confusion_CC).mean(axis=-1))


def auc(score_N: npt.ArrayLike, positive_N: BoolArray, weight_BN: npt.NDArray[np.number] | None = None) -> FloatArray:
    """(B,) area under the ROC curve, ties counted half, for each row of sample weights; (1,) without weights.

    The weighted Mann-Whitney statistic; NaN where a class has no weight. scikit-learn has no form for many weights.
    """
    score = np.asarray(score_N, np.float64)
    weight = np.ones((1, len(score)), np.int64) if weight_BN is None else weight_BN
    _, group = np.unique(score, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    rows = max(1, AUC_BLOCK // max(1, len(score)))
    areas = []
    for first in range(0, len(weight), rows):
        block = weight[first : first + rows, order].astype(np.float64)
        up = np.add.reduceat(block * positive_N[order], starts, axis=1)
        down = np.add.reduceat(block * ~positive_N[order], starts, axis=1)
        below = np.cumsum(down, axis=1) - down / 2
        areas.append(_ratio((up * below).sum(axis=1), up.sum(axis=1) * down.sum(axis=1)))
    return np.concatenate(areas)


def threshold_for(score_N: npt.ArrayLike, positive_N: BoolArray, wanted_specificity: float) -> float:
    """The least score from which a sample is called positive, such that specificity is at least what is wanted.

    Infinite where no finite one is enough; NaN without negative samples. To be chosen on other samples than those on
    which the resulting sensitivity is measured.
    """
    score = np.asarray(score_N, np.float64)
    negative = np.sort(score[~np.asarray(positive_N)])
    if not len(negative):
        return math.nan
    may_be_called = math.floor((1 - wanted_specificity) * len(negative) + 1e-9)
    highest_spared = negative[len(negative) - may_be_called - 1] if may_be_called < len(negative) else -math.inf
    above = score[score > highest_spared]
    return float(above.min()) if len(above) else math.inf


def reliability(
    true_N: IntArray, prob_NC: npt.NDArray[np.floating], bins: int = CALIBRATION_BINS
) -> tuple[FloatArray, FloatArray, npt.NDArray[np.int64]]:
    """Per bin of confidence (the called class's probability): mean confidence, share called right, samples.

    Bins are of equal width from 0 to 1; a bin without samples has NaN for the first two.
    """
    prob = np.asarray(prob_NC, np.float64)
    confidence_N, right_N = prob.max(axis=1), prob.argmax(axis=1) == np.asarray(true_N)
    bin_N = np.minimum((confidence_N * bins).astype(np.int64), bins - 1)
    count = np.bincount(bin_N, minlength=bins)
    said, was = np.bincount(bin_N, confidence_N, bins), np.bincount(bin_N, right_N, bins)
    return _ratio(said, count), _ratio(was, count), count


def calibration_error(true_N: IntArray, prob_NC: npt.NDArray[np.floating], bins: int = CALIBRATION_BINS) -> float:
    """Expected calibration error (Naeini 2015): how far confidence is from the share called right, over all samples."""
    said, was, count = reliability(true_N, prob_NC, bins)
    full = count > 0
    return float((np.abs(said - was)[full] * count[full]).sum() / max(count.sum(), 1)) if full.any() else math.nan


# ---- intervals ------------------------------------------------------------------------------------------------


def wilson_interval(successes: float, n: float) -> tuple[float, float]:
    """95 % interval of a proportion of independent trials (Wilson 1927); (NaN, NaN) for none."""
    if n <= 0:
        return math.nan, math.nan
    share, square = successes / n, Z_95 * Z_95
    center = (share + square / (2 * n)) / (1 + square / n)
    half = Z_95 * math.sqrt(share * (1 - share) / n + square / (4 * n * n)) / (1 + square / n)
    return max(0.0, center - half), min(1.0, center + half)


def resample_patients(patients: int, resamples: int, seed: int) -> npt.NDArray[np.int64]:
    """(B, P) how often each patient is drawn when `patients` are drawn with replacement; the same for a seed."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(patients, np.full(patients, 1 / patients), size=resamples)


def percentile_interval(values_B: FloatArray) -> tuple[float, float]:
    """The 2.5 and 97.5 percentiles of the defined values; (NaN, NaN) where too few are defined."""
    defined = values_B[~np.isnan(values_B)]
    if len(defined) < max(1.0, DEFINED_SHARE * len(values_B)):
        return math.nan, math.nan
    low, high = np.percentile(defined, [2.5, 97.5])
    return float(low), float(high)


def measures(
    true_N: IntArray,
    prob_NC: npt.NDArray[np.floating],
    patients_N: Sequence[str],
    classes: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Measure]:
    """Sensitivity, specificity and AUC of each class (one against the rest), macro sensitivity and calibration error.

    Intervals: patients are resampled whole, since their vertebrae are not independent (percentile bootstrap). Where
    no resample can differ (all right, or all wrong) it would claim certainty: there the Wilson interval stands, with
    one trial per patient, as if a patient's vertebrae told no more than one.

    true_N: class numbers, N at least 1. prob_NC: probabilities; the prediction is the most probable class.
    """
    true = np.asarray(true_N)
    predicted = np.asarray(prob_NC).argmax(axis=1)
    names, patient = np.unique(np.asarray(patients_N, dtype=str), return_inverse=True)
    count, width = len(names), len(classes)
    per_patient = np.zeros((count, width, width), np.int64)
    np.add.at(per_patient, (patient, true, predicted), 1)
    draws_BP = resample_patients(count, resamples, seed)
    point, drawn = per_patient.sum(axis=0), np.tensordot(draws_BP, per_patient, axes=1)

    def measure(name: str, label: str, value: float, values_B: FloatArray, within_N: BoolArray) -> Measure:
        seen = len(np.unique(patient[within_N]))
        low, high = percentile_interval(values_B) if not math.isnan(value) else (math.nan, math.nan)
        if value in (0.0, 1.0) and low == high:
            low, high = wilson_interval(value * seen, seen)
        return Measure(name, label, value, low, high, int(within_N.sum()), seen)

    everyone = np.ones(len(true), np.bool_)
    sens, sens_B = sensitivity(point), sensitivity(drawn)
    spec, spec_B = specificity(point), specificity(drawn)
    found = []
    for n, label in enumerate(classes):
        positive, score = true == n, np.asarray(prob_NC)[:, n]
        found.append(measure("sensitivity", label, float(sens[n]), sens_B[:, n], positive))
        found.append(measure("specificity", label, float(spec[n]), spec_B[:, n], ~positive))
        area_B = auc(score, positive, draws_BP[:, patient])
        found.append(measure("auc", label, float(auc(score, positive)[0]), area_B, everyone))
    found.append(measure("macro_sensitivity", "", float(macro_sensitivity(point)), macro_sensitivity(drawn), everyone))
    # No interval: resampling makes a calibration error greater, so that its interval would not hold the value.
    found.append(Measure("ece", "", calibration_error(true, prob_NC), math.nan, math.nan, len(true), count))
    return found


def _ratio(above: npt.ArrayLike, below: npt.ArrayLike) -> FloatArray:
    """above / below, NaN where below is 0."""
    above, below = np.asarray(above, np.float64), np.asarray(below, np.float64)
    return np.divide(above, below, out=np.full(np.broadcast(above, below).shape, np.nan), where=below != 0)
