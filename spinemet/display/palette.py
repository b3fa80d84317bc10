"""Colours and marks of the calls, the same in every picture, table and page.

The hues are those of Okabe and Ito (2008), which stay apart for every common kind of colour blindness; normal is a
quiet grey so that lesions stand out. Each class also has a letter: colour is never the only sign.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from spinemet.types import BONE_QUALITY, VertebraCall

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LIGHT: dict[str, str] = {"normal": "#8d9aa5", "blastic": "#0072b2", "mixed": "#a0478c", "lytic": "#d55e00"}
"""On white."""
DARK: dict[str, str] = {"normal": "#97a5b1", "blastic": "#56b4e9", "mixed": "#d987b5", "lytic": "#ff8c42"}
"""On black."""
UNCALLED = {"light": "#b6bec6", "dark": "#c3ccd4"}

LETTERS: dict[str, str] = {"normal": "N", "blastic": "B", "mixed": "M", "lytic": "L"}
POSTEROLATERAL_MARKS: dict[str, str] = {"none": "", "unilateral": "◐", "bilateral": "●"}

LOW_CONFIDENCE = 0.5
"""A call or a level name less probable than this is marked with a question mark."""


def axis_top(highs: Iterable[float]) -> float:
    """The round share at which an axis of proportions ends so that it just holds `highs` (NaN: unknown)."""
    highest = max((high for high in highs if not math.isnan(high)), default=0.0)
    return next((limit for limit in (0.1, 0.2, 0.4, 0.6, 0.8) if limit >= highest), 1.0)


def bone_quality(call: VertebraCall | None) -> tuple[str, float] | None:
    """The most probable bone quality of `call` and its probability; None where the model said nothing of it."""
    if call is None or "bone_quality" not in call.probabilities:
        return None
    label = call.label("bone_quality")
    return label, call.probabilities["bone_quality"][label]


def bone_quality_probabilities(call: VertebraCall | None) -> dict[str, float]:
    """Class to probability, normal first; empty where the model said nothing of bone quality."""
    if call is None or "bone_quality" not in call.probabilities:
        return {}
    return {name: call.probabilities["bone_quality"][name] for name in BONE_QUALITY}


def posterolateral(call: VertebraCall | None) -> str | None:
    """The most probable posterolateral involvement, None where the model said nothing of it."""
    if call is None or "posterolateral" not in call.probabilities:
        return None
    return call.label("posterolateral")


def bare(axes: Axes, label_size: float, grid: Literal["both", "x"] = "both") -> None:
    """Leave of the frame of a diagram its labels and a faint grid."""
    axes.tick_params(labelsize=label_size, length=0)
    axes.grid(axis=grid, color="#e3e8ee", lw=0.7)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
