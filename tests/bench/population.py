"""Phantoms drawn as a population: usual and unusual counts of vertebrae and ribs, fused bodies, any view of the spine.

They prove the names: how many subjects have every name right. Each subject depends on its number alone.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from spinemet.phantom.body.anatomy import MOBILE, Degeneration, Pose, Variant, draw_anatomy, place_spine
from spinemet.phantom.body.head import Head, place_head
from spinemet.phantom.body.tissue import Contrast
from spinemet.phantom.disease.mimics import draw_mimics
from spinemet.phantom.scan import ScanSettings, render
from tests.bench.localizer_phantoms import Case, Truth, anchors_in_view

VARIANT_SHARES: dict[Variant, float] = {
    "L4": 0.02, "L6": 0.025, "T13": 0.01, "no T12 ribs": 0.02, "lumbar ribs": 0.015, "cervical ribs": 0.01,
}  # fmt: skip
"""Share of each unusual spine. Transitional counts 4 to 8 % (Thawait et al. 2013), other ribs about 1 % each."""
FUSED = 0.05
"""Share of people with one or two bridged discs."""
VIEWS = {
    "neck": (0.08, "skull", ("C7", "T2")),
    "neck and chest": (0.07, "skull", ("T5", "T8")),
    "chest": (0.30, ("C5", "T1"), ("T12", "L3")),
    "abdomen": (0.25, ("T8", "T11"), ("S1", "S3")),
    "trunk": (0.18, ("C5", "T1"), ("S1", "S3")),
    "pelvis": (0.06, ("L2", "L4"), ("S2", "S3")),
    "short": (0.06, None, None),
}
"""Share of each view, and the levels between which its upper and lower border lie."""
SPACINGS_MM = (0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0)
SPACING_SHARES = (0.05, 0.15, 0.15, 0.1, 0.15, 0.15, 0.1, 0.05, 0.1)
_LOW_DENSITY = 0.15
"""Share of people with a trabecular density of 63 to 100 HU, besides those whose age brings it."""


def subject(number: int, variant: Variant | None = None, view: str | None = None) -> tuple[Case, str]:
    """Subject `number` of the population, and the name of its view. variant, view: instead of those drawn."""
    rng = np.random.default_rng([500, number])
    names = ["usual", *VARIANT_SHARES]
    shares = [1 - sum(VARIANT_SHARES.values()), *VARIANT_SHARES.values()]
    drawn: Variant = names[rng.choice(len(names), p=shares)]  # type: ignore[assignment]
    seen = str(rng.choice(list(VIEWS), p=[share for share, _, _ in VIEWS.values()]))
    variant, view = variant or drawn, view or seen
    spacing = float(rng.choice(SPACINGS_MM, p=SPACING_SHARES))
    if view in ("trunk", "neck and chest", "chest"):  # a long spine in thin slices takes a minute to draw
        spacing = max(spacing, 1.5)
    patient = replace(draw_anatomy(rng), variant=variant)
    if rng.random() < _LOW_DENSITY:
        patient = replace(patient, trabecular_hu=float(rng.uniform(63, 100)))
    if rng.random() < FUSED:
        levels = rng.choice(MOBILE[:-1], int(rng.integers(1, 3)), replace=False)
        fused = {str(level): Degeneration(float(rng.uniform(0.15, 0.4)), fused=True) for level in levels}
        patient = replace(patient, discs={**patient.discs, **fused})
    poses = place_spine(patient)
    head = place_head(patient, poses)
    drawn = render(patient, _settings(rng, poses, head, view, spacing), dict(draw_mimics(rng, patient, MOBILE)))
    truth = [Truth(v.level, v.center_mm, v.visible) for v in drawn.vertebrae]
    return Case(drawn.volume, truth, anchors_in_view(patient, drawn, head), variant), view


def _settings(rng: np.random.Generator, poses: tuple[Pose, ...], head: Head, view: str, spacing: float) -> ScanSettings:
    height = {pose.level: float(pose.center[2]) for pose in poses}

    def between(levels: tuple[str, str]) -> float:
        return float(np.interp(rng.random(), (0, 1), [height[level] for level in levels]))

    _, top, bottom = VIEWS[view]
    if view == "short":
        levels = [pose.level for pose in poses if pose.level[0] != "S"]
        first = int(rng.integers(0, len(levels) - 5))
        high, low = between((levels[first], levels[first + 1])), between((levels[first + 4], levels[first + 5]))
    else:
        high = head.foramen_mm[2] + rng.uniform(30, 80) if top == "skull" else between(top)  # type: ignore[arg-type]
        low = between(bottom)  # type: ignore[arg-type]
    middle = np.mean([pose.center for pose in poses if low <= pose.center[2] <= high], axis=0)
    enhanced = rng.random() < 0.4
    return ScanSettings(
        center_mm=(float(middle[0]), float(middle[1]) + float(rng.uniform(-20, 15)), (low + high) / 2),
        shape=(round((high - low) / spacing), 192, 192),
        spacing=(spacing, 1.1, 1.1),
        thickness=spacing,
        noise_hu=float(rng.uniform(9, 45)),
        noise_seed=int(rng.integers(2**31)),
        contrast=Contrast(aorta=180.0, vein=170.0, kidney=200.0, liver=115.0) if enhanced else Contrast(),
    )
