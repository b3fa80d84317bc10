"""Difficult phantoms for the localizer's benchmark.

Thick slices, noise, contrast, dark bone, bent or turned spines, screws, destroyed, collapsed and fused levels; patients
with an unusual number of vertebrae or ribs; and necks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from spinemet.phantom.body.anatomy import MOBILE, Degeneration, PatientAnatomy, Pose, Variant, draw_anatomy, place_spine
from spinemet.phantom.body.head import Head, place_head
from spinemet.phantom.body.skeleton import has_ribs
from spinemet.phantom.body.tissue import Contrast
from spinemet.phantom.body.vertebra import BoneChange
from spinemet.phantom.disease.lesions import draw_diseases
from spinemet.phantom.disease.mimics import draw_mimics
from spinemet.phantom.scan import PhantomScan, ScanSettings, field_of_view, render
from spinemet.spine.sampling import in_view
from spinemet.types import Volume
from tests.spine.volumes import turned

CONDITIONS = ("usual", "noisy", "porotic", "scoliosis", "turned", "diffuse", "metal", "contrast", "collapsed")
REGIONS = ("lumbosacral", "thoracic", "thoracolumbar", "whole", "lumbosacral")
SPACINGS_MM = (2.0, 3.0, 1.0, 5.0, 2.5, 1.5, 4.0, 0.75)
VARIANTS: tuple[Variant, ...] = get_args(Variant)[1:]
NECKS = ("usual", "noisy", "turned", "contrast", "usual", "porotic", "usual", "noisy")
LONE_NECKS = 2
"""How many of NECKS, at its end, show only C3 to C6."""
VARIANT_REGIONS = ("whole", "thoracolumbar", "lumbosacral", "thoracic")


@dataclass(frozen=True)
class Truth:
    """One vertebra. level: empty if unknown. visible: share of its body's height in view."""

    level: str
    center_mm: tuple[float, float, float]
    visible: float = 1.0


@dataclass(frozen=True, eq=False)
class Case:
    """A volume and its truth. anchors: those in view of `skull base`, `sacrum`, `last rib`, `first rib`."""

    volume: Volume
    truth: Sequence[Truth]
    anchors: tuple[str, ...] = ()
    variant: Variant = "usual"


def condition_of(number: int) -> str:
    """The condition of phantom `number`."""
    return CONDITIONS[number % len(CONDITIONS)]


