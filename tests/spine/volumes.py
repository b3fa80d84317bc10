"""Artificial volumes with a known HU everywhere, and the same volume on other grids."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from spinemet.types import LabelMap, Volume


def affine_of(
    spacing: tuple[float, float, float], turn_deg: tuple[float, float, float] = (0, 0, 0), origin=(-40.0, -50.0, -60.0)
) -> np.ndarray:
    """D to superior, H to posterior, W to left, then turned."""
    affine = np.eye(4)
    columns = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]], float).T * spacing
    affine[:3, :3] = Rotation.from_euler("xyz", turn_deg, degrees=True).as_matrix() @ columns
    affine[:3, 3] = origin
    return affine


def linear_field(shape: tuple[int, int, int], affine: np.ndarray, slope=(2.0, -3.0, 5.0), offset=100.0) -> Volume:
    """HU = slope · LPS + offset, which trilinear interpolation reproduces exactly."""
    index = np.moveaxis(np.indices(shape), 0, -1)
    points = index @ affine[:3, :3].T + affine[:3, 3]
    return Volume((points @ np.asarray(slope) + offset).astype(np.float32), affine)


def reordered(array: np.ndarray, affine: np.ndarray, order: tuple[int, int, int], flips: tuple[bool, bool, bool]):
    """The same data with its axes in another order and some of them reversed, and the affine to match."""
    moved, matrix = array.transpose(order), affine[:, [*order, 3]].copy()
    for axis, flip in enumerate(flips):
        if flip:
            matrix[:3, 3] += matrix[:3, axis] * (moved.shape[axis] - 1)
            matrix[:3, axis] *= -1
            moved = np.flip(moved, axis)
    return np.ascontiguousarray(moved), matrix


def reorder_volume(volume: Volume, order: tuple[int, int, int], flips: tuple[bool, bool, bool]) -> Volume:
    return Volume(*reordered(volume.hu_DHW, volume.affine, order, flips))


def reorder_labels(labels: LabelMap, order: tuple[int, int, int], flips: tuple[bool, bool, bool]) -> LabelMap:
    return LabelMap(*reordered(labels.labels_DHW, labels.affine, order, flips), labels.bodies_only)


def turned(volume: Volume, degrees: tuple[float, float, float]) -> tuple[Volume, np.ndarray, np.ndarray]:
    """The patient turned on the table about the volume's middle: the volume, the rotation, its centre."""
    rotation = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    middle = (np.array(volume.hu_DHW.shape) - 1) / 2
    center = volume.to_lps(middle)
    affine = volume.affine.copy()
    affine[:3, :3] = rotation @ affine[:3, :3]
    affine[:3, 3] = center - affine[:3, :3] @ middle
    return Volume(volume.hu_DHW, affine), rotation, center


def thickened(volume: Volume, count: int) -> Volume:
    """Slices along the first axis, averaged in groups of `count`."""
    whole = volume.hu_DHW.shape[0] // count * count
    hu = volume.hu_DHW[:whole].reshape(-1, count, *volume.hu_DHW.shape[1:]).mean(axis=1)
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, 0] * (count - 1) / 2
    affine[:3, 0] *= count
    return Volume(np.rint(hu).astype(np.int16), affine)
