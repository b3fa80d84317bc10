"""Vertebrae from a label map: the body parted from its arch, measured, and the canal behind it.

Coordinates inside this file are LPS millimetres of voxel centres, so the grid's order and handedness do not matter.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from spinemet.anatomy import LEVELS
from spinemet.errors import Reason, StudyExcluded, StudyFailed
from spinemet.spine.canal import build_curve, frame_from, position_on
from spinemet.spine.measures import completeness, trabecular_hu
from spinemet.types import Completeness, Flag, LabelMap, Method, Spine, SpineCurve, Vertebra, Volume

Array = npt.NDArray[np.float64]

_LEAST_ML = 1.0
"""Smaller labels are crumbs; the smallest cervical body has 4 ml."""
_FINEST_MM = 1.2
"""Finer label maps are thinned: bodies are measured to better than half a voxel from thousands of voxels."""
_CORE_DEPTH = 0.55
"""A voxel belongs to the body's core when it is this share of the deepest voxel's depth inside the mask: pedicles and
processes are thinner than that (totalseg and TPTBox examples, 3 and 1.5 mm)."""
_LEAST_DEPTH = 0.55
"""A label whose deepest voxel is shallower than this share of its neighbours' holds processes only, no body."""
_CANAL_HALF_MM = 8.0
"""From the posterior wall to the middle of the canal, where the arch is not in the labels (adult range 7 to 11)."""
_CANAL_MM = (9.0, 32.0)
_LEAST_SHARE = 0.25
"""A vertebra cut by the volume's border is listed when at least this share of its usual height is in view."""


@dataclass(frozen=True, eq=False)
class _Body:
    """One labelled vertebra and what was measured of its body.

    points_mm: voxel centres of the whole label. width_mm: of the body's core, which the transverse processes are not
    part of. voxel_mm: (3, 3), rows are the LPS steps between neighbouring voxels. half_mm: half width, depth, height.
    """

    level: str
    points_mm: Array
    width_mm: Array
    voxel_mm: Array
    center: Array
    axes: Array
    half_mm: tuple[float, float, float]
    canal: Array


def spine_from_labels(volume: Volume, labels: LabelMap) -> Spine:
    """The labelled vertebrae, cranial to caudal, named as labelled, with the canal curve behind their bodies.

    Whole vertebrae and bodies alone both do. A vertebra of which less than a quarter of its neighbours' height
    is in view is left out. Raises StudyExcluded(NO_SPINE) where no label is large enough, StudyFailed(BAD_SEGMENTATION)
    where the labels' order is not the order of their places.
    """
    parts = _split_all(labels)
    if not parts:
        raise StudyExcluded(
            Reason.NO_SPINE, f"expected vertebrae of at least {_LEAST_ML:g} ml in the labels, found none"
        )
    centers = np.array([part.center for part in parts])
    if len(parts) > 1 and np.any(np.diff(centers[:, 2]) > 0):
        raise StudyFailed(
            Reason.BAD_SEGMENTATION, "expected vertebra labels in order from cranial to caudal, found another order"
        )
    for _ in range(2):  # the chain's direction comes from the centres, the centres are measured across it
        tangents = _tangents(np.array([part.center for part in parts]))
        parts = [_measured(part, up) for part, up in zip(parts, tangents, strict=True)]
    curve = _curve(parts)
    vertebrae = _vertebrae(volume, labels, parts, curve)
    more = any(vertebra.level in ("T13", "L6") for vertebra in vertebrae)
    return Spine(vertebrae, curve, Method.MASKS, (Flag.TRANSITIONAL,) if more else ())


