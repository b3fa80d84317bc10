"""Metastases: their parts, how they change a vertebra's bone, and how they evolve between studies.

A lesion is a few foci in the vertebra's own coordinates (x left, y posterior, z superior, mm from the body's
centre). Lytic foci replace bone, cortex included, by soft tissue with a ragged edge; blastic foci are dense and fuzzy;
a mixed lesion has both. The geometry depends on the lesion's seed only, so a lesion keeps its place while it grows
and changes its kind from study to study.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from spinemet.phantom.body.anatomy import Pose
from spinemet.phantom.body.vertebra import BonePatch, canal_middle
from spinemet.phantom.shapes import Float, blend, cover, vec3
from spinemet.types import Vec3

CONTRAST_HU = {"lytic": 40.0, "blastic": 150.0}
"""A focus differs from the bone about it by at least so much: otherwise only its walls could be seen."""
LEAST_HU = 5.0
"""No lytic focus is darker, however dark the bone."""


@dataclass(frozen=True)
class Focus:
    """One patch of disease. kind: lytic, blastic. ragged: deviation of its edge in mm; fuzz: mm over which it fades."""

    kind: str
    center_mm: Vec3
    radii_mm: Vec3
    hu: float
    ragged: float
    fuzz: float
    seed: int


@dataclass(frozen=True)
class Lesion:
    """The disease of one vertebra in one study, with its true labels. side: left, right or empty."""

    bone_quality: str
    posterolateral: str
    side: str
    foci: tuple[Focus, ...]

    def __call__(self, patch: BonePatch) -> None:
        """Apply the lesion to the bone of `patch`."""
        for focus in sorted(self.foci, key=lambda focus: focus.kind):
            (_destroy if focus.kind == "lytic" else _sclerose)(patch, focus)

    def against(self, bone_hu: float) -> "Lesion":
        """The lesion in cancellous bone of `bone_hu`, from which each of its foci differs by CONTRAST_HU at least."""
        most, least = max(bone_hu - CONTRAST_HU["lytic"], LEAST_HU), bone_hu + CONTRAST_HU["blastic"]
        hu = [min(focus.hu, most) if focus.kind == "lytic" else max(focus.hu, least) for focus in self.foci]
        return replace(self, foci=tuple(replace(focus, hu=one) for focus, one in zip(self.foci, hu, strict=True)))


@dataclass(frozen=True)
class Disease:
    """One vertebra's disease over the studies of a patient.

    stages: per study (bone quality, posterolateral, extent); extent is 0.2 (8 mm) to 1 (the whole body).
    """

    stages: tuple[tuple[str, str, float], ...]
    side: str
    seed: int

    def lesion(self, study: int, pose: Pose) -> Lesion | None:
        """The lesion at `study`, None while the vertebra is still healthy."""
        quality, posterolateral, extent = self.stages[study]
        if quality == "normal":
            return None
        side = self.side if posterolateral == "unilateral" else ""
        return build_lesion(pose, quality, posterolateral, self.side, extent, self.seed, labelled_side=side)


def waves(seed: int, x: Float, y: Float, z: Float, shortest: float = 4.0, longest: float = 11.0) -> Float:
    """Smooth noise of deviation 1 at the given points: a sum of plane waves, the same on every voxel grid."""
    rng = np.random.default_rng(seed)
    count = 12
    directions = rng.standard_normal((count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    lengths = rng.uniform(shortest, longest, count)
    phases = rng.uniform(0, 2 * np.pi, count)
    total = np.zeros_like(x)
    for direction, length, phase in zip(directions * 2 * np.pi, lengths, phases, strict=True):
        u, v, w = (direction / length).astype(np.float32)
        total += np.sin(u * x + v * y + w * z + np.float32(phase))
    return total * np.float32(np.sqrt(2 / count))


def ellipsoid(patch: BonePatch, center: npt.ArrayLike, radii: npt.ArrayLike) -> Float:
    """Signed distance to an ellipsoid in the vertebra's own coordinates."""
    middle, radius = np.asarray(center, np.float32), np.asarray(radii, np.float32)
    a, b, c = ((axis - middle[n]) / radius[n] for n, axis in enumerate((patch.x, patch.y, patch.z)))
    return (np.sqrt(a * a + b * b + c * c) - 1) * radius.min()


