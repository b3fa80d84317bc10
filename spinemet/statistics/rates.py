"""Rates per person-time: events over the time in which they could be seen.

The counts are of groups of patients; which time counts, the caller decides. Anything undefined is NaN.
"""

import math

import numpy as np
import numpy.typing as npt
from scipy import stats

from spinemet.statistics.intervals import FloatArray

DAYS_PER_YEAR = 365.25
PER = 100_000
"""Rates are per so many person-years, as in IncidencePrevalence (DARWIN EU)."""


def rate(events: npt.ArrayLike, person_years: npt.ArrayLike) -> FloatArray:
    """Events per PER person-years; NaN without person-time."""
    time = np.asarray(person_years, np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(time > 0, PER * np.asarray(events, np.float64) / time, math.nan)


def rate_interval(events: npt.ArrayLike, person_years: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """The exact 95 % interval of `rate` for independent events (Garwood 1936); NaN without person-time.

    events, person_years: of each group, in one shape, which the two ends have as well.
    """
    count = np.asarray(events, np.float64)
    low = np.where(count > 0, stats.gamma.ppf(0.025, np.maximum(count, 1)), 0.0)
    return rate(low, person_years), rate(stats.gamma.ppf(0.975, count + 1), person_years)