def _vertebrae(volume: Volume, labels: LabelMap, parts: list[_Body], curve: SpineCurve) -> tuple[Vertebra, ...]:
    heights = np.array([2 * part.half_mm[2] for part in parts])
    at_border = [completeness(volume, part.center, part.axes, part.half_mm) is Completeness.CUT for part in parts]
    found = []
    for n, part in enumerate(parts):
        whole = [heights[m] for m in np.argsort(np.abs(np.arange(len(parts)) - n)) if not at_border[m]][:3]
        if at_border[n] and whole and heights[n] < _LEAST_SHARE * float(np.mean(whole)):
            continue
        found.append(
            Vertebra(
                level=part.level,
                level_confidence=1.0,
                completeness=Completeness.CUT if at_border[n] else Completeness.WHOLE,
                center_mm=(float(part.center[0]), float(part.center[1]), float(part.center[2])),
                axes=part.axes,
                height_mm=float(heights[n]),
                canal_mm=float(position_on(curve, part.center)[0]),
                confidence=1.0,
                trabecular_hu=trabecular_hu(volume, part.center, part.axes, part.half_mm),
            )
        )
    return tuple(found)


# ---- from labels to body voxels ------------------------------------------------------------------------------


def _split_all(labels: LabelMap) -> list[_Body]:
    spacing = np.linalg.norm(labels.affine[:3, :3], axis=0)
    stride = np.maximum(1, np.floor(_FINEST_MM / spacing + 1e-6)).astype(int)
    thinned = labels.labels_DHW[tuple(slice(None, None, s) for s in stride)]
    affine = labels.affine.copy()
    affine[:3, :3] *= stride
    found: list[_Body] = []
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
        side = np.percentile(points[in_core][:, 0] - center[0], (2, 98))
        found.append(
            _Body(LEVELS[number - 1], points, side, affine[:3, :3].T, center, np.eye(3), (15.0, 12.0, 12.0), center)
        )
        depths.append(float(depth.max()))
    near = [max(depths[max(n - 1, 0) : n + 2]) for n in range(len(found))]
    return [part for part, own, best in zip(found, depths, near, strict=True) if own > _LEAST_DEPTH * best]


def _largest(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    parts, count = ndimage.label(mask)
    if count <= 1:
        return mask
    return parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))


def _depth(
    mask: npt.NDArray[np.bool_], box: tuple[slice, ...], shape: tuple[int, ...], spacing: Array
) -> npt.NDArray[np.float64]:
    """How deep each voxel lies inside `mask`, in mm; the grid's border is no surface, for the body goes on there."""
    pads = [(int(side.start > 0), int(side.stop < size)) for side, size in zip(box, shape, strict=True)]
    depth = ndimage.distance_transform_edt(np.pad(mask, pads), sampling=spacing)
    return depth[tuple(slice(a, a + n) for (a, _), n in zip(pads, mask.shape, strict=True))]


def _core(mask: npt.NDArray[np.bool_], depth: npt.NDArray[np.float64], spacing: Array) -> npt.NDArray[np.bool_]:
    """The body within a whole vertebra's mask: its opening by a ball that fits into nothing else of the vertebra."""
    radius = _CORE_DEPTH * depth.max()
    seed = _largest(depth >= radius)
    return mask & (ndimage.distance_transform_edt(~seed, sampling=spacing) <= radius)


# ---- measuring -----------------------------------------------------------------------------------------------


def _tangents(centers: Array) -> Array:
    """Unit vectors to superior along the chain of body centres, one per body; LPS +z for a single one."""
    if len(centers) == 1:
        return np.array([[0.0, 0.0, 1.0]])
    up = -np.gradient(centers, axis=0)
    return up / np.linalg.norm(up, axis=1, keepdims=True)


