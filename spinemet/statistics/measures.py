"""How good predictions are: measures, and their intervals over resampled patients.

Axes: N samples, C classes, P patients, B resamples. A measure without a sample to count is NaN, never 0.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spinemet.statistics.intervals import (
    RESAMPLES,
    FloatArray,
    percentile_interval,
    resample_patients,
    wilson_interval,
)

IntArray = npt.NDArray[np.integer]
BoolArray = npt.NDArray[np.bool_]
Confusion = npt.NDArray[np.number]
"""(..., C, C) counts of confusion matrices: rows the truth, columns the call."""

CALIBRATION_BINS = 10
"""Bins of confidence for the expected calibration error."""

AUC_BLOCK = 4_000_000
"""Sample weights per step: 32 MB, while 2,000 resamples of 100,000 slices at once would take 1.6 GB."""


# ---- measures of confusion matrices ---------------------------------------------------------------------------


def confusion_matrix(true_N: IntArray, called_N: IntArray, classes: int) -> npt.NDArray[np.int64]:
    """(C, C) counts, rows the truth and columns the call."""
    flat = np.bincount(np.asarray(true_N) * classes + np.asarray(called_N), minlength=classes * classes)
    return flat.reshape(classes, classes)


def patient_confusions(
    true_N: IntArray, called_N: IntArray, patient_N: IntArray, patients: int, classes: int
) -> npt.NDArray[np.int64]:
    """(P, C, C) counts of each patient, rows the truth; `patient_N` counts from 0."""
    counts_PCC = np.zeros((patients, classes, classes), np.int64)
    np.add.at(counts_PCC, (patient_N, true_N, called_N), 1)
    return counts_PCC


def sensitivity(confusion_CC: Confusion) -> FloatArray:
    """(..., C) share of each class's samples that were called this class."""
    confusion = np.asarray(confusion_CC, np.float64)
    return _ratio(np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(axis=-1))


def specificity(confusion_CC: Confusion) -> FloatArray:
    """(..., C) share of the samples of other classes that were not called this class."""
    confusion = np.asarray(confusion_CC, np.float64)
    total = confusion.sum(axis=(-2, -1))[..., None]
    others = total - confusion.sum(axis=-1)
    wrongly = confusion.sum(axis=-2) - np.diagonal(confusion, axis1=-2, axis2=-1)
    return _ratio(others - wrongly, others)


def macro_sensitivity(confusion_CC: Confusion) -> FloatArray:
    """(...) mean of the classes' sensitivities; NaN if a class has no sample."""
    return np.asarray(sensitivity(confusion_CC).mean(axis=-1))


def macro_specificity(confusion_CC: Confusion) -> FloatArray:
    """(...) mean of the classes' specificities; NaN if one of them is undefined."""
    return np.asarray(specificity(confusion_CC).mean(axis=-1))


def quadratic_weighted_kappa(confusion_CC: Confusion) -> FloatArray:
    """(...) agreement beyond chance for classes in order (Cohen 1968): 1 is perfect, 0 is chance.

    An error costs the square of its distance in classes. NaN if truth and calls are all of one class.
    """
    confusion = np.asarray(confusion_CC, np.float64)
    place_C = np.arange(confusion.shape[-1])
    cost_CC = (place_C[:, None] - place_C) ** 2
    by_chance = confusion.sum(axis=-1)[..., :, None] * confusion.sum(axis=-2)[..., None, :]
    total = confusion.sum(axis=(-2, -1))
    return 1 - _ratio((cost_CC * confusion).sum(axis=(-2, -1)) * total, (cost_CC * by_chance).sum(axis=(-2, -1)))


OVERALL: dict[str, Callable[[Confusion], FloatArray]] = {
    "macro_sensitivity": macro_sensitivity,
    "macro_specificity": macro_specificity,
    "quadratic_weighted_kappa": quadratic_weighted_kappa,
}
"""Measures over all classes, by name: (..., C, C) confusion matrices to (...) values. A task may name any of them in
`measures`; evaluation, ablation and model card then hold it."""


# ---- measures of probabilities --------------------------------------------------------------------------------


