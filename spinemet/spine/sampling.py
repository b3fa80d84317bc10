"""HU between voxels, by trilinear interpolation: at points, on oblique grids, on an LPS-aligned grid.

Works for any affine of a Volume: axis order, handedness and obliqueness do not matter.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from spinemet.types import AIR_HU, Array32, BoolArray, Volume


def sample_points(volume: Volume, points_mm: npt.ArrayLike, outside: float = AIR_HU) -> Array32:
    """HU (float32) at LPS points (..., 3); `outside` beyond the outermost voxel centres."""
    index = np.moveaxis(volume.to_index(points_mm), -1, 0)
    return ndimage.map_coordinates(
        volume.hu_DHW, index, output=np.float32, order=1, mode="constant", cval=outside, prefilter=False
    )


def sample_grid(volume: Volume, origin_mm: npt.ArrayLike, steps_mm: npt.ArrayLike, shape: tuple[int, ...]) -> Array32:
    """HU (float32) on the grid origin + n * steps[0] + r * steps[1] + c * steps[2], of shape (N, R, C); AIR_HU outside.

    origin_mm: (3,) LPS of the grid's first point. steps_mm: (3, 3), rows are the LPS steps along N, R and C.
    Several times faster than sample_points, because no coordinate is stored.
    """
    inverse = np.linalg.inv(volume.affine[:3, :3])
    matrix = inverse @ np.asarray(steps_mm, np.float64).T
    zooms = np.diag(matrix)
    # If the grids' axes are parallel, scipy computes the weights once per axis, in two thirds of the time.
    along_axes = np.allclose(matrix, np.diag(zooms), rtol=0, atol=1e-9)
    return ndimage.affine_transform(
        volume.hu_DHW,
        zooms if along_axes else matrix,
        offset=volume.to_index(origin_mm),
        output_shape=shape,
        output=np.float32,
        order=1,
        mode="constant",
        cval=AIR_HU,
        prefilter=False,
    )


def in_view(volume: Volume, points_mm: npt.ArrayLike, margin_mm: float = 0.0) -> BoolArray:
    """Whether the LPS points (..., 3) lie inside the volume's grid, at least `margin_mm` from its border.

    The border is half a voxel outside the outermost voxel centres.
    """
    index = volume.to_index(points_mm)
    margin = margin_mm / np.asarray(volume.spacing_mm)
    last = np.asarray(volume.hu_DHW.shape) - 0.5
    return np.all((index >= margin - 0.5) & (index <= last - margin), axis=-1)


def resample_lps(volume: Volume, spacing_mm: float) -> Volume:
    """`volume` on an isotropic grid whose axes D, H, W run to superior, posterior and left; float32 HU.

    Volumes finer than the grid are averaged along each axis first, which reduces noise and avoids aliasing.
    """
    corners = np.array(np.meshgrid(*[(-0.5, n - 0.5) for n in volume.hu_DHW.shape])).reshape(3, -1).T
    low = volume.to_lps(corners).min(0)
    high = volume.to_lps(corners).max(0)
    shape = tuple(int(n) for n in np.maximum(1, np.round((high - low) / spacing_mm))[::-1])
    affine = np.zeros((4, 4))
    affine[[2, 1, 0, 3], [0, 1, 2, 3]] = (spacing_mm, spacing_mm, spacing_mm, 1.0)
    affine[:3, 3] = low + 0.5 * spacing_mm
    hu_DHW = sample_grid(_averaged(volume, spacing_mm), affine[:3, 3], affine[:3, :3].T, shape)
    return Volume(hu_DHW, affine, volume.flags)


def _averaged(volume: Volume, spacing_mm: float) -> Volume:
    """`volume` with whole blocks of voxels averaged along each axis that is at least twice as fine as `spacing_mm`."""
    hu_DHW, affine = volume.hu_DHW, volume.affine.copy()
    for axis, spacing in enumerate(volume.spacing_mm):
        factor = int(spacing_mm / spacing + 1e-6)
        if factor < 2 or hu_DHW.shape[axis] < factor:
            continue
        end = hu_DHW.shape[axis] // factor * factor
        before = (slice(None),) * axis
        summed = hu_DHW[(*before, slice(0, end, factor))].astype(np.float32)
        for start in range(1, factor):
            summed += hu_DHW[(*before, slice(start, end, factor))]
        summed /= factor
        hu_DHW = summed
        affine[:3, 3] += affine[:3, axis] * (factor - 1) / 2
        affine[:3, axis] *= factor
    return Volume(hu_DHW, affine, volume.flags)
