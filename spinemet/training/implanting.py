"""Lesions put into the vertebrae of one real volume, and what each of its slices then shows.

The lesions are those of the phantoms (phantom/disease); the bone, the blur and the noise are the scanner's. Some normal
vertebrae get a sham implant, drawn the same way with bone instead of disease, so that no network learns the seam.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from spinemet.anatomy import is_named
from spinemet.config import SliceConfig
from spinemet.phantom.body.anatomy import SIZES, Pose
from spinemet.phantom.body.vertebra import BoneChange, BonePatch
from spinemet.phantom.disease.lesions import Disease, Lesion, build_lesion, draw_diseases, focus_distance
from spinemet.phantom.disease.mimics import MIMICS, Mimic
from spinemet.phantom.shapes import blend, cover, noise_tile, tiled_at
from spinemet.spine.ring import Tissue, tissue_levels
from spinemet.spine.slices import cut_slices
from spinemet.types import AIR_HU, Array, Array32, BoolArray, Completeness, Spine, Vertebra, Volume

_METASTATIC = 0.75
"""Share of the studies made that have lesions; in them, about half of the vertebrae stay normal."""
_SHAM = 0.4
"""Share of the normal vertebrae with a sham implant: as many as have a lesion, about."""
_BENIGN = 0.5
"""Share of the sham implants that are benign changes (osteophytes, dense endplates, bone islands and more)."""
_AROUND_MM = (55.0, 70.0, 32.0)
"""Half size of the box about a body that holds the whole vertebra and its lesions: left, posterior, superior."""
_BONE = 0.3
"""Boneness from which a voxel belongs to the cortex or the arch; a body's inside counts as bone whatever its HU."""
_BLUR_MM = 0.7
"""Standard deviation of the blur of an implant, as of a standard kernel."""
_NOISE_MM = 1.2
"""Detail finer than about twice this length within a slice counts as noise."""
_SOFT_HU = 60.0
"""Voxels of soft tissue, whose noise an implant gets, differ from its HU by less."""
_SMOOTH_MM = 2.5
"""A sham implant is the vertebra's own bone, smoothed over this length."""
_SEEN_HU, _BONE_HU, _SEEN_CM3 = 50.0, 150.0, 0.25
"""A lytic lesion can be seen where it takes _SEEN_HU or more, a blastic one where it adds as much and has _BONE_HU. A
lesion that can be seen in less than _SEEN_CM3 (a ball of 8 mm) is not put in; a mixed one has the kinds that can."""
_THIN = 0.3
"""Share of the studies made whose bone becomes thin first. Without it, a model trained on the normal bone of a few
patients took thin bone for lytic."""
_THIN_HU = (-10.0, 80.0)
"""The median of the cancellous bone in them, drawn evenly: from severe osteoporosis to just above its limit."""
_MARROW_HU = -80.0
"""What bone without any mineral has: fatty marrow. Mineral adds to it."""
_CORTEX_MM, _CORTEX_KEEPS = 3.0, 0.6
"""The outer layer of bone, and the share of the loss (as a power) that its surface is spared."""
_SLICES = SliceConfig(size_px=128, pixel_mm=1.0, step_mm=1.5)
"""The slices that are labelled: finer than those that networks see, and wide enough for a whole vertebra."""
_SLICE_MM2 = 15.0
"""A slice shows a lesion that can be seen in at least so much of it."""


@dataclass(frozen=True)
class Label:
    """What was put into a vertebra. sham: normal, but drawn anew in part. extent: 0.2 (8 mm) to 1 (the whole body).
    volume_cm3: in which the lesion can be seen."""

    level: str
    bone_quality: str = "normal"
    posterolateral: str = "none"
    side: str = ""
    extent: float = 0.0
    volume_cm3: float = 0.0
    sham: bool = False