def focus_distance(patch: BonePatch, focus: Focus) -> Float:
    """Signed distance to the ragged edge of `focus`."""
    distance = ellipsoid(patch, focus.center_mm, focus.radii_mm)
    near = distance < 3 * focus.ragged + focus.fuzz
    edge = waves(focus.seed, patch.x[near], patch.y[near], patch.z[near])
    distance[near] += np.float32(focus.ragged) * edge
    return distance


def _destroy(patch: BonePatch, focus: Focus) -> None:
    distance = focus_distance(patch, focus)
    blend(patch.hu, focus.hu + patch.texture * np.float32(6), cover(distance, focus.fuzz))
    # Where the cortex is gone, the mass bulges a little into the tissue beside it.
    bulge = np.maximum(distance, patch.bone - 2.5)
    np.minimum(patch.bone, bulge, out=patch.bone)


def _sclerose(patch: BonePatch, focus: Focus) -> None:
    share = cover(focus_distance(patch, focus), focus.fuzz)
    near = share > 0
    cloudy = np.float32(0.1) * waves(focus.seed + 1, patch.x[near], patch.y[near], patch.z[near], 5.0, 16.0)
    dense = patch.hu.copy()
    dense[near] = np.maximum(focus.hu * (1 + cloudy + np.float32(0.1) * patch.texture[near]), patch.hu[near])
    blend(patch.hu, dense, share)


def build_lesion(
    pose: Pose, bone_quality: str, posterolateral: str, side: str, extent: float, seed: int, *, labelled_side: str = ""
) -> Lesion:
    """The lesion with these labels in the vertebra at `pose`; most of it lies on `side` (left, right)."""
    rng = np.random.default_rng(seed)
    toward = 1.0 if side == "left" else -1.0
    places = [_in_body(rng, pose, toward if posterolateral != "none" or n else 0.0, extent) for n in range(3)]
    kinds = ("lytic", "blastic", "blastic") if bone_quality == "mixed" else (bone_quality,) * 3
    # Whole-body disease is one focus; smaller ones come as one to three. A mixed lesion needs both its kinds.
    count = 2 if bone_quality == "mixed" else 1
    count += int(rng.random() < 0.45) if extent < 0.8 else 0
    hu = {"lytic": float(rng.uniform(22, 62)), "blastic": float(rng.uniform(430, 950))}
    foci = [
        _focus(kind, center, radii, hu[kind], int(rng.integers(2**31)))
        for kind, (center, radii) in list(zip(kinds, places, strict=True))[:count]
    ]
    if bone_quality == "mixed":
        foci[:2] = _side_by_side(foci[0], foci[1], pose, extent, rng)
    sides = {"none": (), "unilateral": (toward,), "bilateral": (-1.0, 1.0)}[posterolateral]
    for where in sides:
        for center, radii in _behind(rng, pose, where):
            kind = kinds[int(bone_quality == "mixed" and rng.random() < 0.5)]
            foci.append(_focus(kind, center, radii, hu[kind], int(rng.integers(2**31))))
    return Lesion(bone_quality, posterolateral, labelled_side, tuple(foci))


def _focus(kind: str, center: Vec3, radii: Vec3, hu: float, seed: int) -> Focus:
    ragged, fuzz = (1.6, 1.6) if kind == "lytic" else (2.0, min(5.5, 0.6 * min(radii)))
    return Focus(kind, center, radii, hu, min(ragged, 0.2 * min(radii)), fuzz, seed)


def _in_body(rng: np.random.Generator, pose: Pose, toward: float, extent: float) -> tuple[Vec3, Vec3]:
    """A position in the body and radii: 4 mm at extent 0.2, beyond the walls at extent 1."""
    size = pose.size
    half = np.array([size.width, size.depth, size.height]) / 2
    room = max(1 - extent, 0.05)
    spread = rng.uniform(-0.75, 0.75, 3) * room
    if toward:
        spread[0] = toward * abs(spread[0]) + toward * 0.12 * room
        spread[1] = abs(spread[1]) * 0.6
    shape = rng.uniform(0.85, 1.15, 3)
    radii = np.maximum(half * extent * 1.12 * shape, 4.0)
    radii = np.minimum(radii, radii.min() * 2.0)
    return vec3(half * spread), vec3(radii)


