"""Finds the spinal canal: a ring of bone around soft tissue in every axial slice, followed from slice to slice."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from spinemet.types import Array, Array32, IndexArray, Volume

GRID_MM = 2.0
"""Spacing of the grid on which the canal, the skull and the ribs are searched."""
_HALF_FIELD_MM = 100.0
"""Searched to both sides of the middle of the trunk; the worst scoliosis leaves it by some 60 mm."""
_RADII_MM = (5.0, 7.0, 9.0, 11.0, 13.0, 15.0, 17.0)
"""Each ray looks for bone at these distances: the adult canal is 14 to 22 mm deep and 20 to 30 mm wide."""
_RAYS = 16
_AIMS = [
    sorted({(round(r / 2 * math.sin(angle) * 0.85), round(r / 2 * math.cos(angle) * 1.1)) for r in _RADII_MM})
    for angle in np.arange(_RAYS) * 2 * np.pi / _RAYS
]
"""Rows and columns of each ray; the canal is wider than it is deep."""
_PAD = 12
"""In cells of the grid; the rays end within it."""
_AT_ONCE = 8
"""Slices scored together; all at once take half as long again, because they do not fit the processor's cache."""
_FRONT_MM = 22.0
"""From the canal's middle to the body's; a femur, a humerus or a rib cage has no such mass of bone."""
_OFFSET = 0.7
"""A slice adds to the path's sum only above this score. Canals of the real cases in README.md score 0.6 to 1.4, mean
1.1; soft tissue below 0.4; pelvic bones beside the sacrum 0.5 to 0.9."""
_FAINT_OFFSET, _FAINT_COVER, _FAINT_GAIN = 0.5, 0.85, 1.2
"""If the path covers less than the second value's share of the slices, a path with this offset replaces it if it is
longer by the third value's factor. Canals in bodies as dark as muscle, or between screws, score 0.35 to 0.9 in
phantoms."""
_MOVE_AP, _MOVE_LR = 0.04, 0.12
"""Cost of a 4 mm step from one slice to the next: the sacrum slopes by 60 degrees; no spine goes sideways as fast."""
_FREE_LR_MM, _FADE_LR_MM = 35.0, 40.0
"""No cost up to the first distance from the middle of the trunk (scoliosis), then 1 per second distance."""
_STEPS: tuple[tuple[int, int], ...] = (
    (0, 0), (0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1), (2, 0), (-2, 0),
)  # fmt: skip


@dataclass(frozen=True)
class Tissue:
    """The HU of soft tissue and of dense bone in this volume."""

    soft: float
    bone: float

    def boneness(self, hu: npt.ArrayLike, low: float = 0.0, high: float = 1.0) -> Array32:
        """0 at soft tissue, 1 at bone, clipped to low … high; float32."""
        share = (np.asarray(hu, np.float32) - self.soft) / np.float32(self.bone - self.soft)
        return np.clip(share, low, high, out=share)


def tissue_levels(hu_DHW: npt.ArrayLike) -> Tissue:
    """The HU of soft tissue (most frequent value from -20 to 120) and of dense bone (60th percentile of the voxels 100
    to 1450 HU above it). They come from the study itself, so that half the bone contrast changes nothing."""
    hu = np.asarray(hu_DHW)[::2, ::2, ::2].ravel()
    counts, edges = np.histogram(hu, bins=35, range=(-20, 120))
    soft = float(edges[np.argmax(ndimage.gaussian_filter1d(counts.astype(float), 1.5))] + 2)
    dense = hu[(hu > soft + 100) & (hu < soft + 1450)]
    bone = float(np.percentile(dense, 60)) if len(dense) > 100 else soft + 300.0
    return Tissue(soft, max(bone, soft + 120.0))


def find_canal(grid: Volume, tissue: Tissue) -> tuple[Array, float]:
    """LPS points (n, 3) along the canal, cranial to caudal, one per slice of `grid`, and their mean score.

    grid: on the LPS-aligned 2 mm grid of resample_lps. n is 0 if no slice holds a canal. The path may begin and end
    anywhere, and crosses bad slices if the canal beyond them outweighs them.
    """
    score, first_column, middle = _ring_scores(grid, tissue)
    path = _best_path(score, (middle - first_column) / 2, _OFFSET)
    if len(path) < _FAINT_COVER * len(score):
        faint = _best_path(score, (middle - first_column) / 2, _FAINT_OFFSET)
        path = faint if len(faint) > _FAINT_GAIN * len(path) else path
    if len(path) == 0:
        return np.empty((0, 3)), 0.0
    mean = float(score[tuple(path.T)].mean())
    index = path[::-1] * (1, 2, 2) + (0, 0, first_column)
    return grid.to_lps(index), mean


