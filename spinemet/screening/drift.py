"""Whether a run's rates are those of the runs before it: control charts, as in statistical process control.

Shares (excluded and failed studies, vertebrae of each class) are judged by a p chart with probability limits: the
binomial quantiles beyond which a share falls as rarely as beyond 3 standard deviations (1 in 740 to a side). As
vertebrae of one patient are alike, shares of many vertebrae scatter by more than the binomial says; the limits then
stand further from the mean by the sigma_z of Laney's p' chart (Quality Engineering 14:531, 2002), which is the scatter
from run to run of z = (p - mean p) / sqrt(mean p (1 - mean p) / n), where that is above 1. The mean HU is judged by an
individuals chart: mean +- 2.66 times the mean moving range (Montgomery, Statistical Quality Control, chapters 6, 7).

The runs compared with are the last LAST_RUNS of this model and configuration over whatever was new: a lasting change
is told for some weeks and then is what is usual. Pure: reads and writes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from spinemet.results.schemas import Row
from spinemet.types import BONE_QUALITY, POSTEROLATERAL, State

MIN_RUNS = 8
"""Earlier runs below which nothing is said: the scatter from run to run is not known yet."""
LAST_RUNS = 30
"""Earlier runs at most."""
SIGMAS = 3.0
MOVING_RANGE = 1.128
"""d2: the mean range of two normal values in standard deviations."""
MIN_MEASURED = 30
"""Vertebrae below which a run's mean HU is not judged: its scatter would be that of few patients."""

POSITIVE = (*BONE_QUALITY[1:], *POSTEROLATERAL[1:])
"""Classes whose share of the evaluable vertebrae is watched, as columns of `runs`."""
_SHARES: dict[str, tuple[str, ...]] = {
    **{str(state): tuple(map(str, State)) for state in (State.EXCLUDED, State.FAILED)},
    **dict.fromkeys(POSITIVE, ("evaluable",)),
}
"""What is counted -> the columns whose sum it is a share of."""


@dataclass(frozen=True)
class Alarm:
    """A value of a run outside of its control limits, and from how many runs these are."""

    name: str
    value: float
    low: float
    high: float
    runs: int

    def __str__(self) -> str:
        """In a line, for a log."""
        say = (lambda x: f"{x:.0f} HU") if self.name == "mean_hu" else (lambda x: f"{x:.1%}")
        return (
            f"{self.name.replace('_', ' ')}: {say(self.value)}, expected {say(self.low)} to {say(self.high)} "
            f"after the last {self.runs} runs"
        )


def drift(run: Row, earlier: Sequence[Row]) -> list[Alarm]:
    """What of `run` is out of control. run, earlier: rows of `runs`, the earlier ones in order of time."""
    last = list(earlier)[-LAST_RUNS:]
    alarms = []
    for name, whole in _SHARES.items():
        now, *before = (_share(row, name, whole) for row in (run, *last))
        before = [each for each in before if each[1]]
        if now[1] and len(before) >= MIN_RUNS:
            alarms.append(_p_chart(name, now, before))
    before_hu = [row["mean_hu"] for row in last if _measured(row)]
    if _measured(run) and len(before_hu) >= MIN_RUNS:
        alarms.append(_individuals_chart("mean_hu", run["mean_hu"], before_hu))
    return [alarm for alarm in alarms if alarm is not None]


def counted(vertebrae: Sequence[Row]) -> dict[str, float]:
    """What of a study's `vertebrae` rows a run adds up: evaluable ones, those of each class, and HU with their sum."""
    evaluable = [row for row in vertebrae if row["evaluable"]]
    hu = [row["trabecular_hu"] for row in evaluable if row["trabecular_hu"] is not None]
    found = {name: sum(row["bone_quality"] == name for row in evaluable) for name in BONE_QUALITY[1:]}
    found |= {name: sum(row["posterolateral"] == name for row in evaluable) for name in POSTEROLATERAL[1:]}
    return {"evaluable": len(evaluable), **found, "hu_vertebrae": len(hu), "hu_sum": math.fsum(hu)}


def _share(row: Row, name: str, whole: Sequence[str]) -> tuple[int, int]:
    """How many, of how many; rows of an earlier version lack some columns."""
    if row.get(name) is None:
        return 0, 0
    return int(row[name]), sum(int(row.get(each) or 0) for each in whole)


def _measured(row: Row) -> bool:
    return row.get("mean_hu") is not None and int(row.get("hu_vertebrae") or 0) >= MIN_MEASURED


def _p_chart(name: str, now: tuple[int, int], before: Sequence[tuple[int, int]]) -> Alarm | None:
    from scipy.stats import binom, norm  # half a second of imports, which a first night and a quiet one do without

    count, size = now
    # Half an event is added: after 1,000 studies without a failure the rate is small, and not 0.
    mean = (sum(x for x, _ in before) + 0.5) / (sum(n for _, n in before) + 1)
    z = [(x / n - mean) / math.sqrt(mean * (1 - mean) / n) for x, n in before]
    wider, beyond, expected = max(1.0, _sigma(z)), norm.sf(SIGMAS), mean * size
    low = max(0.0, expected - wider * (expected - float(binom.ppf(beyond, size, mean))))
    high = min(float(size), expected + wider * (float(binom.isf(beyond, size, mean)) - expected))
    if low <= count <= high:
        return None
    return Alarm(name, count / size, low / size, high / size, len(before))


def _individuals_chart(name: str, now: float, before: Sequence[float]) -> Alarm | None:
    mean, width = fmean(before), SIGMAS * _sigma(before)
    if abs(now - mean) <= width:
        return None
    return Alarm(name, now, mean - width, mean + width, len(before))


def _sigma(values: Sequence[float]) -> float:
    """The standard deviation from one value to the next, by the mean moving range; blind to slow trends."""
    return fmean(abs(b - a) for a, b in pairwise(values)) / MOVING_RANGE
