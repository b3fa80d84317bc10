"""What the numbers of a NIfTI label map or mask mean: the scheme of a label map, the voxels of a mask."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from spinemet.anatomy import (
    LEVEL_INDEX,
    NUMBERINGS,
    TOTALSEGMENTATOR_1_LEVELS,
    TOTALSEGMENTATOR_LEVELS,
    VERSE_LEVELS,
    Numbering,
    spacing_ratios,
)
from spinemet.errors import Reason, StudyFailed
from spinemet.types import Array, BoolArray

MIN_VOXELS = 5
"""A label with fewer voxels is noise, not a vertebra."""
MOST_NUMBERS = 1024
USUAL_SPACING = (0.7, 1.4)
"""Ratios (anatomy.spacing_ratios) that numbers must keep to. Adults differ from the mean by a tenth; TotalSegmentator 1
read as version 2 gives 0.64, five lumbar vertebrae numbered from 1 and read as VerSe 2.1."""
_TALLEST_MM = 130.0
"""No vertebra is as tall, its spinous process included; a mask of many is."""
_BESIDE_MM, _BEYOND_MM = 20.0, 85.0
_OTHER_SIZE = (0.3, 3.0)
"""A label that no scheme names looks like a vertebra if its centre lies so close to the row of the named ones, or to
its continuation, and if its volume is such a multiple of their median."""
_LEAST_VERSION_1, _ONLY_VERSION_1 = 4, frozenset(range(18, 25))
"""TotalSegmentator 1 is believed if it names so many labels, one of them by a number of organs in version 2."""
_NEARLY_WHOLE, _MOST_BETWEEN = 0.01, 0.01
"""A label map stored as float may be off by the first value; more than the second share beyond it was interpolated."""
_FULL_SCALES = (1.0, 100.0, 255.0)


@dataclass(frozen=True)
class _Blob:
    """The voxels of one number."""

    number: int
    center_mm: Array
    ml: float
    tall_mm: float
    is_cut: bool


def whole_numbers(values_DHW: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """The numbers of a label map, also of one stored as float (19.0, 18.999998); NaN and negative values are 0.

    Raises StudyFailed(BAD_SEGMENTATION) if they are probabilities or interpolated: 18.4 between 0 and 19 is no T11.
    """
    if values_DHW.dtype.kind != "f":
        # 64 bits, because NumPy rejects limits outside the type's range.
        whole = values_DHW.astype(np.int32 if values_DHW.itemsize <= 2 else np.int64)
        return np.clip(whole, 0, MOST_NUMBERS, out=whole).astype(np.int32, copy=False)
    values = np.clip(np.nan_to_num(values_DHW, nan=0.0), 0, MOST_NUMBERS)
    rounded = np.rint(values)
    between = np.count_nonzero(np.abs(values - rounded) > _NEARLY_WHOLE)
    if between > _MOST_BETWEEN * max(1, int(np.count_nonzero(values > _NEARLY_WHOLE))):
        raise _refusal(
            "expected whole numbers in the label map, found fractions: probabilities or interpolated labels."
        )
    return rounded.astype(np.int32)


def mask_of(values_DHW: npt.NDArray[Any]) -> BoolArray:
    """The voxels inside a mask of one structure: from half of its full scale (1, 100 or 255) on, or of its one number.

    NaN is outside. Raises StudyFailed(BAD_SEGMENTATION) for other values, which are no mask: several labels, logits.
    """
    values = np.nan_to_num(values_DHW, nan=0.0) if values_DHW.dtype.kind == "f" else values_DHW
    least, most = float(values.min(initial=0)), float(values.max(initial=0))
    scale = next((full for full in _FULL_SCALES if most <= full * 1.001), np.inf)
    if least >= -0.5:
        if most <= 1.001:
            return np.asarray(values >= 0.5)
        inside = np.asarray(values >= most / 2)
        one_number = most - float(values[inside].min()) <= _NEARLY_WHOLE and values[~inside].max(initial=0) < 0.5
        if one_number or most >= scale * 0.999:
            return inside
    detail = f"expected a mask (0 and 1, or probabilities), found values from {least:g} to {most:g}."
    raise _refusal(detail)


def numbering(numbers_DHW: npt.NDArray[np.int32], affine: Array) -> Mapping[int, str]:
    """The levels of a label map's numbers, in the one scheme of NUMBERINGS that fits.

    A scheme fits if its levels lie in order, at usual distances (USUAL_SPACING), and if no label that looks like a
    vertebra is left over. Raises StudyFailed(BAD_SEGMENTATION) if no scheme fits, or if several do.

    numbers_DHW: at most MOST_NUMBERS; D runs from inferior to superior. affine: from index to LPS.
    """
    blobs = list(_blobs(numbers_DHW, affine))
    if not blobs:
        raise _refusal("expected vertebra labels in the label map, found none.")
    if [blob.number for blob in blobs] == [1]:
        raise _refusal("the label map holds 1 alone, a mask without a level.")
    problems = {scheme.name: _problem(scheme, blobs) for scheme in NUMBERINGS}
    fitting = [scheme.levels for scheme in NUMBERINGS if not problems[scheme.name]]
    if TOTALSEGMENTATOR_LEVELS in fitting:
        # Version 2 leaves no vertebra over, so what version 1 would name below 25 are organs.
        fitting = [levels for levels in fitting if levels is not TOTALSEGMENTATOR_1_LEVELS]
    names = [tuple(levels.get(blob.number) for blob in blobs) for levels in fitting]
    fewest = min((one.count(None) for one in names), default=0)
    best = [n for n, one in enumerate(names) if one.count(None) == fewest]
    if len({names[n] for n in best}) == 1:
        return fitting[best[0]]
    if names:
        raise _refusal("the label's number means different levels in VerSe and in TotalSegmentator.")
    told = "; ".join(f"{name}: {problem}" for name, problem in problems.items())
    raise _refusal(f"the numbers of {len(blobs)} labels fit no known scheme ({told}).")


def _blobs(numbers_DHW: npt.NDArray[np.int32], affine: Array) -> Iterable[_Blob]:
    voxel_ml = abs(float(np.linalg.det(affine[:3, :3]))) / 1000
    for number, box in enumerate(ndimage.find_objects(numbers_DHW), start=1):
        if box is None:
            continue
        inside = numbers_DHW[box] == number
        voxels = np.count_nonzero(inside)
        if voxels < MIN_VOXELS:
            continue
        sides = [inside.sum(axis=tuple({0, 1, 2} - {axis})) for axis in range(3)]
        index = [float(np.arange(len(n)) @ n / voxels) + side.start for n, side in zip(sides, box, strict=True)]
        tall = (box[0].stop - box[0].start) * float(np.linalg.norm(affine[:3, 0]))
        is_cut = box[0].start == 0 or box[0].stop == len(numbers_DHW)
        yield _Blob(number, affine[:3, :3] @ index + affine[:3, 3], voxels * voxel_ml, tall, is_cut)


def _problem(scheme: Numbering, blobs: list[_Blob]) -> str:
    """Why the numbers are not those of `scheme`; empty if they may be."""
    named = [blob for level in LEVEL_INDEX for blob in blobs if scheme.levels.get(blob.number) == level]
    numbers = {blob.number for blob in blobs}
    if not named:
        return "names none of them"
    if scheme.levels is VERSE_LEVELS and max(numbers) > max(VERSE_LEVELS):
        return f"has no {max(numbers)}"
    # From 25 on they mean vertebrae in version 2 as well, far more often meant. VerSe upside down counts up as well.
    if scheme.levels is TOTALSEGMENTATOR_1_LEVELS and (len(named) < _LEAST_VERSION_1 or not numbers & _ONLY_VERSION_1):
        return "too few of its own"
    if any(a.center_mm[2] <= b.center_mm[2] for a, b in pairwise(named)):
        return "not in order"
    levels = [scheme.levels[blob.number] for blob in named]
    if any(blob.tall_mm > _TALLEST_MM for blob, level in zip(named, levels, strict=True) if level != "S1"):
        return "taller than a vertebra"
    whole = [blob for blob in named if not blob.is_cut]
    ratios = spacing_ratios([scheme.levels[blob.number] for blob in whole], [blob.center_mm.tolist() for blob in whole])
    if not all(USUAL_SPACING[0] <= ratio <= USUAL_SPACING[1] for ratio in ratios):
        return "too near or too far from each other"
    over = [blob for blob in blobs if blob.number not in scheme.levels and blob.number not in scheme.others]
    alike = sum(_in_row(blob, named) for blob in over)
    return f"leaves {alike} over that look like vertebrae" if alike else ""


def _in_row(blob: _Blob, named: list[_Blob]) -> bool:
    """Whether `blob` looks like one more vertebra in the row of `named`, which run from cranial to caudal."""
    size = blob.ml / float(np.median([one.ml for one in named]))
    if not _OTHER_SIZE[0] <= size <= _OTHER_SIZE[1] or blob.tall_mm > _TALLEST_MM:
        return False
    row = np.array([one.center_mm for one in named])
    up, down = -_direction(row[:3]), _direction(row[-3:])
    row = np.vstack([row[0] + _BEYOND_MM * up, row, row[-1] + _BEYOND_MM * down])
    starts, steps = row[:-1], np.diff(row, axis=0)
    along = np.clip(((blob.center_mm - starts) * steps).sum(1) / (steps**2).sum(1), 0, 1)
    return bool(np.linalg.norm(starts + along[:, None] * steps - blob.center_mm, axis=1).min() <= _BESIDE_MM)


def _direction(row: Array) -> Array:
    """The unit vector from the first to the last point of `row`; cranial to caudal if there is one alone."""
    along = row[-1] - row[0] if len(row) > 1 else np.array([0, 0, -1.0])
    return np.asarray(along / np.linalg.norm(along))


def _refusal(detail: str) -> StudyFailed:
    return StudyFailed(Reason.BAD_SEGMENTATION, detail)
