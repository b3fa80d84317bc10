"""Control charts: whether a run's rates differ from those of the runs before it by more than chance.

Shares (excluded and failed studies, vertebrae of each class, unsure ones) get a p chart with probability limits: the
binomial quantiles that a share leaves as rarely as 3 standard deviations (1 in 740 on each side). Vertebrae of one
patient are alike, so their shares scatter more than the binomial distribution says. The limits are therefore widened by
the sigma_z of Laney's p' chart (Quality Engineering 14:531, 2002) if that is above 1: the scatter from run to run of
z = (p - mean p) / sqrt(mean p (1 - mean p) / n). The mean HU gets an individuals chart: mean +- 2.66 times the mean
moving range (Montgomery, Statistical Quality Control, chapters 6 and 7).

A run is compared with the last LAST_RUNS usual runs of the same model and configuration (see Results.usual_runs). A
lasting change is reported for weeks, then becomes the baseline. Reads and writes nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from spinemet.reading import State
from spinemet.results.schemas import Row
from spinemet.types import BONE_QUALITY, POSTEROLATERAL, Completeness

MIN_RUNS = 8
"""With fewer earlier runs there is no alarm: the scatter from run to run is not known yet."""
LAST_RUNS = 30
"""A run is compared with at most this many earlier ones."""
SIGMAS = 3.0
MOVING_RANGE = 1.128
"""d2: the mean range of two normal values, in standard deviations."""
MIN_MEASURED = 30
"""With fewer measured vertebrae a run's mean HU is not compared: it would depend on few patients."""

POSITIVE = (*BONE_QUALITY[1:], *POSTEROLATERAL[1:])
"""Classes whose share of the evaluable vertebrae has a chart; columns of `runs`."""
_SHARES: dict[str, tuple[str, ...]] = {
    **{str(state): tuple(map(str, State)) for state in (State.EXCLUDED, State.FAILED)},
    **dict.fromkeys(POSITIVE, ("evaluable",)),
    "unsure": ("evaluable", "unsure"),
}
"""Column of `runs` -> the columns whose sum it is a share of."""


@dataclass(frozen=True)
class Alarm:
    """A value of a run outside its control limits; runs: the number of runs that the limits come from."""

    name: str
    value: float
    low: float
    high: float
    runs: int

    def __str__(self) -> str:
        """In one line, for a log."""
        show = (lambda x: f"{x:.0f} HU") if self.name == "mean_hu" else (lambda x: f"{x:.1%}")
        return (
            f"{self.name.replace('_', ' ')}: {show(self.value)}, expected {show(self.low)} to {show(self.high)} "
            f"after the last {self.runs} runs"
        )


def drift(run: Row, earlier: Sequence[Row]) -> list[Alarm]:
    """The rates of `run` that are out of control. run, earlier: rows of `runs`, the earlier ones in order of time."""
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
    """Counts of a study's `vertebrae` rows: unsure ones, evaluable ones, those of each class, those with HU, and HU."""
    evaluable = [row for row in vertebrae if row["evaluable"]]
    hu = [row["trabecular_hu"] for row in evaluable if row["trabecular_hu"] is not None]
    found = {name: sum(row["bone_quality"] == name for row in evaluable) for name in BONE_QUALITY[1:]}
    found |= {name: sum(row["posterolateral"] == name for row in evaluable) for name in POSTEROLATERAL[1:]}
    unsure = sum(bool(row["unsure"]) and row["completeness"] == Completeness.WHOLE for row in vertebrae)
    return {"evaluable": len(evaluable), "unsure": unsure, **found, "hu_vertebrae": len(hu), "hu_sum": math.fsum(hu)}


def _share(row: Row, name: str, whole: Sequence[str]) -> tuple[int, int]:
    """Count and total of a share; rows of an earlier version lack some columns."""
    if row.get(name) is None:
        return 0, 0
    return int(row[name]), sum(int(row.get(each) or 0) for each in whole)


def _measured(row: Row) -> bool:
    return row.get("mean_hu") is not None and int(row.get("hu_vertebrae") or 0) >= MIN_MEASURED


def _p_chart(name: str, now: tuple[int, int], before: Sequence[tuple[int, int]]) -> Alarm | None:
    from scipy.stats import binom, norm  # half a second of imports that a first or quiet night does not need

    count, size = now
    # Half an event is added, so that the mean is above 0 even after 1,000 studies without a failure.
    mean = (sum(x for x, _ in before) + 0.5) / (sum(n for _, n in before) + 1)
    z = [(x / n - mean) / math.sqrt(mean * (1 - mean) / n) for x, n in before]
    widening, beyond, expected = max(1.0, _sigma(z)), norm.sf(SIGMAS), mean * size
    low = max(0.0, expected - widening * (expected - float(binom.ppf(beyond, size, mean))))
    high = min(float(size), expected + widening * (float(binom.isf(beyond, size, mean)) - expected))
    if low <= count <= high:
        return None
    return Alarm(name, count / size, low / size, high / size, len(before))


def _individuals_chart(name: str, now: float, before: Sequence[float]) -> Alarm | None:
    mean, width = fmean(before), SIGMAS * _sigma(before)
    if abs(now - mean) <= width:
        return None
    return Alarm(name, now, mean - width, mean + width, len(before))


def _sigma(values: Sequence[float]) -> float:
    """The standard deviation between successive values, from the mean moving range; slow trends do not raise it."""
    return fmean(abs(b - a) for a, b in pairwise(values)) / MOVING_RANGE