def auc(score_N: npt.ArrayLike, positive_N: BoolArray, weight_BN: npt.NDArray[np.number] | None = None) -> FloatArray:
    """(B,) area under the ROC curve, ties counted half, for each row of sample weights; (1,) without weights.

    The weighted Mann-Whitney statistic; NaN if a class has no weight. scikit-learn takes one set of weights at a time.
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


def threshold_for(score_N: npt.ArrayLike, positive_N: BoolArray, least_specificity: float) -> float:
    """The lowest score to call a sample positive from, such that specificity is at least `least_specificity`.

    Infinite if no score is enough; NaN without negative samples. Choose it on other samples than those that measure
    the resulting sensitivity.
    """
    score = np.asarray(score_N, np.float64)
    negative = np.sort(score[~np.asarray(positive_N)])
    if not len(negative):
        return math.nan
    allowed = math.floor((1 - least_specificity) * len(negative) + 1e-9)
    highest_spared = negative[len(negative) - allowed - 1] if allowed < len(negative) else -math.inf
    above = score[score > highest_spared]
    return float(above.min()) if len(above) else math.inf


def reliability(
    true_N: IntArray, prob_NC: npt.NDArray[np.floating]
) -> tuple[FloatArray, FloatArray, npt.NDArray[np.int64]]:
    """Per bin of confidence (the called class's probability): mean confidence, share called right, samples.

    The CALIBRATION_BINS are of equal width from 0 to 1; a bin without samples has NaN for the first two.
    """
    prob = np.asarray(prob_NC, np.float64)
    confidence_N, right_N = prob.max(axis=1), prob.argmax(axis=1) == np.asarray(true_N)
    bin_N = np.minimum((confidence_N * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    count = np.bincount(bin_N, minlength=CALIBRATION_BINS)
    confidence, right = (np.bincount(bin_N, one, CALIBRATION_BINS) for one in (confidence_N, right_N))
    return _ratio(confidence, count), _ratio(right, count), count


def calibration_error(true_N: IntArray, prob_NC: npt.NDArray[np.floating]) -> float:
    """Expected calibration error (Naeini 2015): the mean distance of confidence from the share called right."""
    confidence, right, count = reliability(true_N, prob_NC)
    full = count > 0
    return float((np.abs(confidence - right)[full] * count[full]).sum() / count.sum()) if full.any() else math.nan


# ---- all measures of one task, with intervals -----------------------------------------------------------------


@dataclass(frozen=True)
class Measure:
    """One measured value with its 95 % interval (NaN if undefined), and the samples behind it.

    name: sensitivity, specificity, auc, ece or a name of OVERALL. label: the class, "" for a measure over all classes.
    n: samples in the denominator (for auc, ece and OVERALL: all of them). patients: the patients they come from.
    """

    name: str
    label: str
    value: float
    low: float
    high: float
    n: int
    patients: int


def measure(
    true_N: IntArray,
    prob_NC: npt.NDArray[np.floating],
    patients_N: Sequence[str],
    classes: Sequence[str],
    *,
    further: Sequence[str] = (),
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Measure]:
    """Sensitivity, specificity and AUC of each class (one against the rest), macro sensitivity and calibration error.

    Intervals: percentiles over resampled whole patients, since the vertebrae of one patient are not independent. If no
    resample can differ (all right, or all wrong), percentiles would claim certainty: then the Wilson interval counts
    each patient as one trial.

    true_N: class numbers, N at least 1. prob_NC: probabilities; the call is the most probable class. further: names
    from OVERALL.
    """
    true, prob = np.asarray(true_N), np.asarray(prob_NC)
    names, patient = np.unique(np.asarray(patients_N, dtype=str), return_inverse=True)
    counts_PCC = patient_confusions(true, prob.argmax(axis=1), patient, len(names), len(classes))
    draws_BP = resample_patients(len(names), resamples, seed)
    total, drawn = counts_PCC.sum(axis=0), np.tensordot(draws_BP, counts_PCC, axes=1)

    def bounded(name: str, label: str, value: float, values_B: FloatArray, counted_N: BoolArray) -> Measure:
        seen = len(np.unique(patient[counted_N]))
        low, high = percentile_interval(value, values_B)
        if value in (0.0, 1.0) and low == high:
            low, high = wilson_interval(value * seen, seen)
        return Measure(name, label, value, low, high, int(counted_N.sum()), seen)

    everyone = np.ones(len(true), np.bool_)
    sens, sens_B = sensitivity(total), sensitivity(drawn)
    spec, spec_B = specificity(total), specificity(drawn)
    found = []
    for n, label in enumerate(classes):
        positive = true == n
        found.append(bounded("sensitivity", label, float(sens[n]), sens_B[:, n], positive))
        found.append(bounded("specificity", label, float(spec[n]), spec_B[:, n], ~positive))
        area, area_B = auc(prob[:, n], positive), auc(prob[:, n], positive, draws_BP[:, patient])
        found.append(bounded("auc", label, float(area[0]), area_B, everyone))
    for name in dict.fromkeys(("macro_sensitivity", *further)):
        found.append(bounded(name, "", float(OVERALL[name](total)), OVERALL[name](drawn), everyone))
    # No interval: resampling increases a calibration error, so its interval would not hold the value.
    found.append(Measure("ece", "", calibration_error(true, prob), math.nan, math.nan, len(true), len(names)))
    return found


# ---- operating points -------------------------------------------------------------------------------------------

SPECIFICITIES = (0.9, 0.95)


def operating_points(
    label: str,
    chosen_on: tuple[FloatArray, BoolArray],
    measured_on: tuple[FloatArray, BoolArray],
    patients_N: Sequence[str],
) -> Iterator[dict[str, str | float]]:
    """For each of SPECIFICITIES the threshold of a class, chosen on some patients, and its shares on others.

    Each row holds label, wanted_specificity, threshold (the lowest probability that is called; infinite: never),
    chosen_on (samples that chose the threshold), and sensitivity and specificity with `_low` and `_high`, the ends of
    their 95 % intervals. No row if every sample of `chosen_on` has the class.

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
        row: dict[str, str | float] = {
            "label": label,
            "wanted_specificity": least,
            "threshold": threshold,
            "chosen_on": len(chosen_on[0]),
        }
        for one in measure(positive_N.astype(np.int64), calls_N2, patients_N, ("no", "yes")):
            if one.label == "yes" and one.name in ("sensitivity", "specificity"):
                row |= {one.name: one.value, f"{one.name}_low": one.low, f"{one.name}_high": one.high}
        yield row


def _ratio(above: npt.ArrayLike, below: npt.ArrayLike) -> FloatArray:
    """above / below, NaN where below is 0."""
    above, below = np.asarray(above, np.float64), np.asarray(below, np.float64)
    return np.divide(above, below, out=np.full(np.broadcast(above, below).shape, np.nan), where=below != 0)
