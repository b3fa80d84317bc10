"""Vertebrae from a label map: separates each body from its arch, measures it, and finds the canal behind it.

This file works on voxel centres in LPS millimetres, so the grid's axis order and handedness do not matter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from spinemet.anatomy import LEVELS, spacing_ratios
from spinemet.errors import Reason, StudyExcluded, StudyFailed
from spinemet.spine.canal import build_curve, frame_from, position_on, unit
from spinemet.spine.measures import measured_vertebra
from spinemet.types import (
    Array,
    BoolArray,
    Completeness,
    Flag,
    LabelMap,
    Method,
    Spine,
    SpineCurve,
    Vec3,
    Vertebra,
    Volume,
)

_LEAST_ML = 1.0
"""Smaller labels are fragments; the smallest cervical body has 4 ml."""
_FINEST_MM = 1.2
"""Finer label maps are thinned: a body has thousands of voxels, which place it to better than half a voxel."""
_CORE_DEPTH = 0.55
"""A voxel belongs to the body's core if it lies at least this share of the deepest voxel's depth inside the mask.
Pedicles and processes are thinner (TotalSegmentator's and TPTBox's examples, at 3 and 1.5 mm)."""
_LEAST_DEPTH = 0.55
"""A label whose deepest voxel is less than this share as deep as its neighbours' holds only processes, no body."""
_CANAL_HALF_MM = 8.0
"""From the posterior wall to the middle of the canal, if the labels have no arch (adults: 7 to 11)."""
_CANAL_MM = (9.0, 32.0)
"""Believable distances from the posterior wall to the arch."""
_SPACING = (0.45, 1.6)
"""Ratios of distance (anatomy.spacing_ratios) from a small child to a tall adult; beyond them the names are wrong."""
_ONE_STEP = (0.58, 1.6)
"""The same for one step over the median of the spine. A skipped name gives 0.5, a vertebra without a label 2; half of a
body's height lost in a collapse 0.7. Judged with _LEAST_STEPS or more."""
_LEAST_STEPS = 3
LEVEL_CONFIDENCE = 0.7
"""Of a name that nothing but the labels says; localize.py changes it by what the CT shows."""
_LEAST_SHARE = 0.25
"""A vertebra cut by the volume's border is listed if at least this share of its usual height is in view."""


@dataclass(frozen=True, eq=False)
class _Label:
    """The voxels of one labelled vertebra, before its body is measured.

    points_mm: (n, 3) voxel centres of the whole label. core_mm: (3,) centre of the body's core. beside_mm: how far the
    core reaches to the right (negative) and left of its centre; the transverse processes reach farther. voxel_mm:
    (3, 3), rows are the LPS steps between neighbouring voxels.
    """

    level: str
    points_mm: Array
    core_mm: Array
    beside_mm: Array
    voxel_mm: Array

    def voxel_along(self, axes: Array) -> Array:
        """The extent of one voxel along each of `axes`, in mm."""
        return np.linalg.norm(axes @ self.voxel_mm.T, axis=1)


@dataclass(frozen=True, eq=False)
class _Body:
    """One measured body. half_mm: half width, depth and height along `axes`. canal: the canal's middle behind it."""

    level: str
    center: Array
    axes: Array
    half_mm: Vec3
    canal: Array


def spine_from_labels(volume: Volume, labels: LabelMap) -> Spine:
    """The labelled vertebrae, cranial to caudal, named as labelled, with the canal curve behind their bodies.

    The labels may hold whole vertebrae or bodies alone. A vertebra is left out if less than a quarter of its
    neighbours' height is in view. Raises StudyExcluded(NO_SPINE) if no label is large enough, StudyFailed
    (BAD_SEGMENTATION) if the order of the levels differs from the order of their places, or if the distances between
    the bodies are not those of their levels.
    """
    found = _vertebra_labels(labels)
    if not found:
        raise StudyExcluded(Reason.NO_SPINE, f"no vertebra in the labels has {_LEAST_ML:g} ml or more.")
    centers = np.array([label.core_mm for label in found])
    if np.any(np.diff(centers[:, 2]) > 0):
        raise StudyFailed(Reason.BAD_SEGMENTATION, "the vertebra labels are not in order from cranial to caudal.")
    rough = _measured(found, centers)
    # Again, because a body is measured across the chain, and the chain's direction comes from the bodies' centres.
    bodies = _measured(found, np.array([body.center for body in rough]))
    canal = np.array([body.canal for body in bodies])
    if len(canal) == 1:
        canal = canal + np.outer((5.0, -5.0), bodies[0].axes[2])
    curve = build_curve(canal)
    vertebrae = _vertebrae(volume, bodies, curve)
    _check_spacing(vertebrae)
    more = any(vertebra.level in ("T13", "L6") for vertebra in vertebrae)
    return Spine(vertebrae, curve, Method.MASKS, (Flag.TRANSITIONAL,) if more else ())


