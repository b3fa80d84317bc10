"""Where the slices of a series lie, from ImagePositionPatient and ImageOrientationPatient alone (PS3.3 C.7.6.2).

InstanceNumber, SliceThickness, SpacingBetweenSlices and GantryDetectorTilt are ignored: in real series each of them
is sometimes absent or wrong. Millimetres, LPS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spinemet.errors import Reason, StudyExcluded
from spinemet.types import Array, IndexArray, InstanceHeader

SAME_POSITION_MM = 0.01
"""Slices closer than this along the normal are at the same position."""
STEP_TOLERANCE = 0.1
"""A slice may lie this share of a spacing from its place on the evenly spaced line through all, or as far as its
position was rounded, if that is more."""
MAX_MISSING = 1
"""Slices that may be missing within a series; volume.py interpolates and flags them."""
_MOST_TRIED = 12
"""So many missing slices are looked for, so that a series that lacks more than MAX_MISSING is not taken for an even one
with a larger spacing."""
SHEAR_TOLERANCE_MM = 0.25
"""Slices that drift sideways by more than this over the whole series, half a usual pixel, count as sheared."""
SCATTER_TOLERANCE_MM = 0.5
"""A slice may lie this far from the straight line through all. If it lies farther the table moved, which resampling
cannot repair."""
RUN_STEPS = 5
"""The spacing of a stretch of a divided series is the median of its first so many steps."""
MOST_ROUNDING = 0.09
"""A step of a divided series may differ by so much more for rounded positions; with 0.15, 4 and 7 mm would be one
spacing with a missing slice."""
UNIT_TOLERANCE = 0.01
"""Direction cosines may be this far from unit length and from perpendicular."""


@dataclass(frozen=True, eq=False)
class SliceGrid:
    """The slices of a series in order along their normal, on an evenly spaced grid of `count` places.

    order: the slices' indices in the series, by ascending position. place: for each slice of `order` its place on the
    grid, 0 to count - 1. Slices at the same position share a place; a place without a slice is missing.
    pixel_spacing: the first slice's, in DICOM's order. affine: (4, 4), array index (d, h, w) to LPS, of the grid
    without its drift; d ascends along the cross product of the two triplets of ImageOrientationPatient. drift_mm: (2,)
    how far each place is shifted from the one before, along W and H; zero unless sheared.
    """

    order: IndexArray
    place: IndexArray
    count: int
    spacing_mm: float
    pixel_spacing: tuple[float, float]
    affine: Array
    drift_mm: Array

    @property
    def is_sheared(self) -> bool:
        """Whether the slices drift sideways by more than SHEAR_TOLERANCE_MM over the series."""
        return bool(np.any(self.drift_mm != 0))

    @property
    def missing(self) -> tuple[int, ...]:
        """The places without a slice."""
        return tuple(sorted(set(range(self.count)) - set(self.place.tolist())))

    @property
    def coverage_mm(self) -> float:
        """Distance from the first slice's outer border to the last one's, along the normal."""
        return self.count * self.spacing_mm


def normal_of(orientation: Sequence[float]) -> Array | None:
    """The unit normal of ImageOrientationPatient; None if its triplets are not perpendicular unit vectors."""
    row, column = np.asarray(orientation[:3], np.float64), np.asarray(orientation[3:], np.float64)
    off = np.array([np.linalg.norm(row) - 1, np.linalg.norm(column) - 1, row @ column])
    if np.abs(off).max() > UNIT_TOLERANCE:
        return None
    normal = np.cross(row, column)
    return normal / np.linalg.norm(normal)


def arrange(instances: Sequence[InstanceHeader]) -> SliceGrid:
    """The slices of one series on their grid.

    Raises StudyExcluded: NO_GEOMETRY (position, orientation or pixel spacing absent or impossible), TOO_FEW_SLICES
    (fewer than two positions), GAPS (uneven, or more than MAX_MISSING slices missing), SHEARED (a slice farther than
    SCATTER_TOLERANCE_MM from the straight line through all).
    """
    row, column, normal, positions, pixel_spacing = _frame(instances)
    along = positions @ normal
    order = np.argsort(along, kind="stable")
    place, count = _places(along[order], _rounding(positions, normal))
    positions = positions[order]
    # Least squares over all slices: single positions are rounded, to 0.1 mm in some archives.
    middle = place.mean()
    step = (place - middle) @ positions / float((place - middle) @ (place - middle))
    origin = positions.mean(axis=0) - middle * step
    beside = positions - origin - np.outer(place, step)
    if float(np.abs(beside @ np.stack([row, column]).T).max()) > SCATTER_TOLERANCE_MM:
        raise StudyExcluded(Reason.SHEARED, "expected slices along a straight line, found some off it.")
    drift = np.array([step @ row, step @ column])
    if float(np.linalg.norm(drift)) * (count - 1) <= SHEAR_TOLERANCE_MM:
        drift = np.zeros(2)
    spacing = float(step @ normal)
    affine = np.eye(4)
    affine[:3] = np.column_stack([normal * spacing, column * pixel_spacing[0], row * pixel_spacing[1], origin])
    return SliceGrid(order, place, count, spacing, pixel_spacing, affine, drift)


def even_runs(instances: Sequence[InstanceHeader]) -> tuple[tuple[InstanceHeader, ...], ...]:
    """The longest stretches of evenly spaced slices in the series, by ascending position.

    Neighbouring stretches share the slice between them; in each, MAX_MISSING slices may be missing.
    Raises StudyExcluded(NO_GEOMETRY) as arrange does.
    """
    _, _, normal, positions, _ = _frame(instances)
    along = positions @ normal
    order = np.argsort(along, kind="stable")
    first_at = np.concatenate([[True], np.diff(along[order]) > SAME_POSITION_MM])
    slices_at = np.split(order, np.flatnonzero(first_at)[1:])
    steps = np.diff(along[order][first_at])
    rounding = _rounding(positions, normal)
    runs: list[tuple[InstanceHeader, ...]] = []
    start = 0
    while start < len(steps):
        usual = np.median(steps[start : start + RUN_STEPS])
        jumps = steps[start:] / usual
        whole = np.rint(jumps)
        off = np.abs(jumps - whole) <= STEP_TOLERANCE + min(2 * rounding / usual, MOST_ROUNDING)
        even = off & (whole >= 1) & (np.cumsum(whole - 1) <= MAX_MISSING)
        length = len(even) if even.all() else int(np.argmin(even))
        if length:
            indices = np.concatenate(slices_at[start : start + length + 1])
            runs.append(tuple(instances[index] for index in indices.tolist()))
        start += max(length, 1)
    return tuple(runs)


def _frame(instances: Sequence[InstanceHeader]) -> tuple[Array, Array, Array, Array, tuple[float, float]]:
    """(row, column, normal, positions, pixel spacing): the series' mean orientation made orthonormal, (N, 3) positions,
    and the first slice's pixel spacing."""
    orientations = [item.ImageOrientationPatient for item in instances]
    positions = [item.ImagePositionPatient for item in instances]
    spacings = [item.PixelSpacing for item in instances if item.PixelSpacing and min(item.PixelSpacing) > 0]
    if None in orientations or None in positions or len(spacings) < len(instances):
        raise StudyExcluded(Reason.NO_GEOMETRY, "some slices have no position, orientation or pixel spacing.")
    mean = np.mean(np.asarray(orientations, np.float64), axis=0)
    normal = normal_of([float(value) for value in mean])
    if normal is None:
        raise StudyExcluded(Reason.NO_GEOMETRY, "expected perpendicular unit vectors as orientation, found others.")
    row = mean[:3] / np.linalg.norm(mean[:3])
    return row, np.cross(normal, row), normal, np.asarray(positions, np.float64), spacings[0]


