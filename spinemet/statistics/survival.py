"""How long patients stay free of an event: Kaplan and Meier's estimate, and Turnbull's if it was seen only at visits.

Times are in days. Axes: T times, P patients (or patterns that many patients share), W windows of all of them together,
C cells of time in which an event can have happened. Anything undefined is NaN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from spinemet.errors import JobFailed
from spinemet.statistics.intervals import Z_95, FloatArray

IntArray = npt.NDArray[np.int64]

GAP = 1e-9
"""A fit ends if no other distribution has a log likelihood that is higher by more than this, per patient."""
ENOUGH = 1e-3
"""A fit that still gains so much after MOST_STEPS is no fit."""
MOST_STEPS = 3000


@dataclass(frozen=True, eq=False)
class Curve:
    """The share still free after each of the days `day_T`, with its 95 % interval; `at_risk_T` just before that day."""

    day_T: FloatArray
    at_risk_T: IntArray
    events_T: IntArray
    free_T: FloatArray
    low_T: FloatArray
    high_T: FloatArray

    def at(self, days: npt.ArrayLike) -> Curve:
        """The curve after any `days`; NaN after the last day on which a patient was under observation."""
        wanted = np.asarray(days, np.float64)
        place = np.searchsorted(self.day_T, wanted, side="right") - 1
        before, beyond = place < 0, wanted > self.day_T.max(initial=-math.inf)

        def taken(values_T: FloatArray, first: float) -> FloatArray:
            values = values_T[np.maximum(place, 0)] if len(values_T) else np.full(len(wanted), math.nan)
            return np.where(beyond, math.nan, np.where(before, first, values))

        following = np.searchsorted(self.day_T, wanted, side="left")
        at_risk = np.append(self.at_risk_T, 0)[following]
        events = np.append(0, np.cumsum(self.events_T))[place + 1]
        ends = (taken(one, math.nan) for one in (self.low_T, self.high_T))
        return Curve(wanted, at_risk, events, taken(self.free_T, 1.0), *ends)


def kaplan_meier(day_T: npt.ArrayLike, events_T: npt.ArrayLike, censored_T: npt.ArrayLike) -> Curve:
    """Kaplan and Meier's estimate (1958), with Greenwood's variance on the scale of log(-log) (Kalbfleisch 1980).

    day_T: distinct days in increasing order. events_T, censored_T: how many patients had the event, or were seen last
    without it, on that day. The interval is NaN while all or none are free: nothing tells its width.
    """
    day = np.asarray(day_T, np.float64)
    events, censored = (np.asarray(one, np.int64) for one in (events_T, censored_T))
    leaving = events + censored
    at_risk = leaving.sum() - np.cumsum(leaving) + leaving
    free = np.cumprod(1 - events / np.maximum(at_risk, 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = np.cumsum(events / (at_risk * (at_risk - events)))
        half = Z_95 * np.sqrt(variance) / np.log(free)
        low, high = free ** np.exp(-half), free ** np.exp(half)
    known = (free > 0) & (free < 1)
    return Curve(day, at_risk, events, free, np.where(known, low, math.nan), np.where(known, high, math.nan))


@dataclass(frozen=True, eq=False)
class Windows:
    """When each patient's event can have happened.

    In window w the event of the patient `patient_W` (a number from 0) happened after the day `after_W` and at the
    latest on `until_W`; -inf is before the first visit, inf never so far. weight_W: the probability of what was seen of
    the patient if it happened then; 1 if the visits see without error, and each patient then has one window.
    """

    patient_W: IntArray
    after_W: FloatArray
    until_W: FloatArray
    weight_W: FloatArray

    @classmethod
    def of(cls, after_P: npt.ArrayLike, until_P: npt.ArrayLike) -> Windows:
        """One window per patient."""
        after, until = np.asarray(after_P, np.float64), np.asarray(until_P, np.float64)
        return cls(np.arange(len(after)), after, until, np.ones(len(after)))

    @cached_property
    def _cells(self) -> tuple[FloatArray, FloatArray]:
        """The cells, from (exclusive) and to (inclusive), that can hold probability.

        They begin where a window begins, and the next edge of any window is an end (Peto 1973).
        """
        edges = np.unique(np.concatenate([self.after_W, self.until_W]))
        start, end = edges[:-1], edges[1:]
        can = np.isin(start, self.after_W) & np.isin(end, self.until_W)
        return start[can], end[can]

    @cached_property
    def _spans(self) -> tuple[IntArray, IntArray]:
        """The first cell of each window, and the one after its last."""
        start, end = self._cells
        return np.searchsorted(start, self.after_W, side="left"), np.searchsorted(end, self.until_W, side="right")

    def fit(self, count_P: npt.ArrayLike, begin: Onsets | None = None, gap: float = GAP) -> Onsets:
        """The distribution of the event's time that makes what was seen most probable (Turnbull 1976).

        count_P: how many patients each one stands for. begin: where to start from, a fit of the same windows. Self-
        consistency, accelerated (SQUAREM: Varadhan and Roland 2008). Raises JobFailed if it does not come near.
        """
        count = np.asarray(count_P, np.float64)
        cells = len(self._cells[0])
        if not cells or not count.sum():
            return Onsets(*self._cells, np.full(cells, math.nan))
        mass = np.full(cells, 1 / cells)
        if begin is not None:
            mass = 0.9 * begin.mass_C + 0.1 * mass
        for step in range(MOST_STEPS):
            first, _, above = self._step(mass, count)
            if above <= gap or (step == MOST_STEPS - 1 and above <= ENOUGH):
                return Onsets(*self._cells, first)
            second, reached, _ = self._step(first, count)
            change, bend = first - mass, (second - first) - (first - mass)
            size = float(np.linalg.norm(bend))
            if size == 0:
                mass = second
                continue
            length = max(float(np.linalg.norm(change)) / size, 1.0)
            leap = np.maximum(mass + 2 * length * change + length**2 * bend, first * 1e-3)
            leap /= leap.sum()
            landed, found, _ = self._step(leap, count)
            mass = landed if found >= reached else second
        raise JobFailed("the distribution of times did not settle: ask about fewer groups or a shorter period.")

    def _step(self, mass_C: FloatArray, count_P: FloatArray) -> tuple[FloatArray, float, float]:
        """One step of self-consistency: the new mass, the mean log likelihood of the old one, and by how much at most
        that of any other mass can be higher."""
        first, last = self._spans
        below = np.concatenate([[0.0], np.cumsum(mass_C)])
        chance_P = np.bincount(
            self.patient_W, self.weight_W * np.maximum(below[last] - below[first], 0), minlength=len(count_P)
        )
        drawn = count_P > 0
        share_P = np.zeros(len(count_P))
        share_P[drawn] = count_P[drawn] / np.maximum(chance_P[drawn], 1e-300)
        given = self.weight_W * share_P[self.patient_W]
        cells = len(mass_C)
        change = np.bincount(first, given, minlength=cells + 1) - np.bincount(last, given, minlength=cells + 1)
        gain_C = np.cumsum(change)[:cells] / count_P.sum()
        height = float(count_P[drawn] @ np.log(np.maximum(chance_P[drawn], 1e-300)) / count_P.sum())
        new = mass_C * gain_C
        return new / new.sum(), height, float(gain_C.max() - 1)


@dataclass(frozen=True, eq=False)
class Onsets:
    """When events happen: with probability `mass_C` after the day `start_C` and at the latest on `end_C`."""

    start_C: FloatArray
    end_C: FloatArray
    mass_C: FloatArray

    def free_after(self, days: npt.ArrayLike) -> FloatArray:
        """The share still free after each of `days`, of those free on day 0.

        Within a cell the probability is spread evenly: what was seen does not tell where in it. NaN after the last end.
        """
        wanted = np.asarray(days, np.float64)
        last = max(float(self.end_C[np.isfinite(self.end_C)].max(initial=0)), *self.start_C, 0.0)
        before = float(self.mass_C[np.isneginf(self.start_C)].sum())
        inner = np.isfinite(self.start_C) & np.isfinite(self.end_C)
        start, end, mass = self.start_C[inner], self.end_C[inner], self.mass_C[inner]
        at = np.concatenate([[0.0], np.ravel([start, end], order="F")])
        reached = np.concatenate([[0.0], np.ravel([np.cumsum(mass) - mass, np.cumsum(mass)], order="F")])
        free = 1 - np.interp(wanted, at, reached) / (1 - before) if before < 1 else np.full(len(wanted), math.nan)
        return np.where(wanted > last, math.nan, np.clip(free, 0, 1))