def _check_spacing(vertebrae: tuple[Vertebra, ...]) -> None:
    whole = [vertebra for vertebra in vertebrae if vertebra.completeness is Completeness.WHOLE]
    levels, centers = [vertebra.level for vertebra in whole], [vertebra.center_mm for vertebra in whole]
    steps = spacing_ratios(levels, centers, together=1)
    relative = [step / float(np.median(steps)) for step in steps] if len(steps) >= _LEAST_STEPS else []
    for ratios, (least, most) in ((spacing_ratios(levels, centers), _SPACING), (relative, _ONE_STEP)):
        if any(not least <= ratio <= most for ratio in ratios):
            detail = "the vertebra labels lie at distances that do not fit their levels."
            raise StudyFailed(Reason.BAD_SEGMENTATION, detail)


def _vertebrae(volume: Volume, bodies: list[_Body], curve: SpineCurve) -> tuple[Vertebra, ...]:
    canal_mm = position_on(curve, [body.center for body in bodies]).tolist()
    measured = [
        measured_vertebra(
            *(volume, body.level, body.center, body.axes, body.half_mm),
            level_confidence=LEVEL_CONFIDENCE,
            canal_mm=at,
            confidence=1.0,
        )
        for body, at in zip(bodies, canal_mm, strict=True)
    ]
    vertebrae = []
    for n, vertebra in enumerate(measured):
        nearest_first = np.argsort(np.abs(np.arange(len(measured)) - n))
        whole = [measured[m].height_mm for m in nearest_first if measured[m].completeness is Completeness.WHOLE][:3]
        least = _LEAST_SHARE * float(np.mean(whole)) if whole else 0.0
        if vertebra.completeness is Completeness.WHOLE or vertebra.height_mm >= least:
            vertebrae.append(vertebra)
    return tuple(vertebrae)


# ---- from labels to body voxels ------------------------------------------------------------------------------


def _vertebra_labels(labels: LabelMap) -> list[_Label]:
    """The labels that hold a vertebral body, in the order of LEVELS."""
    spacing = np.linalg.norm(labels.affine[:3, :3], axis=0)
    stride = np.maximum(1, np.floor(_FINEST_MM / spacing + 1e-6)).astype(int)
    thinned = labels.labels_DHW[tuple(slice(None, None, s) for s in stride)]
    affine = labels.affine.copy()
    affine[:3, :3] *= stride
    found: list[_Label] = []
    depths: list[float] = []
    for number, box in enumerate(ndimage.find_objects(thinned), start=1):
        if box is None or number > len(LEVELS):
            continue
        start = np.array([side.start for side in box])
        mask = _largest(thinned[box] == number)
        if mask.sum() * np.prod(spacing * stride) < _LEAST_ML * 1000:
            continue
        depth = _depth(mask, box, thinned.shape, spacing * stride)
        core = mask if labels.bodies_only else _core(mask, depth, spacing * stride)
        points = (np.argwhere(mask) + start) @ affine[:3, :3].T + affine[:3, 3]
        in_core = core[mask]
        center = points[in_core].mean(0)
        beside = np.percentile(points[in_core][:, 0] - center[0], (2, 98))
        found.append(_Label(LEVELS[number - 1], points, center, beside, affine[:3, :3].T))
        depths.append(float(depth.max()))
    near = [max(depths[max(n - 1, 0) : n + 2]) for n in range(len(found))]
    return [label for label, own, best in zip(found, depths, near, strict=True) if own > _LEAST_DEPTH * best]


def _largest(mask: BoolArray) -> BoolArray:
    parts, _ = ndimage.label(mask)
    return parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))


def _depth(mask: BoolArray, box: tuple[slice, ...], shape: tuple[int, ...], spacing: Array) -> Array:
    """How deep each voxel lies inside `mask`, in mm. The grid's border is not a surface: the body continues there."""
    pads = [(int(side.start > 0), int(side.stop < size)) for side, size in zip(box, shape, strict=True)]
    depth = ndimage.distance_transform_edt(np.pad(mask, pads), sampling=spacing)
    return depth[tuple(slice(a, a + n) for (a, _), n in zip(pads, mask.shape, strict=True))]


def _core(mask: BoolArray, depth: Array, spacing: Array) -> BoolArray:
    """The body within a whole vertebra's mask: the mask opened by a ball that fits only into the body."""
    radius = _CORE_DEPTH * depth.max()
    seed = _largest(depth >= radius)
    return mask & (ndimage.distance_transform_edt(~seed, sampling=spacing) <= radius)


# ---- measuring -----------------------------------------------------------------------------------------------