def implanted(volume: Volume, spine: Spine, rng: np.random.Generator) -> tuple[Volume, list[Label]]:
    """`volume` with lesions in some of its named whole vertebrae, and the labels of all of these."""
    vertebrae = [vertebra for vertebra in spine.vertebrae if usable(vertebra)]
    levels = tuple(vertebra.level for vertebra in vertebrae)
    usual = str(rng.choice(["lytic", "blastic", "mixed"]))
    diseases: dict[str, Disease] = draw_diseases(rng, levels, 1, bool(rng.random() < _METASTATIC), usual)
    hu, tissue = volume.hu_DHW.astype(np.float32), tissue_levels(volume.hu_DHW)
    if rng.random() < _THIN:
        thin_out(hu, volume, tissue, spine.vertebrae, float(rng.uniform(*_THIN_HU)), int(rng.integers(2**31)))
    labels = []
    for vertebra in vertebrae:
        pose, disease = _pose(vertebra), diseases.get(vertebra.level)
        lesion = disease.lesion(0, pose) if disease else None
        quality, seen_cm3 = _put(hu, volume, tissue, pose, lesion, rng) if lesion else ("normal", 0.0)
        if disease and lesion and quality != "normal":
            extent = round(disease.stages[0][2], 2)
            label = Label(vertebra.level, quality, lesion.posterolateral, lesion.side, extent, seen_cm3)
        else:
            label = Label(vertebra.level, sham=bool(rng.random() < _SHAM))
            if label.sham:
                mimic = Mimic(str(rng.choice(MIMICS)), int(rng.integers(2**31)), int(rng.choice([-1, 1])))
                _put(hu, volume, tissue, pose, mimic if rng.random() < _BENIGN else None, rng)
        labels.append(label)
    stored = np.clip(np.rint(hu), AIR_HU, 3071).astype(np.int16)
    untouched = np.rint(hu) == np.rint(volume.hu_DHW)  # metal above 3071 HU keeps its values
    return replace(volume, hu_DHW=np.where(untouched, volume.hu_DHW, stored)), labels


def slice_labels(volume: Volume, made: Volume, spine: Spine, labels: Sequence[Label]) -> list[dict[str, object]]:
    """Rows for the slices of each diseased vertebra: level, `slice` (z of its middle in mm), and what it shows.

    A slice without a visible part of the lesion is normal; one of a mixed lesion may show only one of its kinds.
    """
    diseased = {label.level: label for label in labels if label.bone_quality != "normal"}
    part = replace(spine, vertebrae=tuple(one for one in spine.vertebrae if one.level in diseased))
    rows = list[dict[str, object]]()
    stacks = (cut_slices(one, part, _SLICES) for one in (volume, made))
    least = math.ceil(_SLICE_MM2 / _SLICES.pixel_mm**2)
    for vertebra, before, after in zip(part.vertebrae, *stacks, strict=True):
        label = diseased[vertebra.level]
        for offset, hu, new in zip(after.offsets_mm, before.hu_NHW.astype(np.float32), after.hu_NHW, strict=True):
            quality, _ = _visible(hu, new.astype(np.float32), label.bone_quality, least)
            side = "none" if quality == "normal" else label.posterolateral
            z = vertebra.center_mm[2] + float(offset) * vertebra.axes[2][2]
            place = {"level": vertebra.level, "slice": f"{z:.1f}"}
            rows.append({**place, "bone_quality": quality, "posterolateral": side})
    return rows


