"""How often lesions arise, from visits at which a model calls them with known errors.

Each patient is free of lesions or not, and does not become free again. At each visit the model calls a lesion with its
sensitivity if there is one and with 1 - specificity if there is none, independently from visit to visit. Lesions arise
at a constant rate within a group of person-time (Jackson and Sharples 2002 and Bureau et al. 2003 give the general
hidden Markov model). If the model errs again and again in the same patient, its errors make fewer events than it says
here.

Axes: N pieces of the patients' time, P patients, G groups, K places of a piece within its patient.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from spinemet.statistics.intervals import Z_95, FloatArray

IntArray = npt.NDArray[np.int64]

NOT_SEEN = 2
"""The call of a piece of time that does not end with a visit."""
_LOWEST, _HIGHEST = math.log(1e-10), math.log(1.0)
"""Bounds of the logarithm of a rate per day."""
_MOST_SPREAD = 1.0
"""An interval whose logarithm has a larger standard error holds nothing that helps: too few."""


@dataclass(frozen=True)
class CallErrors:
    """How well visits are called: sensitivity and specificity, each measured on so many independent visits.

    None of them may be 0 or 1: no error is known to be impossible.
    """

    sensitivity: float
    specificity: float
    with_lesion: float
    without: float

    @property
    def logits(self) -> FloatArray:
        """(2,) of sensitivity and specificity."""
        return np.asarray(special.logit([self.sensitivity, self.specificity]))

    @property
    def variance(self) -> FloatArray:
        """(2,) of `logits`."""
        share = np.array([self.sensitivity, self.specificity])
        return np.asarray(1 / (np.array([self.with_lesion, self.without]) * share * (1 - share)))


@dataclass(frozen=True)
class Rate:
    """Lesions per day with the 95 % interval; the interval is NaN if there are too few to tell."""

    per_day: float
    low: float
    high: float


class Histories:
    """The visits of patients, in the order in which a likelihood runs through them.

    patient_N: numbers, equal ones side by side, in the order of time. days_N: length of the piece of time that ends
    here, 0 for a patient's first visit. called_N: 0 no lesion, 1 lesion, NOT_SEEN. group_N: from 0 to groups - 1.
    """

    def __init__(
        self, patient_N: npt.ArrayLike, days_N: npt.ArrayLike, called_N: npt.ArrayLike, group_N: npt.ArrayLike
    ) -> None:
        patient, group = np.asarray(patient_N), np.asarray(group_N, np.int64)
        days, called = np.asarray(days_N, np.float64), np.asarray(called_N, np.int64)
        self.groups = int(group.max(initial=-1)) + 1
        start = np.flatnonzero(np.append(True, patient[1:] != patient[:-1])) if len(patient) else np.zeros(0, int)
        length = np.diff(np.append(start, len(patient)))
        longest_first = np.argsort(-length, kind="stable")
        start, length = start[longest_first], length[longest_first]
        # Patients with a piece at place k come first at every k.
        rows = [start[: int((length > k).sum())] + k for k in range(int(length.max(initial=0)))]
        self._days_K = [days[row] for row in rows]
        self._called_K = [called[row] for row in rows]
        self._group_K = [group[row] for row in rows]

    def likelihood(self, theta: FloatArray, logits: FloatArray) -> tuple[float, FloatArray]:
        """The log likelihood and its gradient by `theta`, by the forward-backward algorithm.

        theta: (2 G,) for each group the logit of the share that has a lesion at the first visit, then for each group
        the logarithm of the rate per day. logits: of sensitivity and specificity.
        """
        sensitivity, specificity = special.expit(logits)
        without, with_one = np.array([specificity, 1 - specificity, 1]), np.array([1 - sensitivity, sensitivity, 1])
        prior, rate = special.expit(theta[: self.groups]), np.exp(theta[self.groups :])
        total, states = 0.0, []
        free = ill = np.zeros(0)
        for k, (days, called, group) in enumerate(zip(self._days_K, self._called_K, self._group_K, strict=True)):
            n = len(days)
            if k == 0:
                free, ill = (1 - prior[group]) * without[called], prior[group] * with_one[called]
            else:
                stay = np.exp(-rate[group] * days)
                free, ill = (
                    free[:n] * stay * without[called],
                    (ill[:n] + free[:n] * -np.expm1(-rate[group] * days)) * with_one[called],
                )
            both = free + ill
            total += float(np.log(both).sum())
            free, ill = free / both, ill / both
            states.append((free, ill, both))
        return total, self._gradient(states, prior, rate, without, with_one)

    def _gradient(
        self,
        states: list[tuple[FloatArray, FloatArray, FloatArray]],
        prior: FloatArray,
        rate: FloatArray,
        without: FloatArray,
        with_one: FloatArray,
    ) -> FloatArray:
        """From the probabilities of each patient's states given all visits (Fisher's identity)."""
        slope = np.zeros(2 * self.groups)
        patients = len(states[0][0]) if states else 0
        later_free, later_ill = np.ones(patients), np.ones(patients)
        for k in range(len(states) - 1, 0, -1):
            days, called, group = self._days_K[k], self._called_K[k], self._group_K[k]
            n, both = len(days), states[k][2]
            free = states[k - 1][0][:n]
            mean = rate[group] * days
            stay, leave = np.exp(-mean), -np.expm1(-mean)
            seen_free = without[called] * later_free[:n] / both
            seen_ill = with_one[called] * later_ill[:n] / both
            by_leaving = np.where(mean > 0, mean * stay, 0.0)
            change = free * (by_leaving * seen_ill - mean * stay * seen_free)
            slope[self.groups :] += np.bincount(group, change, minlength=self.groups)
            later_free[:n], later_ill[:n] = stay * seen_free + leave * seen_ill, seen_ill
        if states:
            group = self._group_K[0]
            ill = states[0][1] * later_ill
            slope[: self.groups] = np.bincount(group, ill - prior[group], minlength=self.groups)
        return slope


def rates(histories: Histories, errors: CallErrors) -> list[Rate]:
    """The rate at which lesions arise in each group, by maximum likelihood.

    The interval takes in the patients' number and, by the delta method, what the evaluation leaves open about the
    errors. It is symmetric on the scale of the logarithm.
    """
    groups = histories.groups
    if not groups:
        return []
    begin = np.concatenate([np.full(groups, -1.0), np.full(groups, math.log(1e-4))])
    bounds = [(-12.0, 12.0)] * groups + [(_LOWEST, _HIGHEST)] * groups

    def cost(theta: FloatArray) -> tuple[float, FloatArray]:
        value, slope = histories.likelihood(theta, errors.logits)
        return -value, -slope

    best = optimize.minimize(cost, begin, jac=True, bounds=bounds, method="L-BFGS-B", options={"maxiter": 500})
    variance = _variance(histories, best.x, errors)
    found = []
    for n in range(groups):
        log_rate, spread = float(best.x[groups + n]), math.sqrt(max(variance[groups + n], 0.0))
        known = spread <= _MOST_SPREAD and log_rate > _LOWEST + 1
        ends = [math.exp(log_rate + sign * Z_95 * spread) if known else math.nan for sign in (-1, 1)]
        found.append(Rate(math.exp(log_rate) if log_rate > _LOWEST + 1 else 0.0, *ends))
    return found


def _variance(histories: Histories, theta: FloatArray, errors: CallErrors) -> FloatArray:
    """(2 G,) the variance of each parameter; infinite if the likelihood does not tell."""
    step = 1e-4

    def slope(by: FloatArray, logits: FloatArray) -> FloatArray:
        return histories.likelihood(by, logits)[1]

    unit = np.eye(len(theta)) * step
    information = -np.array([slope(theta + one, errors.logits) - slope(theta - one, errors.logits) for one in unit])
    information = (information + information.T) / (4 * step)
    # A share or a rate at its bound tells nothing of the others.
    open_ends = np.diag(information) > 1e-6
    variance = np.full(len(theta), math.inf)
    if not open_ends.any():
        return variance
    inverse = np.linalg.pinv(information[np.ix_(open_ends, open_ends)], hermitian=True)
    shift = np.eye(2) * step
    crossed = np.array(
        [slope(theta, errors.logits + one) - slope(theta, errors.logits - one) for one in shift]
    ) / (2 * step)  # fmt: skip
    moved = inverse @ crossed[:, open_ends].T
    variance[open_ends] = np.diag(inverse) + moved**2 @ errors.variance
    return variance