def _measured(labels: list[_Label], centers: Array) -> list[_Body]:
    """The body of each label, measured about `centers` (n, 3) across the chain that they make."""
    superior = unit(-np.gradient(centers, axis=0)) if len(centers) > 1 else np.array([[0.0, 0.0, 1.0]])
    return [_measure(*one) for one in zip(labels, centers, frame_from(superior), strict=True)]


def _measure(label: _Label, about: Array, axes: Array) -> _Body:
    """The body of `label`, measured about the point `about` in the frame `axes`."""
    axes = _turned(label, about, axes)
    wall, canal = _walls(label, about, axes)
    local = (label.points_mm - about) @ axes.T
    beside = (local[:, 0] > label.beside_mm[0] - 2) & (local[:, 0] < label.beside_mm[1] + 2)
    body = label.points_mm[(local[:, 1] <= wall) & beside]
    center = body.mean(0)
    level, height = _endplates(label, body - center, axes)
    # Half from the endplates, half from the chain of bodies: in 5 mm slices endplates alone err by up to 13 degrees.
    axes = frame_from(level[2] + axes[2], axes[0])
    low, high = np.percentile((body - center) @ axes.T, (2, 98), axis=0)
    width, depth = (high - low + label.voxel_along(axes))[:2] / 2
    behind = (about + canal * axes[1] - center) @ axes[1]
    return _Body(label.level, center, axes, (float(width), float(depth), height / 2), center + behind * axes[1])


def _turned(label: _Label, about: Array, axes: Array) -> Array:
    """`axes` turned about superior so that posterior points from the body to the arch; unchanged without an arch."""
    local = (label.points_mm - about) @ axes.T
    arch = local[(local[:, 1] > 22) & (np.abs(local[:, 0]) < 25)]
    # Half an arch may be missing or a rib head may be part of the label: no vertebra turns by more than 25 degrees.
    if len(arch) < 0.05 * len(local) or abs(arch[:, 0].mean()) > np.tan(np.deg2rad(25)) * arch[:, 1].mean():
        return axes
    posterior = arch[:, 0].mean() * axes[0] + arch[:, 1].mean() * axes[1]
    return frame_from(axes[2], np.cross(posterior, axes[2]))


def _walls(label: _Label, about: Array, axes: Array) -> tuple[float, float]:
    """How far behind `about` the body ends, and how far the middle of the canal lies.

    Followed along the midline at half height: from the body through the canal into the arch.
    """
    local = (label.points_mm - about) @ axes.T
    near = local[(np.abs(local[:, 0]) < 6) & (np.abs(local[:, 2]) < 6)][:, 1]
    voxel = float(label.voxel_along(axes)[1])
    # A bin holds whole voxels; otherwise neighbouring bins would hold one row of voxels or two.
    step = voxel * max(1.0, np.ceil(1.5 / voxel))
    filled, edges = np.histogram(near, bins=np.arange(-step / 2, 80, step))
    usual = np.median(filled[:4])
    bone = filled > 0.4 * usual
    wall = int(np.argmin(bone)) if not bone.all() else len(bone)
    back = wall + int(np.argmax(filled[wall:] > 0.3 * usual))
    if wall < len(bone) and _CANAL_MM[0] <= edges[back] - edges[wall] <= _CANAL_MM[1]:
        return float(edges[wall]), float(edges[wall] + edges[back]) / 2
    return float(edges[wall]), float(edges[wall]) + _CANAL_HALF_MM


def _endplates(label: _Label, body: Array, axes: Array) -> tuple[Array, float]:
    """`axes` with superior across the surface midway between the endplates, and the median height in mm.

    body: (n, 3) points relative to the body's centre.
    """
    cell = max(3.0, float(label.voxel_along(axes)[:2].max()) * 1.01)
    for _ in range(2):
        local = body @ axes.T
        half = np.percentile(np.abs(local[:, :2]), 95, axis=0)
        inner = local[(np.abs(local[:, :2]) < 0.75 * half).all(1)]
        keys, column = np.unique(np.round(inner[:, :2] / cell), axis=0, return_inverse=True)
        top = np.full(len(keys), -np.inf)
        bottom = np.full(len(keys), np.inf)
        np.maximum.at(top, column, inner[:, 2])
        np.minimum.at(bottom, column, inner[:, 2])
        design = np.column_stack([keys * cell, np.ones(len(keys))])
        slope = np.linalg.lstsq(design, (top + bottom) / 2, rcond=None)[0]
        # More than 20 degrees against the curve is the slope of a broken label, not of an endplate.
        if np.hypot(slope[0], slope[1]) > np.tan(np.deg2rad(20)):
            break
        axes = frame_from(axes[2] - slope[0] * axes[0] - slope[1] * axes[1], axes[0])
    return axes, float(np.median(top - bottom) + label.voxel_along(axes)[2])
