"""Prevalences corrected for the errors of a classifier that were measured on other patients.

Rogan and Gladen (1978) solve "called = true cases called + others called" for the share of true cases; with several
classes this is a system of linear equations, one for each class (the matrix method; Buonaccorsi 2010, chapter 2). All
of it assumes that the errors of the evaluation hold in the cohort.

Axes: N evaluated units, C classes (the negative one first), first axis the truth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spinemet.statistics.intervals import Z_95, ClusterSums, FloatArray

LEAST_PATIENTS = 5
"""Errors of a class are known only if so many patients with it were evaluated."""
_LEAST_DETERMINANT = 1e-6
_STEPS, _CLOSE = 10_000, 1e-9


@dataclass(frozen=True, eq=False)
class Errors:
    """How often units of each true class are called each class.

    shares_CC: rows add up to 1 (NaN for a class that was not evaluated). sizes_C: independent units with the same
    information on each row. patients_C: patients with a unit of the class.
    """

    shares_CC: FloatArray
    sizes_C: FloatArray
    patients_C: npt.NDArray[np.int64]

    @classmethod
    def of(
        cls,
        true_N: npt.ArrayLike,
        called_N: npt.ArrayLike,
        patient_N: npt.ArrayLike,
        classes: int,
        weight_N: npt.ArrayLike | None = None,
    ) -> Errors:
        """The errors of evaluated units of patients. weight_N: sampling weights, if the units are a sample."""
        true, called, patient = np.asarray(true_N), np.asarray(called_N), np.asarray(patient_N)
        weight = np.ones(len(true)) if weight_N is None else np.asarray(weight_N, np.float64)
        shares, sizes, patients = np.full((classes, classes), np.nan), np.zeros(classes), np.zeros(classes, np.int64)
        for n in np.unique(true):
            row = true == n
            shares[n] = np.bincount(called[row], weight[row], classes) / weight[row].sum()
            # Scaled so that they add up to the number of equally weighted units with the same information.
            scaled = weight[row] * weight[row].sum() / (weight[row] @ weight[row])
            _, of_patient = np.unique(patient[row], return_inverse=True)
            right, seen = np.bincount(of_patient, scaled * (called[row] == n)), np.bincount(of_patient, scaled)
            sizes[n], patients[n] = ClusterSums.of(right, seen).effective_size, len(seen)
        return cls(shares, sizes, patients)

    def not_identifiable(self, classes: Sequence[str]) -> str:
        """Why these errors cannot be corrected for; empty if they can. classes: their names."""
        for name, count in zip(classes, self.patients_C, strict=True):
            if count < LEAST_PATIENTS:
                return f"only {count} evaluated patients are {name}, and {LEAST_PATIENTS} are needed"
        for n, name in reversed(list(enumerate(classes))):
            right, wrong = self.shares_CC[n, n], np.delete(self.shares_CC[:, n], n).max()
            if right <= wrong:
                return (
                    f"{100 * right:.0f} % of the units that are {name} are called so, and {100 * wrong:.0f} % "
                    "of others: the calls do not tell them apart"
                )
        if np.linalg.det(self.shares_CC) < _LEAST_DETERMINANT:
            return "the model's calls do not tell the classes apart"
        return ""

    @property
    def smoothed(self) -> FloatArray:
        """`shares_CC` with one more unit called right and one called wrong in each row: no error is known to be 0."""
        classes = len(self.shares_CC)
        added = np.where(np.eye(classes, dtype=bool), 1.0, 1 / (classes - 1))
        smoothed: FloatArray = (self.shares_CC * self.sizes_C[:, None] + added) / (self.sizes_C[:, None] + 2)
        return smoothed


@dataclass(frozen=True)
class Corrected:
    """A corrected share with its 95 % interval; NaN for both ends if calls and errors contradict each other."""

    share: float
    low: float
    high: float


def correct(called_C: npt.ArrayLike, sizes_C: npt.ArrayLike, errors: Errors) -> list[Corrected]:
    """The true share of each class among units of which the shares `called_C` are called so.

    called_C: (C,) adding up to 1. sizes_C: (C,) for each class the number of independent units with the same
    information on its share; NaN if unknown. errors: identifiable (`Errors.not_identifiable`).

    The shares solve the equations, or where these say less than 0 or more than 1, they are the most likely ones from 0
    to 1. An end of an interval is the share that the calls just do not contradict, at 5 %, with the errors as uncertain
    as their evaluation leaves them (Lang and Reiczigel 2014 give the case of two classes with a Wald interval).
    """
    called, sizes = np.asarray(called_C, np.float64), np.asarray(sizes_C, np.float64)
    share_C = _most_likely(called, errors.shares_CC)
    return [
        Corrected(float(share), *_interval(called, sizes[n], errors, n, float(share)))
        for n, share in enumerate(share_C)
    ]


def _most_likely(called_C: FloatArray, shares_CC: FloatArray) -> FloatArray:
    """(C,) the shares from 0 to 1 under which the calls are the most likely: the equations' solution if that is one."""
    solved = np.linalg.solve(shares_CC.T, called_C)
    if solved.min() >= 0:
        return np.asarray(solved, np.float64)
    if len(solved) == 2:
        return np.clip(solved, 0, 1)
    # Expectation and maximisation (Dempster, Laird and Rubin 1977); its steps keep every share between 0 and 1.
    share = np.full(len(called_C), 1 / len(called_C))
    for _ in range(_STEPS):
        expected = share @ shares_CC
        ratio = np.divide(called_C, expected, out=np.zeros_like(called_C), where=expected > 0)
        before, share = share, share * (shares_CC @ ratio)
        if np.abs(share - before).max() < _CLOSE:
            break
    share = np.where(share < math.sqrt(_CLOSE), 0, share)
    return share / share.sum()


def _interval(called_C: FloatArray, size: float, errors: Errors, n: int, share: float) -> tuple[float, float]:
    """The ends of the interval of class `n`.

    A value v of its share belongs to the interval if (solution - v)² is at most 1.96² times the variance of the
    solution under v. The others share 1 - v as in the solution, so both sides are quadratic in v.
    """
    if math.isnan(size):
        return math.nan, math.nan
    smoothed = errors.smoothed
    solved_C = np.linalg.solve(smoothed.T, called_C)
    others = np.clip(solved_C, 0, None)
    others[n] = 0
    if not others.any():
        others = 1 - np.eye(len(others))[n]
    others /= others.sum()
    grow = np.eye(len(others))[n] - others
    # The solution weighs the shares of calls with `weight`; a row of errors adds the variance of one unit's weight.
    weight = np.linalg.inv(smoothed.T)[n]
    mean_square = smoothed @ weight**2
    of_row = (mean_square - (smoothed @ weight) ** 2) / (errors.sizes_C + 2)
    variance = np.array(
        [
            of_row @ grow**2 - 1 / size,
            2 * of_row @ (grow * others) + mean_square @ grow / size,
            of_row @ others**2 + mean_square @ others / size,
        ]
    )
    excess = np.array([1, -2 * solved_C[n], solved_C[n] ** 2]) - Z_95**2 * variance
    ends = [end.real for end in np.roots(excess) if end.imag == 0 and 0 <= end.real <= 1]
    ends += [end for end in (0.0, 1.0) if np.polyval(excess, end) <= 0]
    return (min(share, *ends), max(share, *ends)) if ends else (math.nan, math.nan)