def _ring_scores(grid: Volume, tissue: Tissue) -> tuple[Array32, int, int]:
    """Ring score (D, H/2, W/2) of every second pixel of the central columns, their first column, the trunk's middle.

    Score: the bone that the rays meet, in which opposite rays also count by the weaker one; minus bone inside; plus a
    body in front. At most about 1.4.
    """
    hu = np.asarray(grid.hu_DHW, np.float32)
    columns = np.cumsum((hu > -300).sum(axis=(0, 1)))
    middle = int(np.searchsorted(columns, columns[-1] / 2))
    half = round(_HALF_FIELD_MM / GRID_MM)
    first, last = max(0, middle - half), min(hu.shape[2], middle + half)
    few = [_scores(hu[d : d + _AT_ONCE, :, first:last], tissue) for d in range(0, len(hu), _AT_ONCE)]
    return np.concatenate(few), first, middle


def _scores(hu: Array32, tissue: Tissue) -> Array32:
    """Ring score (D, H/2, W/2) of every second pixel of a few slices (D, H, W)."""
    bone = tissue.boneness(hu)
    at = _Shifts(bone)
    closed: Array32 = at.zeros()
    rays = []
    for aims in _AIMS:
        rays.append(at.most(aims))
        closed += rays[-1] / 2
    for one, opposite in zip(rays[: _RAYS // 2], rays[_RAYS // 2 :], strict=True):
        closed += np.minimum(one, opposite)
    inside = at.most([(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1), (0, 2), (0, -2)])
    closed /= _RAYS
    score = at.picture(closed - inside)
    front = ndimage.uniform_filter(bone, (1, 11, 9))
    front = np.roll(front, round(_FRONT_MM / GRID_MM), axis=1)[:, ::2, ::2]
    score += np.clip(front, 0, 0.4)
    # Air in the middle: trachea, bowel, lung between ribs.
    score[ndimage.uniform_filter(np.clip(hu, -1000, 300), (1, 3, 3))[:, ::2, ::2] < -150] = -1
    return score


class _Shifts:
    """Every second pixel of an image (D, H, W), and the same shifted by some pixels, as flat arrays.

    The image is padded and split into its even and odd rows and columns, so that a shift is a stretch of memory: maxima
    over many shifts then take a third of the time of those over strided views.
    """

    def __init__(self, image: Array32) -> None:
        padded = np.pad(image, ((0, 1), (_PAD, _PAD + image.shape[1] % 2), (_PAD, _PAD + image.shape[2] % 2)))
        self._parts = {(r, c): padded[:, r::2, c::2].copy() for r in (0, 1) for c in (0, 1)}
        depth, self._rows, self._columns = self._parts[0, 0].shape
        self._shape = (depth - 1, (image.shape[1] + 1) // 2, (image.shape[2] + 1) // 2)
        self._size = self._shape[0] * self._rows * self._columns

    def zeros(self) -> Array32:
        """A flat array of zeros."""
        return np.zeros(self._size, np.float32)

    def most(self, shifts: list[tuple[int, int]]) -> Array32:
        """The greatest value (flat) at these shifts: row and column, at most _PAD."""
        first, *others = map(self._shifted, shifts)
        out = first.copy()
        for other in others:
            np.maximum(out, other, out=out)
        return out

    def picture(self, flat: Array32) -> Array32:
        """A flat array as (D, H/2, W/2)."""
        _, rows, columns = self._shape
        return flat.reshape(-1, self._rows, self._columns)[:, :rows, :columns]

    def _shifted(self, shift: tuple[int, int]) -> Array32:
        row, column = shift[0] + _PAD, shift[1] + _PAD
        start = row // 2 * self._columns + column // 2
        return self._parts[row % 2, column % 2].ravel()[start : start + self._size]


def _best_path(score: Array32, middle: float, offset: float) -> IndexArray:
    """Indices (n, 3) into `score` of the path with the greatest sum of score minus `offset`, from low to high slices
    (local alignment)."""
    depth, rows, columns = score.shape
    aside = np.abs(np.arange(columns) - middle) * 2 * GRID_MM
    gain = ndimage.uniform_filter1d(score, 3, axis=0) - np.float32(offset)
    gain -= np.clip((aside - _FREE_LR_MM) / _FADE_LR_MM, 0, None).astype(np.float32)
    total = np.zeros_like(score)
    came = np.zeros(score.shape, np.int8)
    padded = np.full((rows + 4, columns + 4), -np.inf, np.float32)
    best = padded[2:-2, 2:-2]
    best[:] = 0
    # The last choice is to start the path here.
    choices = np.zeros((len(_STEPS) + 1, rows, columns), np.float32)
    for d in range(depth):
        for choice, (i, j) in zip(choices, _STEPS, strict=False):
            cost = np.float32(_MOVE_AP * i * i + _MOVE_LR * j * j)
            np.subtract(padded[2 + i : 2 + i + rows, 2 + j : 2 + j + columns], cost, out=choice)
        came[d] = choices.argmax(axis=0)
        best[:] = total[d] = choices.max(axis=0) + gain[d]
    d, h, w = (int(n) for n in np.unravel_index(int(total.argmax()), total.shape))
    path: list[tuple[int, int, int]] = []
    while total[d, h, w] > 0:
        path.append((d, h, w))
        move = int(came[d, h, w])
        if move == len(_STEPS) or d == 0:
            break
        d, h, w = d - 1, h + _STEPS[move][0], w + _STEPS[move][1]
    return np.array(path[::-1], np.intp).reshape(-1, 3)
