"""Benign changes that look like metastases: osteophytes, sclerotic endplates, bone islands and more."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spinemet.phantom.body.anatomy import PatientAnatomy
from spinemet.phantom.body.vertebra import BonePatch, canal_middle
from spinemet.phantom.disease.lesions import ellipsoid, waves
from spinemet.phantom.shapes import cover


@dataclass(frozen=True)
class Mimic:
    """A benign change of one vertebra. kind: one of MIMICS; all other properties follow from the seed.

    end: +1 upper endplate, -1 lower one (for kinds at an endplate).
    """

    kind: str
    seed: int
    end: int = -1

    def __call__(self, patch: BonePatch) -> None:
        """Change the bone of `patch`."""
        _CHANGES[self.kind](patch, np.random.default_rng(self.seed), self.end)


def _osteophytes(patch: BonePatch, rng: np.random.Generator, end: int) -> None:
    """Beaks on the rim of an endplate, in front and at the sides, bending over the disc."""
    size = patch.pose.size
    for _ in range(int(rng.integers(2, 5))):
        angle = rng.uniform(-1.9, 1.9)
        reach = rng.uniform(1.0, 1.12)
        center = (
            size.width / 2 * reach * np.sin(angle),
            -size.depth / 2 * reach * np.cos(angle),
            end * (size.height / 2 - rng.uniform(-1.5, 1.5)),
        )
        beak = ellipsoid(patch, center, (rng.uniform(3.5, 7), rng.uniform(3.5, 6.5), rng.uniform(2.5, 4.5)))
        fresh = beak < np.minimum(patch.bone, 1.0)
        patch.hu[fresh] = rng.uniform(330, 560) + 40 * patch.texture[fresh]
        np.minimum(patch.bone, beak, out=patch.bone)


def _endplate_sclerosis(patch: BonePatch, rng: np.random.Generator, end: int) -> None:
    """A dense band under one endplate, even and flat, fading towards the middle of the body (Modic 3)."""
    size = patch.pose.size
    depth = rng.uniform(3.0, 6.5)
    under = size.height / 2 - end * patch.z
    band = np.clip(1.25 - under / np.float32(depth), 0, 1)
    side = rng.uniform(-0.25, 0.25) * size.width
    wide = np.exp(
        -(((patch.x - side) / (0.42 * size.width)) ** 2) - ((patch.y + 0.1 * size.depth) / (0.45 * size.depth)) ** 2
    )
    share = (band * wide * cover(patch.body, 1.0)).astype(np.float32)
    patch.hu += share * np.float32(rng.uniform(260, 520))


def _bone_island(patch: BonePatch, rng: np.random.Generator, end: int) -> None:
    """A small, very dense, sharp-edged, slightly spiky spot: 5 to 9 mm across."""
    size = patch.pose.size
    radius = rng.uniform(2.5, 4.5)
    if rng.random() < 0.8:
        half = np.array([size.width, size.depth, size.height]) / 2 - radius - 2.5
        center = rng.uniform(-0.75, 0.75, 3) * half
    else:
        center = np.array(
            [rng.choice([-1, 1]) * (size.canal_width + size.pedicle_width) / 2, canal_middle(patch.pose) - 5, 3]
        )
    distance = ellipsoid(patch, center, radius * rng.uniform(0.85, 1.2, 3))
    near = distance < 4
    distance[near] += 0.5 * waves(int(rng.integers(2**31)), patch.x[near], patch.y[near], patch.z[near], 2.0, 4.0)
    patch.hu += cover(distance, 1.0) * (np.float32(rng.uniform(850, 1200)) - patch.hu)


def _schmorl_node(patch: BonePatch, rng: np.random.Generator, end: int) -> None:
    """Disc pushed through an endplate: a smooth soft pit with a thin dense rim."""
    size = patch.pose.size
    radius, depth = rng.uniform(4, 7), rng.uniform(4, 7.5)
    center = (
        rng.uniform(-0.2, 0.2) * size.width,
        rng.uniform(-0.1, 0.2) * size.depth,
        end * (size.height / 2 + 0.5),
    )
    pit = ellipsoid(patch, center, (radius, radius * rng.uniform(0.85, 1.3), depth))
    inside = cover(patch.body, 1.0)
    rim = np.clip(1.2 - np.abs(pit - 1.2) / 1.1, 0, 1) * inside
    patch.hu += rim * np.maximum(np.float32(rng.uniform(380, 560)) - patch.hu, 0)
    patch.hu += cover(pit, 1.0) * (np.float32(85) - patch.hu)


def _haemangioma(patch: BonePatch, rng: np.random.Generator, end: int) -> None:
    """Thick upright trabeculae with fat between: polka dots on axial slices, corduroy on sagittal ones."""
    size = patch.pose.size
    half = np.array([size.width, size.depth, size.height]) / 2
    extent = rng.uniform(0.5, 0.95)
    center = rng.uniform(-0.6, 0.6, 3) * half * (1 - extent)
    share = cover(ellipsoid(patch, center, half * extent), 1.2) * cover(patch.body + 1.6, 1.0)
    period = 2 * np.pi / rng.uniform(3.6, 4.8)
    bend = 1.5 * waves(int(rng.integers(2**31)), patch.x, patch.y, 0.15 * patch.z, 9, 20)
    # Hexagonal lattice of columns along the vertebra's own axis.
    rows = [
        np.cos(period * (np.cos(t) * patch.x + np.sin(t) * patch.y) + bend) for t in (0.3, 0.3 + 2.094, 0.3 + 4.189)
    ]
    columns = np.clip((sum(rows) - 0.2) / 1.6, 0, 1)
    pattern = np.float32(rng.uniform(-30, 40)) + columns * np.float32(rng.uniform(380, 560))
    patch.hu += share * (pattern.astype(np.float32) - patch.hu)


_CHANGES = {
    "osteophytes": _osteophytes,
    "endplate_sclerosis": _endplate_sclerosis,
    "bone_island": _bone_island,
    "schmorl_node": _schmorl_node,
    "haemangioma": _haemangioma,
}
MIMICS = tuple(_CHANGES)


def draw_mimics(
    rng: np.random.Generator, patient: PatientAnatomy, levels: Sequence[str]
) -> dict[str, tuple[Mimic, ...]]:
    """The benign changes of one patient: beside worn discs osteophytes and sclerosis, elsewhere the rest at random."""
    found: dict[str, list[Mimic]] = {level: [] for level in levels}
    for n, level in enumerate(levels):
        worn = patient.discs[level].height < 0.8
        sclerosis = worn and rng.random() < 0.5
        for neighbour, end in ((level, -1), (levels[n + 1] if n + 1 < len(levels) else None, 1)):
            if neighbour is None:
                continue
            if worn and rng.random() < 0.75:
                found[neighbour].append(Mimic("osteophytes", int(rng.integers(2**31)), end))
            if sclerosis:
                found[neighbour].append(Mimic("endplate_sclerosis", int(rng.integers(2**31)), end))
        for kind, share in (("bone_island", 0.05), ("schmorl_node", 0.05), ("haemangioma", 0.04)):
            if rng.random() < share:
                found[level].append(Mimic(kind, int(rng.integers(2**31)), int(rng.choice([-1, 1]))))
    return {level: tuple(mimics) for level, mimics in found.items() if mimics}
