"""The outcome of reading one study, and the calls that a model makes on its vertebrae."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from spinemet.errors import Explained, Reason
from spinemet.types import Flag, Method, SeriesHeader, SliceStack, Spine, StraightenedViews, Vec3, Vertebra


class Doubt(Explained):
    """Why a call is unsure (model/doubt.py). Models of earlier versions, and those of few patients, never say so."""

    LOW_DENSITY = "low_density", "The bone is less dense than any that the model learned from."
    HIGH_DENSITY = (
        "high_density",
        "The body is denser than any that the model learned from: cement, metal or sclerosis.",
    )
    THIN_BONE = (
        "thin_bone",
        "The bone is thin, and the patient's other vertebrae are no denser: that looks like a lytic lesion.",
    )
    SMOOTH = "smooth", "The image is smoother than those that the model learned from."
    SHARP = "sharp", "The image is sharper or grainier than those that the model learned from."
    NOISY = "noisy", "The image is noisier than those that the model learned from."
    NARROW_VIEW = "narrow_view", "More lies outside the field of view than in the images that the model learned from."
    UNFAMILIAR = "unfamiliar", "The image looks unlike the vertebrae that the model learned from."
    AMBIGUOUS = "ambiguous", "The model cannot tell a normal vertebra from a diseased one here."


@dataclass(frozen=True, eq=False)
class VertebraCall:
    """The model's answer for one vertebra.

    probabilities: task -> class -> probability; a binary task has the classes "no" and "yes". slices_NC: the same per
    slice, task -> (N, C) float32, rows in the order of the SliceStack, columns in the order of the classes. doubt: why
    the call is unsure, None for a sure one. is_judged: False if the model cannot tell sure from unsure calls.
    plausible: task -> the classes that the model cannot rule out (its conformal set); of some tasks, or of none.
    bone_hu: mean HU of the body's core, if the call is judged.
    """

    probabilities: Mapping[str, Mapping[str, float]]
    slices_NC: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    doubt: Doubt | None = None
    is_judged: bool = False
    plausible: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    bone_hu: float | None = None

    def label(self, task: str) -> str | None:
        """The most probable class of `task`; None if the model does not have it."""
        classes = self.probabilities.get(task, {})
        return max(classes, key=lambda name: classes[name], default=None)


class State(StrEnum):
    """The outcome of a study in the ledger."""

    SCREENED = "screened"
    EXCLUDED = "excluded"
    FAILED = "failed"


@dataclass(frozen=True, eq=False, kw_only=True)
class _Reading:
    """The facts that a reading has whether or not the study was screened."""

    series_seen: tuple[tuple[SeriesHeader, Reason | None], ...] = ()
    """Every series with the reason for its rejection, None for the chosen one. Empty for NIfTI, which has no series."""
    flags: tuple[Flag, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Stage of the reading -> its time."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Screened(_Reading):
    """A study whose vertebrae were found and cut into slices: the start of training, screening and `spinemet study`."""

    state: ClassVar[State] = State.SCREENED
    chosen: SeriesHeader
    spacing_mm: Vec3
    """Of the volume, along D, H and W."""
    slice_count: int
    """Of the volume."""
    spine: Spine
    stacks: tuple[SliceStack, ...]
    """One per vertebra of `spine`, in the same order."""
    views: StraightenedViews | None = None
    """None unless they were requested."""

    @property
    def localizer(self) -> Method:
        """The method that found the vertebrae."""
        return self.spine.method

    def with_calls(
        self, calls: Sequence[VertebraCall | None] | None
    ) -> list[tuple[Vertebra, SliceStack, VertebraCall | None]]:
        """Each vertebra with its slices and its call; calls: None without a model."""
        given = [None] * len(self.stacks) if calls is None else calls
        return list(zip(self.spine.vertebrae, self.stacks, given, strict=True))

    def failed(self, reason: Reason, detail: str) -> NotScreened:
        """The same study after a later step failed."""
        names = {one.name for one in fields(NotScreened)} - {"state", "reason", "detail"}
        return NotScreened(State.FAILED, reason, detail, **{name: getattr(self, name) for name in names})


@dataclass(frozen=True, eq=False)
class NotScreened(_Reading):
    """A study without an answer, the reason, and the facts known by then; an unknown fact is None or 0."""

    state: Literal[State.EXCLUDED, State.FAILED]
    reason: Reason
    detail: str = ""
    chosen: SeriesHeader | None = None
    spacing_mm: Vec3 | None = None
    slice_count: int = 0
    localizer: Method | None = None


StudyReading = Screened | NotScreened
"""The outcome of reading one study."""