def phantom(number: int) -> Case:
    """Phantom `number`, with the usual number of vertebrae and ribs."""
    spacing = SPACINGS_MM[(number // len(CONDITIONS) + number) % len(SPACINGS_MM)]
    return _phantom([404, number], condition_of(number), REGIONS[number % len(REGIONS)], spacing)


def variant_phantom(number: int) -> Case:
    """Phantom `number` of those with an unusual number of vertebrae or ribs."""
    variant, region = VARIANTS[number % len(VARIANTS)], VARIANT_REGIONS[number // len(VARIANTS) % len(VARIANT_REGIONS)]
    return _phantom([405, number], "usual", region, (2.0, 3.0, 2.5)[number % 3], variant)


def neck_phantom(number: int) -> Case:
    """Neck `number` of NECKS: from the skull to between C7 and T2, or C3 to C6 alone."""
    lone = number >= len(NECKS) - LONE_NECKS
    spacing = (2.0, 3.0, 1.5, 2.5, 1.0, 2.0)[number % 6]
    return _phantom([406, number], NECKS[number], "C3 to C6" if lone else "neck", spacing)


def _phantom(seed: list[int], condition: str, region: str, spacing: float, variant: Variant = "usual") -> Case:
    rng = np.random.default_rng(seed)
    if region == "whole":  # a long spine in thin slices takes a minute to draw
        spacing = max(spacing, 2.0)
    patient = replace(_patient(rng, condition), variant=variant)
    poses = place_spine(patient)
    usual = str(rng.choice(["lytic", "blastic", "mixed"]))
    diseases = draw_diseases(rng, MOBILE, 1, condition == "diffuse" or seed[1] % 3 == 0, usual)
    mimics = draw_mimics(rng, patient, MOBILE)
    changes: dict[str, list[BoneChange]] = {}
    for pose in poses:
        disease = diseases.get(pose.level)
        lesion = disease.lesion(0, pose) if disease else None
        changes[pose.level] = [*mimics.get(pose.level, ()), *([lesion] if lesion else [])]
    head = place_head(patient, poses)
    drawn = render(patient, _settings(rng, poses, head, condition, region, spacing), changes)
    volume = drawn.volume
    truth = [Truth(v.level, v.center_mm, v.visible) for v in drawn.vertebrae]
    anchors = anchors_in_view(patient, drawn, head)
    whole = {v.level for v in drawn.vertebrae if v.visible > 0.9}
    if condition == "metal":
        _add_screws(volume, [v for v in poses if v.level in whole][1:4], rng)
    if condition == "turned":
        degrees = [float(rng.uniform(-limit, limit)) for limit in (8.0, 10.0, 20.0)]
        volume, rotation, center = turned(volume, (degrees[0], degrees[1], degrees[2]))
        truth = [replace(t, center_mm=tuple((np.array(t.center_mm) - center) @ rotation.T + center)) for t in truth]
    return Case(volume, truth, anchors, variant)


def _patient(rng: np.random.Generator, condition: str) -> PatientAnatomy:
    patient = draw_anatomy(rng)
    if condition == "scoliosis":
        patient = replace(patient, scoliosis_deg=float(rng.uniform(10, 18)))
    if condition == "porotic":
        patient = replace(patient, trabecular_hu=float(rng.uniform(30, 60)))
    if condition == "collapsed":
        levels = rng.choice(MOBILE[6:-1], 4, replace=False)
        fused = {str(level): Degeneration(float(rng.uniform(0.15, 0.4)), fused=True) for level in levels[:2]}
        collapsed = {str(level): float(rng.uniform(0.45, 0.7)) for level in levels[2:]}
        patient = replace(patient, discs={**patient.discs, **fused}, collapsed=collapsed)
    return patient


def _settings(
    rng: np.random.Generator, poses: Sequence[Pose], head: Head, condition: str, region: str, spacing: float
) -> ScanSettings:
    cut = float(rng.uniform(-0.6, 0.9)), float(rng.uniform(-0.4, 0.7))
    height = {pose.level: float(pose.center[2]) for pose in poses}
    if region == "neck":
        low, high = np.interp(cut[1], (-0.4, 0.7), (height["T2"], height["C7"])), head.foramen_mm[2] + 55 + 40 * cut[0]
    elif region == "C3 to C6":
        low, high = height["C6"] - 8 - 3 * cut[1], height["C3"] + 7 + 3 * cut[0]
    else:
        low, high = field_of_view(poses, region, cut)
    middle = np.mean([pose.center for pose in poses if low <= pose.center[2] <= high], axis=0)
    contrast = Contrast(aorta=180.0, vein=170.0, kidney=200.0, liver=115.0) if condition == "contrast" else Contrast()
    return ScanSettings(
        center_mm=(float(middle[0]), float(middle[1]) + float(rng.uniform(-20, 15)), (low + high) / 2),
        shape=(round((high - low) / spacing), 192, 192),
        spacing=(spacing, 1.1, 1.1),
        thickness=spacing,
        noise_hu=float(rng.uniform(45, 70) if condition == "noisy" else rng.uniform(9, 30)),
        noise_seed=int(rng.integers(2**31)),
        contrast=contrast,
    )


def anchors_in_view(patient: PatientAnatomy, drawn: PhantomScan, head: Head) -> tuple[str, ...]:
    """The anchors in view.

    The sacrum counts if the middle of its first body is in view, a border of the ribs if both its vertebrae are whole,
    the skull base if 2 cm of brain above it are.
    """
    found = ["sacrum"] if in_view(drawn.volume, drawn.sacrum_mm) else []
    found += ["skull base"] if in_view(drawn.volume, head.to_lps(0, 0, 20)) else []
    for above, below in zip(drawn.vertebrae[:-1], drawn.vertebrae[1:], strict=True):
        first, second = has_ribs(patient, above.level), has_ribs(patient, below.level)
        if first != second and min(above.visible, below.visible) > 0.9:
            found.append("last rib" if first else "first rib")
    return tuple(found)


def _add_screws(volume: Volume, poses: Sequence[Pose], rng: np.random.Generator) -> None:
    """Add pedicle screws on both sides, 5 mm thick, with streaks from side to side in the rows that they cross."""
    hu = volume.hu_DHW
    across = np.array(np.meshgrid(*[(-2.0, -0.7, 0.7, 2.0)] * 2)).reshape(2, -1).T
    index = []
    for pose in poses:
        size = pose.size
        for side in (-1.0, 1.0):
            start = pose.to_lps(side * (size.canal_width + size.pedicle_width) / 2, size.depth * 0.5 + 22, 2)
            end = pose.to_lps(side * size.width * 0.2, -size.depth * 0.15, 1)
            line = start + np.linspace(0, 1, 120)[:, None] * (end - start)
            index.append(volume.to_index(line[:, None] + across @ pose.axes[[0, 2]]).reshape(-1, 3))
    screws = np.round(np.concatenate(index)).astype(int)
    screws = screws[((screws >= 0) & (screws < hu.shape)).all(axis=1)]
    for d, h in np.unique(screws[:, :2], axis=0):
        hu[d, h] = np.clip(hu[d, h] + rng.normal(-40, 80), -1024, 3071).astype(np.int16)
    hu[tuple(screws.T)] = 3071