def _visible(before: Array32, after: Array32, quality: str, least: int) -> tuple[str, int]:
    """What can be seen of a change by a lesion of this quality, and in how many voxels; `least` voxels are needed."""
    destroyed = int((after - before < -_SEEN_HU).sum()) if quality != "blastic" else 0
    added = int(((after - before > _SEEN_HU) & (after > _BONE_HU)).sum()) if quality != "lytic" else 0
    seen = {"lytic": destroyed >= least, "blastic": added >= least}
    kinds = [kind for kind, is_seen in seen.items() if is_seen]
    return ("normal", "mixed")[len(kinds) // 2] if len(kinds) != 1 else kinds[0], destroyed + added


def usable(vertebra: Vertebra) -> bool:
    """Whether a lesion can be put into `vertebra`: it is whole, and its level is known."""
    return is_named(vertebra.level) and vertebra.level in SIZES and vertebra.completeness is Completeness.WHOLE


def thin_out(
    hu_DHW: Array32, volume: Volume, tissue: Tissue, vertebrae: Sequence[Vertebra], wanted: float, seed: int
) -> None:
    """Make the bone of these vertebrae thin, in place, as osteoporosis does: a loss of mineral that spares the cortex.

    All lose the same share, so that the cancellous bone of the median vertebra has `wanted` HU; nothing changes if it
    has less already. The loss differs from place to place by a coarse texture (seed); noise stays.
    """
    known = [one for one in vertebrae if one.level in SIZES]
    if not known:
        return
    spacing = np.array(volume.spacing_mm)
    places = [(pose, *_box(volume, pose)) for pose in map(_pose, known)]
    density = float(np.median([_bone_hu(hu_DHW[box].ravel(), pose, local) for pose, box, local in places]))
    if density <= wanted:
        return
    kept = (wanted - _MARROW_HU) / (density - _MARROW_HU)
    tile, power_DHW = noise_tile(seed, 2.0), np.zeros_like(hu_DHW)
    for pose, box, local in places:
        shape = hu_DHW[box].shape
        bone = _is_bone(hu_DHW[box], tissue, pose, local, spacing)
        depth = np.clip(-_distance(bone, spacing).reshape(shape) / _CORTEX_MM, 0, 1)
        uneven = 1 + 0.2 * tiled_at(tile, tuple(np.indices(shape).reshape(3, -1))).reshape(shape)
        lost = np.where(bone, (1 - _CORTEX_KEEPS * (1 - depth)) * uneven, 0)
        np.maximum(power_DHW[box], lost, out=power_DHW[box])
    changed = ndimage.find_objects((power_DHW > 0).astype(np.int8))[0]
    hu, power = hu_DHW[changed], power_DHW[changed]
    smooth = ndimage.gaussian_filter(hu, np.array([0.3 * spacing[0], _BLUR_MM, _BLUR_MM]) / spacing)
    hu += np.minimum(_MARROW_HU - smooth, 0) * (1 - kept**power)


def _pose(vertebra: Vertebra) -> Pose:
    """The vertebra as the lesions see it: the usual measures of its level, scaled to its height."""
    size = SIZES[vertebra.level]
    return Pose(
        vertebra.level,
        size.scaled(vertebra.height_mm / size.height),
        np.array(vertebra.center_mm),
        np.asarray(vertebra.axes, np.float64),
    )


def _put(
    hu_DHW: Array32,
    volume: Volume,
    tissue: Tissue,
    pose: Pose,
    drawn_in: Lesion | Mimic | None,
    rng: np.random.Generator,
) -> tuple[str, float]:
    """Change `hu_DHW` in place where the vertebra at `pose` has `drawn_in`; None: a sham lesion.

    Gives the bone quality that can be seen, and in how many cm3. A lesion that cannot be seen changes nothing.
    """
    box, local = _box(volume, pose)
    hu = hu_DHW[box].copy()
    spacing = np.array(volume.spacing_mm)
    smooth = ndimage.gaussian_filter(hu, _SMOOTH_MM / spacing).ravel()
    lesion = drawn_in.against(_bone_hu(smooth, pose, local)) if isinstance(drawn_in, Lesion) else None
    put = lesion or drawn_in or _sham(pose, smooth, rng)
    bone = _distance(_is_bone(hu, tissue, pose, local, spacing), spacing)
    tile = noise_tile(int(rng.integers(2**31)), 0.7)
    texture = tiled_at(tile, tuple(np.indices(hu.shape).reshape(3, -1)))
    drawn, raised = (
        _drawn(BonePatch(pose, local[0], local[1], local[2], bone.copy(), bone, texture, beneath.copy()), beneath, put)
        for beneath in (hu.ravel(), hu.ravel() + np.float32(1))
    )
    # One HU more beneath: what does not come through is replaced.
    replaced = np.clip(1 - (raised - drawn), 0, 1).reshape(hu.shape)
    blur = np.array([0.3 * spacing[0], _BLUR_MM, _BLUR_MM]) / spacing
    change = ndimage.gaussian_filter(drawn.reshape(hu.shape) - hu, blur)
    voxel_cm3 = float(spacing.prod()) / 1000
    quality, voxels = "normal", 0
    if lesion:
        quality, voxels = _visible(hu, hu + change, lesion.bone_quality, math.ceil(_SEEN_CM3 / voxel_cm3))
        if quality == "normal":
            return quality, 0.0
    hu_DHW[box] += change + ndimage.gaussian_filter(replaced, blur) * _noise(hu, replaced, tissue, spacing)
    return quality, round(voxels * voxel_cm3, 2)


def _bone_hu(smooth: Array32, pose: Pose, local: Array32) -> float:
    """The median HU of the inside of the body, which is cancellous bone."""
    half = np.array([pose.size.width, pose.size.depth, pose.size.height]) / 2
    return float(np.median(smooth[np.linalg.norm(local / half[:, None], axis=0) < 0.7]))


def _box(volume: Volume, pose: Pose) -> tuple[tuple[slice, ...], Array32]:
    """The voxels about the vertebra: slices along D, H, W, and (3, n) their left, posterior and superior mm."""
    signs = np.stack(np.meshgrid(*[(-1.0, 1.0)] * 3), axis=-1).reshape(-1, 3)
    corners = volume.to_index(pose.center + (signs * _AROUND_MM) @ pose.axes)
    low = np.maximum(np.floor(corners.min(axis=0)).astype(int), 0)
    high = np.minimum(np.ceil(corners.max(axis=0)).astype(int) + 1, volume.hu_DHW.shape)
    index = np.stack(np.meshgrid(*map(np.arange, low, high), indexing="ij"), axis=-1).reshape(-1, 3)
    local = (volume.to_lps(index) - pose.center) @ pose.axes.T
    return tuple(map(slice, low, high)), np.ascontiguousarray(local.T, np.float32)


def _is_bone(hu: Array32, tissue: Tissue, pose: Pose, local: Array32, spacing: Array) -> BoolArray:
    """The voxels of the vertebra: dense ones, and the inside of the body, which may be as dark as muscle."""
    x, y, z = (axis.reshape(hu.shape) for axis in local)
    size = pose.size
    dense = tissue.boneness(ndimage.gaussian_filter(hu, 0.6 / spacing)) > _BONE
    body = np.hypot(x / (0.45 * size.width), y / (0.45 * size.depth)) < 1
    body &= np.abs(z) < 0.47 * size.height
    return np.asarray((dense & (np.abs(z) < size.height / 2 + size.disc)) | body)


def _distance(solid: BoolArray, spacing: Array) -> Array32:
    """(n,) signed distance to the surface of `solid`, mm, negative inside."""
    outside, inside = (ndimage.distance_transform_edt(part, sampling=spacing) for part in (~solid, solid))
    return np.asarray(np.where(solid, 0.5 - inside, outside - 0.5), np.float32).ravel()


def _drawn(patch: BonePatch, beneath: Array32, change: BoneChange) -> Array32:
    """(n,) HU of `patch` after `change`, over the HU `beneath` where there is no bone."""
    before = patch.bone.copy()
    change(patch)
    drawn = beneath.copy()
    # Bone that nothing changed lies in `beneath` already.
    blend(drawn, patch.hu, np.where(patch.bone < before, cover(patch.bone, 1.0), cover(before, 1.0)))
    return drawn


def _sham(pose: Pose, smooth: Array32, rng: np.random.Generator) -> BoneChange:
    """The places of a lytic lesion, filled with the vertebra's own bone."""
    lesion = build_lesion(
        pose, "lytic", "none", "left", float(rng.choice([0.28, 0.45, 0.65])), int(rng.integers(2**31))
    )

    def change(patch: BonePatch) -> None:
        for focus in lesion.foci:
            blend(patch.hu, smooth, cover(focus_distance(patch, focus), focus.fuzz))

    return change


def _noise(hu: Array32, replaced: Array32, tissue: Tissue, spacing: Array) -> Array32:
    """The noise of `hu`, reduced to that of soft tissue: bone's own structure passes for noise otherwise."""
    fine = hu - ndimage.gaussian_filter(hu, np.array([0.0, _NOISE_MM, _NOISE_MM]) / spacing)
    smooth = hu - fine
    soft, new = fine[np.abs(smooth - tissue.soft) < _SOFT_HU], fine[replaced > 0.5]
    if len(soft) < 100 or len(new) < 100:
        return np.zeros_like(hu)
    spread, spread_new = (float(np.median(np.abs(part))) for part in (soft, new))
    return np.asarray(fine * min(1.0, spread / max(spread_new, 1e-3)), np.float32)
