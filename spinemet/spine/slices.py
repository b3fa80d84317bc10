"""The slices of each vertebra that go to the model: across its own axis, in the patient's left-right orientation."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from spinemet.config import SliceConfig
from spinemet.spine.sampling import sample_grid
from spinemet.types import Array, Array32, SliceStack, Spine, Vertebra, Volume

CENTER_ROW = 0.36
"""Row of the body centre, as a share of the rows. Slices of 112 mm then show 40 mm in front of it (the largest body
reaches 20) and 72 mm behind it (a lumbar spinous process ends at 65)."""
_INSET_MM = 1.5
"""From each endplate to the outermost slice, because a slice in the endplate shows cortex and disc."""
_LEAST_SLICES = 3


def cut_slices(volume: Volume, spine: Spine, config: SliceConfig) -> tuple[SliceStack, ...]:
    """One stack per vertebra of `spine`, in the same order.

    Rows run anterior to posterior, columns from the patient's right to left, slices cranial to caudal, at
    `config.step_mm`; outside the volume is AIR_HU. A body too low for three slices at that step gets three at a smaller
    one. Volumes finer than the step are averaged over it, so that thin slices look like thick ones.
    """
    if not spine.vertebrae:
        return ()
    plans = [_plan(vertebra, config) for vertebra in spine.vertebrae]
    source = _slab_averaged(volume, plans, config)
    stacks = []
    for vertebra, (offsets, origin, steps) in zip(spine.vertebrae, plans, strict=True):
        hu_NHW = sample_grid(source, origin, steps, (len(offsets), config.size_px, config.size_px))
        stacks.append(SliceStack(vertebra.level, np.rint(hu_NHW).astype(np.int16), offsets, config.pixel_mm))
    return tuple(stacks)


def slice_offsets(height_mm: float, step_mm: float) -> Array32:
    """Heights of a vertebra's slices over its body centre, cranial first, symmetric about it; at least three."""
    span = max(height_mm - 2 * _INSET_MM, 2.0)
    count = max(_LEAST_SLICES, int(span / step_mm + 1e-6) + 1)
    step = min(step_mm, span / (count - 1))
    return (((count - 1) / 2 - np.arange(count)) * step).astype(np.float32)


def _plan(vertebra: Vertebra, config: SliceConfig) -> tuple[Array32, Array, Array]:
    """Slice offsets, LPS of the first pixel of the first slice, and LPS steps along slices, rows and columns."""
    offsets = slice_offsets(vertebra.height_mm, config.step_mm)
    left, posterior, superior = np.asarray(vertebra.axes, np.float64)
    steps = np.stack([superior * float(offsets[1] - offsets[0]), posterior * config.pixel_mm, left * config.pixel_mm])
    row, column = CENTER_ROW * config.size_px, (config.size_px - 1) / 2
    origin = np.asarray(vertebra.center_mm) + superior * float(offsets[0]) - row * steps[1] - column * steps[2]
    return offsets, origin, steps


def _slab_averaged(volume: Volume, plans: list[tuple[Array32, Array, Array]], config: SliceConfig) -> Volume:
    """The part of `volume` that the stacks need, averaged along its most cranio-caudal axis over one step."""
    corners = np.array(np.meshgrid((0, 1), (0, 1), (0, 1))).reshape(3, -1).T
    points = [
        origin + (corners * (len(offsets) - 1, config.size_px - 1, config.size_px - 1)) @ steps
        for offsets, origin, steps in plans
    ]
    index = volume.to_index(np.concatenate(points))
    axis = int(np.argmax(np.abs(volume.affine[2, :3]) / np.linalg.norm(volume.affine[:3, :3], axis=0)))
    width = max(1, int(config.step_mm / volume.spacing_mm[axis] + 1e-6))
    width -= 1 - width % 2
    size = np.array(volume.hu_DHW.shape)
    low = np.clip(np.floor(index.min(0)).astype(int) - width, 0, size - 1)
    high = np.clip(np.ceil(index.max(0)).astype(int) + width + 1, low + 1, size)
    crop = volume.hu_DHW[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    if width > 1:
        crop = ndimage.uniform_filter1d(crop, width, axis=axis, mode="nearest")
    affine = volume.affine.copy()
    affine[:3, 3] = volume.to_lps(low)
    return Volume(crop, affine, volume.flags)