def _rounding(positions: Array, normal: Array) -> float:
    """How far along the normal a position may lie from where it was before it was written with so few decimals, mm."""
    units = []
    for values in positions.T:
        decimals = next((n for n in range(4) if np.abs(np.round(values, n) - values).max() < 1e-6), None)
        units.append(0.0 if decimals is None else 10.0**-decimals)
    return float(np.abs(normal) @ units) / 2


def _places(ascending: Array, rounding: float) -> tuple[IndexArray, int]:
    """(place of each slice, number of places) for positions in ascending order."""
    apart = np.concatenate([[True], np.diff(ascending) > SAME_POSITION_MM])
    at = ascending[apart]
    if len(at) < 2:
        raise StudyExcluded(Reason.TOO_FEW_SLICES, "expected slices on several positions, found one position.")
    fits = [_fitted(at, missing) for missing in range(min(_MOST_TRIED, len(at)) + 1)]
    off, spacing, place = min(fits, key=lambda fit: fit[0])
    if off > max(STEP_TOLERANCE, 1.1 * rounding / spacing):  # the line itself is fitted to rounded positions
        usual = float(np.median(np.diff(at)))
        uneven = int((np.abs(np.diff(at) - usual) > STEP_TOLERANCE * usual).sum())
        raise StudyExcluded(Reason.GAPS, f"expected slices {usual:.3g} mm apart, found {uneven} uneven steps.")
    count = int(place[-1]) + 1
    if count - len(place) > MAX_MISSING:
        raise StudyExcluded(Reason.GAPS, f"expected at most {MAX_MISSING} missing slice, found {count - len(place)}.")
    return place[np.cumsum(apart) - 1], count


def _fitted(at: Array, missing: int) -> tuple[float, float, IndexArray]:
    """(largest distance of a slice from its place in spacings, spacing, places) with `missing` slices missing."""
    spacing = (at[-1] - at[0]) / (len(at) - 1 + missing)
    # Without a missing slice each has its place, even if the first one was rounded far from its own.
    place = np.rint((at - at[0]) / spacing) if missing else np.arange(len(at), dtype=np.float64)
    if len(np.unique(place)) < len(at):
        return np.inf, float(spacing), place.astype(np.intp)
    slope, start = np.polyfit(place, at, 1)
    return float(np.abs(at - start - slope * place).max() / slope), float(slope), place.astype(np.intp)