def _side_by_side(lytic: Focus, blastic: Focus, pose: Pose, extent: float, rng: np.random.Generator) -> list[Focus]:
    """The two foci of a mixed lesion, both visible: beside each other, or a dense rim around a hole."""
    half = np.array([pose.size.width, pose.size.depth, pose.size.height]) / 2
    middle = np.array(lytic.center_mm) * 0.6
    radius = np.maximum(half * np.clip(extent, 0.35, 0.9) * 0.72, 4.5)
    if rng.random() < 0.35:
        hole, rim = middle, middle
        hole_radii, rim_radii = radius * 0.72, radius * 1.3
    else:
        angle = rng.uniform(0, 2 * np.pi)
        step = np.array([np.cos(angle), np.sin(angle), rng.uniform(-0.4, 0.4)]) * radius * 0.85
        hole, rim = middle + step, middle - step
        hole_radii = rim_radii = radius
    return [
        _focus("lytic", vec3(hole), vec3(hole_radii), lytic.hu, lytic.seed),
        _focus("blastic", vec3(rim), vec3(rim_radii), blastic.hu, blastic.seed),
    ]


def _behind(rng: np.random.Generator, pose: Pose, where: float) -> list[tuple[Vec3, Vec3]]:
    """Foci in the posterior elements of one side: always in the pedicle, often also in lamina and facet."""
    size, mid = pose.size, canal_middle(pose)
    root = where * (size.canal_width / 2 + size.pedicle_width / 2)
    pedicle = np.array([root, size.depth * 0.42 + 1.5, 0.18 * size.height])
    grow = rng.uniform(0.9, 1.25)
    radii = np.array([size.pedicle_width / 2 + 3, size.canal_depth * 0.62, size.pedicle_height / 2 + 1.5]) * grow
    foci = [(vec3(pedicle), vec3(radii))]
    if rng.random() < 0.65:
        lamina = np.array([where * (size.canal_width / 2 + 2.5), mid + 0.35 * size.canal_depth, -0.05 * size.height])
        foci.append((vec3(lamina), vec3(np.array([8.0, 7.0, 0.45 * size.height]) * rng.uniform(0.85, 1.15))))
    return foci


def draw_diseases(
    rng: np.random.Generator, levels: tuple[str, ...], studies: int, metastatic: bool, usual: str
) -> dict[str, Disease]:
    """Metastases of one patient over `studies` studies, most of them of the `usual` kind; none unless `metastatic`.

    With half of the patients metastatic, two thirds of all vertebrae are normal and each lesion class has over 8 %.
    """
    if not metastatic:
        return {}
    burden = rng.uniform(0.45, 1.0)
    responds = rng.random() < 0.4
    diseases = {}
    for level in levels:
        if rng.random() >= burden:
            continue
        quality = usual if rng.random() < 0.6 else str(rng.choice(["lytic", "blastic", "mixed"]))
        posterolateral = str(rng.choice(["none", "unilateral", "bilateral"], p=[0.45, 0.33, 0.22]))
        extent = float(rng.choice([0.28, 0.45, 0.65, 1.0], p=[0.14, 0.3, 0.32, 0.24]) * rng.uniform(0.88, 1.0))
        onset = int(rng.integers(1, 3)) if rng.random() < 0.15 else 0
        stages = _stages(quality, posterolateral, extent, onset, studies, responds)
        diseases[level] = Disease(stages, str(rng.choice(["left", "right"])), int(rng.integers(2**31)))
    return diseases


def _stages(
    quality: str, posterolateral: str, extent: float, onset: int, studies: int, responds: bool
) -> tuple[tuple[str, str, float], ...]:
    """Growth without therapy; with it, lytic bone fills in: lytic to mixed to blastic."""
    stages = []
    for study in range(studies):
        age = study - onset
        if age < 0:
            stages.append(("normal", "none", 0.0))
            continue
        if age and responds:
            quality = {"lytic": "mixed", "mixed": "blastic", "blastic": "blastic"}[quality]
        elif age:
            extent = min(extent * 1.35, 1.0)
            posterolateral = {"none": "none", "unilateral": "bilateral", "bilateral": "bilateral"}[posterolateral]
        stages.append((quality, posterolateral, extent))
    return tuple(stages)
