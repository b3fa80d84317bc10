"""Colours and marks of the calls: the one source for terminal, figures and pages.

The hues are those of Okabe and Ito (2008), which stay distinct for every common kind of colour blindness. Normal is a
quiet grey so that lesions stand out. Each class also has a letter or a shade: colour is never the only sign.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from io import BytesIO
from typing import TYPE_CHECKING, Literal

from spinemet.reading import State, VertebraCall

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LIGHT: dict[str, str] = {"normal": "#87949f", "blastic": "#0072b2", "mixed": "#a0478c", "lytic": "#d55e00"}
"""On a white page."""
DARK: dict[str, str] = {"normal": "#97a5b1", "blastic": "#56b4e9", "mixed": "#d987b5", "lytic": "#ff8c42"}
"""On a black page."""
PALE_NORMAL = "#dde4e9"
"""Normal on a white page, if the whole area of a cell has the colour."""
UNCALLED = {"light": "#b6bec6", "dark": "#c3ccd4"}
"""Without a call, on a white and on a black page."""
TERMINAL: dict[str, str] = {"normal": "#8a8a8a", "blastic": "#2a86c4", "mixed": "#b565a2", "lytic": "#d4661a"}
"""On a terminal, which may be black or white: contrast of at least 3 with both, as WCAG 2 asks of graphics."""
STATES: dict[State, str] = {State.SCREENED: "#2a9153", State.EXCLUDED: "#a87f00", State.FAILED: "#d9534f"}
"""On a terminal."""
WARNING = STATES[State.EXCLUDED]
"""On a terminal."""

INK, FAINT, BLUE = "#1d2733", "#9aa5b1", "#1f5f8b"
"""Text, thin lines and the only curve of a diagram, on a white page."""
CURVES = (BLUE, "#d1783c", "#5c8a3a", "#8c5a9e", "#b0413e", "#7a7a7a", "#3aa6a0")
"""The curves of a diagram, used in turn, on a white page."""
DARK_PAGE = ("#0b0e12", "#12171d", "#eef2f5", "#8b97a3", "#2b343d")
"""A dark page: background, panels, text, quiet text, thin lines."""

LETTERS: dict[str, str] = {"normal": "N", "blastic": "B", "mixed": "M", "lytic": "L"}
SHADES: dict[str, str] = {"normal": "░", "blastic": "█", "mixed": "▓", "lytic": "▒"}
"""Bars of these can be read without colour, in a file or a log."""
POSTEROLATERAL_MARKS: dict[str, str] = {"none": "", "unilateral": "◐", "bilateral": "●"}

LOW_CONFIDENCE = 0.5
"""A call or a level name less probable than this gets a question mark."""
QUESTION = "? not certain: below 0.5, unsure, or not the only plausible class"
"""What the question mark of a call means."""


def axis_top(highs: Iterable[float]) -> float:
    """The round proportion at which an axis ends so that it just holds `highs`; NaN is ignored."""
    highest = max((high for high in highs if not math.isnan(high)), default=0.0)
    return next((limit for limit in (0.1, 0.2, 0.4, 0.6, 0.8) if limit >= highest), 1.0)


def unsure(probability: float) -> str:
    """A question mark for a call or a level name that is hardly more likely than not, else nothing."""
    return "?" if probability < LOW_CONFIDENCE else ""


def doubtful(label: str, probability: float, plausible: Collection[str] | None) -> str:
    """A question mark for a call of the class `label` that `unsure` marks, or that is not the only plausible class.

    plausible: the classes that the model cannot rule out, None if it does not say.
    """
    return "?" if plausible is not None and set(plausible) != {label} else unsure(probability)


def question(call: VertebraCall, task: str) -> str:
    """A question mark if the vertebra is unsure or its call of `task` is `doubtful`, else nothing."""
    label = call.label(task)
    if label is None:
        return ""
    return "?" if call.doubt else doubtful(label, call.probabilities[task][label], call.plausible.get(task))


def bone_quality(call: VertebraCall | None) -> tuple[str, float] | None:
    """The most probable bone quality of `call` and its probability; None without a call for this task."""
    label = call and call.label("bone_quality")
    return (label, call.probabilities["bone_quality"][label]) if call and label else None


def as_png(figure: Figure) -> bytes:
    """The picture of `figure`."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def remove_frame(axes: Axes, label_size: float, grid: Literal["both", "x"] = "both") -> None:
    """Remove all of a diagram's frame but the labels, and add a faint grid."""
    axes.tick_params(labelsize=label_size, length=0)
    axes.grid(axis=grid, color="#e3e8ee", lw=0.7)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