def _measured(part: _Body, tangent: Array) -> _Body:
    """`part` with centre, axes, size and canal measured in the frame given by `tangent` (to superior)."""
    axes = _turned(part, frame_from(tangent))
    wall, canal = _walls(part, axes)
    local = (part.points_mm - part.center) @ axes.T
    beside = (local[:, 0] > part.width_mm[0] - 2) & (local[:, 0] < part.width_mm[1] + 2)
    body = part.points_mm[(local[:, 1] <= wall) & beside]
    center = body.mean(0)
    level, height = _endplates(part, body - center, axes)
    # Half from the endplates, half from the chain of bodies: in 5 mm slices endplates alone err by up to 13 degrees.
    axes = frame_from(level[2] + axes[2], axes[0])
    low, high = np.percentile((body - center) @ axes.T, (2, 98), axis=0)
    width, depth = (high - low + _reach(part, axes))[:2] / 2
    behind = (part.center + canal * axes[1] - center) @ axes[1]
    return replace(
        part,
        center=center,
        axes=axes,
        half_mm=(float(width), float(depth), height / 2),
        canal=center + behind * axes[1],
    )


def _turned(part: _Body, axes: Array) -> Array:
    """`axes` turned about superior so that posterior points from the body to the arch, where there is an arch."""
    behind = part.points_mm[(part.points_mm - part.center) @ axes[1] > 22]
    local = (behind - part.center) @ axes.T
    arch = local[np.abs(local[:, 0]) < 25]
    # Half an arch may be missing or a rib head may be part of the label: no vertebra turns by more than 25 degrees.
    if len(arch) < 0.05 * len(part.points_mm) or abs(arch[:, 0].mean()) > np.tan(np.deg2rad(25)) * arch[:, 1].mean():
        return axes
    posterior = arch[:, 0].mean() * axes[0] + arch[:, 1].mean() * axes[1]
    return frame_from(axes[2], np.cross(posterior, axes[2]))


def _walls(part: _Body, axes: Array) -> tuple[float, float]:
    """How far behind the core's centre the body ends, and how far the middle of the canal lies.

    Followed along the midline at half height: from the body through the canal into the arch.
    """
    local = (part.points_mm - part.center) @ axes.T
    near = local[(np.abs(local[:, 0]) < 6) & (np.abs(local[:, 2]) < 6)][:, 1]
    voxel = float(_reach(part, axes)[1])
    # Whole voxels to a bin: else neighbouring bins hold one row of voxels or two.
    step = voxel * max(1.0, np.ceil(1.5 / voxel))
    filled, edges = np.histogram(near, bins=np.arange(-step / 2, 80, step))
    usual = np.median(filled[:4])
    bone = filled > 0.4 * usual
    wall = int(np.argmin(bone)) if not bone.all() else len(bone)
    back = wall + int(np.argmax(filled[wall:] > 0.3 * usual))
    if wall < len(bone) and _CANAL_MM[0] <= edges[back] - edges[wall] <= _CANAL_MM[1]:
        return float(edges[wall]), float(edges[wall] + edges[back]) / 2
    return float(edges[wall]), float(edges[wall]) + _CANAL_HALF_MM


def _endplates(part: _Body, body: Array, axes: Array) -> tuple[Array, float]:
    """`axes` with superior across the surface midway between the endplates, and the median height in mm.

    body: (n, 3) points relative to the body's centre.
    """
    cell = max(3.0, float(_reach(part, axes)[:2].max()) * 1.01)
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
        # A slope beyond 20 degrees is a broken label's, not an endplate's against the curve.
        if np.hypot(slope[0], slope[1]) > np.tan(np.deg2rad(20)):
            break
        axes = frame_from(axes[2] - slope[0] * axes[0] - slope[1] * axes[1], axes[0])
    return axes, float(np.median(top - bottom) + _reach(part, axes)[2])


def _reach(part: _Body, axes: Array) -> Array:
    """The extent of one voxel along each of `axes`, in mm."""
    return np.linalg.norm(axes @ part.voxel_mm.T, axis=1)


def _curve(parts: list[_Body]) -> SpineCurve:
    canal = np.array([part.canal for part in parts])
    if len(canal) == 1:
        canal = canal + np.outer((5.0, -5.0), parts[0].axes[2])
    return build_curve(canal)
