"""Methods compared on the same patients: their measures and their differences to a baseline, with 95 % intervals.

Axes: R runs (trainings that differ in the seed), N samples, C classes, P patients, B resamples.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spinemet.statistics.intervals import RESAMPLES, FloatArray, percentile_interval, resample_patients
from spinemet.statistics.measures import OVERALL, Confusion, auc, sensitivity, specificity

SEED = 0
"""The same predictions give the same intervals."""
RUN_SEED = 1
"""Keeps the draws of runs apart from the draws of patients."""

LESION_AUC = "lesion_auc"
MACRO_AT_THRESHOLD = "macro_lesion_sensitivity_at_threshold"
SPECIFICITY_AT_THRESHOLD = "specificity_at_threshold"

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


@dataclass(frozen=True, eq=False)
class LesionCalls:
    """One run's calls of lesions on N samples of P patients.

    score_N: the higher, the more a lesion. lesion_N: which samples are one. patient_N: their patients, from 0.
    called_PCC: counts of the calls at the threshold of the run, rows the truth; class 0 is no lesion.
    """

    score_N: FloatArray
    lesion_N: npt.NDArray[np.bool_]
    patient_N: npt.NDArray[np.int64]
    called_PCC: npt.NDArray[np.int64]


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

    def measured(counts_PCC: npt.NDArray[np.int64]) -> _Measured:
        total_CC, drawn_BCC = counts_PCC.sum(axis=0), np.tensordot(draws_BP, counts_PCC, axes=1)
        return _all_measures(total_CC, classes, names), _all_measures(drawn_BCC, classes, names)

    baseline = None if baseline_RPCC is None else [measured(one) for one in baseline_RPCC]
    return _paired([measured(one) for one in runs_RPCC], baseline)


def compare_lesions(
    runs: Sequence[LesionCalls], baseline: Sequence[LesionCalls] | None, classes: Sequence[str]
) -> list[Compared]:
    """The measures of lesions, compared as `compare` does: LESION_AUC of the scores, and at each run's threshold
    MACRO_AT_THRESHOLD (mean over the lesion classes of the share called this class), the same for each class, and
    SPECIFICITY_AT_THRESHOLD."""
    draws_BP = resample_patients(len(runs[0].called_PCC), RESAMPLES, SEED)

    def at_threshold(confusion_CC: Confusion) -> Named:
        shares = sensitivity(confusion_CC)
        of_classes = {("sensitivity_at_threshold", label): shares[..., n] for n, label in enumerate(classes) if n}
        macro = np.asarray(shares[..., 1:].mean(axis=-1))
        return {(MACRO_AT_THRESHOLD, ""): macro, (SPECIFICITY_AT_THRESHOLD, ""): shares[..., 0], **of_classes}

    def measured(run: LesionCalls) -> _Measured:
        area = auc(run.score_N, run.lesion_N)[0]
        areas_B = auc(run.score_N, run.lesion_N, draws_BP[:, run.patient_N])
        drawn = at_threshold(np.tensordot(draws_BP, run.called_PCC, axes=1))
        total = at_threshold(run.called_PCC.sum(axis=0))
        return {(LESION_AUC, ""): np.asarray(area), **total}, {(LESION_AUC, ""): areas_B, **drawn}

    return _paired([measured(one) for one in runs], None if baseline is None else [measured(one) for one in baseline])


_Measured = tuple[Named, Named]
"""One run's measures: () each, and (B,) over the resampled patients."""


def _paired(runs: Sequence[_Measured], baseline: Sequence[_Measured] | None) -> list[Compared]:
    values, drawn = _mean_over_runs(runs, 0)
    base, base_drawn = ({}, {}) if baseline is None else _mean_over_runs(baseline, 1)
    found = []
    for key, one in values.items():
        value, difference, bounds = float(one), math.nan, (math.nan, math.nan)
        if key in base:
            difference = value - float(base[key])
            bounds = percentile_interval(difference, drawn[key] - base_drawn[key])
        found.append(Compared(*key, value, *percentile_interval(value, drawn[key]), difference, *bounds))
    return found


def _mean_over_runs(measured: Sequence[_Measured], stream: int) -> _Measured:
    """The mean of every measure over the runs, () each; the same over resampled runs and patients, (B,) each."""
    runs = len(measured)
    rng = np.random.default_rng([SEED, RUN_SEED, stream])
    share_RB = rng.multinomial(runs, np.full(runs, 1 / runs), size=RESAMPLES).T / runs
    return (
        {key: np.asarray(np.mean([one[key] for one, _ in measured])) for key in measured[0][0]},
        {
            key: np.asarray((share_RB * np.stack([one[key] for _, one in measured])).sum(axis=0))
            for key in measured[0][1]
        },
    )


def _all_measures(confusion_CC: Confusion, classes: Sequence[str], names: Sequence[str]) -> Named:
    sens, spec = sensitivity(confusion_CC), specificity(confusion_CC)
    found: Named = {}
    for n, label in enumerate(classes):
        found |= {("sensitivity", label): sens[..., n], ("specificity", label): spec[..., n]}
    return found | {(name, ""): OVERALL[name](confusion_CC) for name in names}
