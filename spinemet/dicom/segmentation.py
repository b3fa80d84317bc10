"""A study's own vertebra labels, on the grid of its chosen volume.

They come from DICOM SEG objects (BINARY, FRACTIONAL, LABELMAP) or, in a NIfTI study, from one label map in the numbers
of VerSe or TotalSegmentator, or from masks of one vertebra each.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from spinemet.anatomy import LEVEL_INDEX, TOTALSEGMENTATOR_LEVELS, VERSE_LEVELS, region
from spinemet.archive.layouts.nifti import NiftiObjects
from spinemet.archive.objects import StudyObjects
from spinemet.dicom.values import quiet_dicom
from spinemet.dicom.volume import nifti_grid
from spinemet.errors import Reason, StudyFailed, StudyProblem
from spinemet.types import Array, LabelMap, SeriesHeader, Volume

SAME_GRID_TOLERANCE = 0.05
"""Two grids are equal if their voxels coincide to this share of a voxel."""
MIN_VOXELS = 5
"""A label with fewer voxels is noise, not a vertebra."""
BODY_DEPTH_MM: Mapping[str, float] = {"cervical": 28.0, "thoracic": 45.0, "lumbar": 52.0, "sacral": 60.0}
"""A label deeper than this from front to back holds more than a body. Bodies alone are 15-20 (cervical), 18-35
(thoracic) and 30-40 mm (lumbar) deep; whole vertebrae with their spinous process 45, 60 and 75 mm and more."""

_LEVEL = re.compile(r"(?<![A-Za-z0-9])([CTLS])\s?(\d{1,2})(?![0-9A-Za-z])", re.IGNORECASE)
_NOT_A_VERTEBRA = re.compile(r"dis[ck]|\brib|nerve|cord|lesion|met[as]|tumou?r|canal", re.IGNORECASE)


def find_labels(
    objects: StudyObjects, series: Sequence[SeriesHeader], chosen: SeriesHeader, volume: Volume
) -> LabelMap | None:
    """The vertebra labels of the study on the grid of `volume`; None if it has none.

    A NIfTI study has its labels in masks beside the volume; `series` and `chosen` do not matter then. Of several DICOM
    SEG objects with vertebrae one that refers to the chosen series wins, then one that shares its frame of reference,
    then any other of its study; among equals, the first.
    Raises StudyFailed(BAD_SEGMENTATION) if the study has segmentations but none of them can be read.
    """
    if isinstance(objects, NiftiObjects):
        return _nifti_labels(objects, volume)
    broken: StudyFailed | None = None
    found: list[tuple[int, LabelMap]] = []
    for item in series:
        shares_frame = bool(chosen.FrameOfReferenceUID) and item.FrameOfReferenceUID == chosen.FrameOfReferenceUID
        if item.Modality != "SEG" or not (shares_frame or item.StudyInstanceUID == chosen.StudyInstanceUID):
            continue
        for instance in item.instances:
            try:
                labels, refers = _seg_labels(objects.read(instance.name), chosen, volume)
            except StudyFailed as problem:
                if problem.reason is not Reason.BAD_SEGMENTATION:
                    raise
                broken = problem
                continue
            if labels is not None:
                found.append((0 if refers else 1 if shares_frame else 2, labels))
    if broken is not None and not found:
        raise broken
    return min(found, key=lambda pair: pair[0])[1] if found else None


def labels_from_nifti(content: bytes, volume: Volume) -> LabelMap:
    """The label map in a NIfTI file, in VerSe or TotalSegmentator numbers, on the grid of `volume`.

    The order of the labels along the patient shows the scheme: VerSe counts down the spine, TotalSegmentator up.
    Raises StudyFailed(BAD_SEGMENTATION) if the file cannot be read or fits neither.
    """
    numbers, affine = _readable_grid(content)
    whole = np.rint(numbers).astype(np.int32) if numbers.dtype.kind == "f" else numbers.astype(np.int32)
    table = _numbers_to_labels(numbering(whole), int(whole.max()))
    return _label_map(table[np.maximum(whole, 0)], affine, volume)


def numbering(numbers_DHW: npt.NDArray[np.int32]) -> Mapping[int, str]:
    """The scheme of a label map's numbers: VERSE_LEVELS or TOTALSEGMENTATOR_LEVELS.

    D runs from inferior to superior. Raises StudyFailed(BAD_SEGMENTATION) if the order of the labels fits neither.
    """
    most = max(0, min(int(numbers_DHW.max()), 4 * 256))
    counts_DN = np.stack([np.bincount(np.clip(plane, 0, most).ravel(), minlength=most + 1) for plane in numbers_DHW])
    voxels = counts_DN.sum(axis=0)
    present = [n for n in range(1, most + 1) if voxels[n] >= MIN_VOXELS]
    heights = {n: float(np.arange(len(counts_DN)) @ counts_DN[:, n] / voxels[n]) for n in present}
    # Only TotalSegmentator uses 29 to 50; it gives VerSe's numbers to organs.
    is_total = any(28 < n <= 50 for n in present)
    schemes = [TOTALSEGMENTATOR_LEVELS] if is_total else [VERSE_LEVELS, TOTALSEGMENTATOR_LEVELS]
    named = [[n for level in LEVEL_INDEX for n in present if scheme.get(n) == level] for scheme in schemes]
    most_named = max(map(len, named))
    # A single label is always in order: it proves nothing if the other scheme names several.
    fitting = [
        (len(labels), scheme)
        for scheme, labels in zip(schemes, named, strict=True)
        if labels and len(labels) >= min(2, most_named) and all(heights[a] > heights[b] for a, b in pairwise(labels))
    ]
    if not fitting:
        detail = f"{len(present)} labels fit neither the numbers of VerSe nor those of TotalSegmentator."
        raise StudyFailed(Reason.BAD_SEGMENTATION, detail)
    return max(fitting, key=lambda pair: pair[0])[1]


def level_in(text: str) -> str | None:
    """The level in a segment's name (`T1 vertebra`, `vertebrae_L3`); None for discs, ribs and everything else."""
    if _NOT_A_VERTEBRA.search(text):
        return None
    levels = {f"{match[1].upper()}{int(match[2])}" for match in _LEVEL.finditer(text)}
    named = levels & LEVEL_INDEX.keys()
    return named.pop() if len(named) == len(levels) == 1 else None


# ---- DICOM SEG -----------------------------------------------------------------------------------------------


def _seg_labels(content: bytes, chosen: SeriesHeader, volume: Volume) -> tuple[LabelMap | None, bool]:
    """(labels of the vertebrae in one SEG object, whether it refers to the chosen series)."""
    import highdicom as hd

    try:
        with quiet_dicom():
            segmentation = hd.seg.segread(io.BytesIO(content))
            referenced = [item.get("SeriesInstanceUID") for item in segmentation.get("ReferencedSeriesSequence") or []]
            refers = bool(chosen.SeriesInstanceUID) and chosen.SeriesInstanceUID in referenced
            levels = _segment_levels(segmentation)
            if not levels:
                return None, refers
            labels_DHW, affine = _seg_grid(segmentation, levels)
    except Exception as error:  # highdicom and pydicom raise whatever the bytes provoke
        raise StudyFailed(Reason.BAD_SEGMENTATION, f"the DICOM SEG is broken ({type(error).__name__}).") from error
    return (_label_map(labels_DHW, affine, volume) if labels_DHW.any() else None), refers


def _seg_grid(segmentation: Any, levels: Mapping[int, str]) -> tuple[npt.NDArray[np.uint8], Array]:
    """(label map, affine) of the segments in `levels`, on the grid of the SEG object; absent frames are empty."""
    table = _numbers_to_labels(levels)
    if segmentation.SegmentationType != "FRACTIONAL":
        stacked = segmentation.get_volume(segment_numbers=list(levels), combine_segments=True, skip_overlap_checks=True)
        return table[stacked.array], np.asarray(stacked.affine, np.float64)
    stacked = segmentation.get_volume(segment_numbers=list(levels), rescale_fractional=True)  # (D, H, W, segment)
    labels_DHW = np.zeros(stacked.array.shape[:3], np.uint8)
    for place, number in enumerate(levels):
        labels_DHW[stacked.array[..., place] >= 0.5] = table[number]
    return labels_DHW, np.asarray(stacked.affine, np.float64)


def _segment_levels(segmentation: Any) -> dict[int, str]:
    """Segment number to level, for the segments that are vertebrae."""
    levels: dict[int, str] = {}
    for segment in segmentation.SegmentSequence:
        coded = segment.get("SegmentedPropertyTypeCodeSequence") or []
        names = [segment.get("SegmentLabel", ""), *(item.get("CodeMeaning", "") for item in coded)]
        level = next((level for name in names if (level := level_in(str(name)))), None)
        if level is not None and segment.SegmentNumber > 0:
            levels[int(segment.SegmentNumber)] = level
    return levels


# ---- grids ---------------------------------------------------------------------------------------------------


def _nifti_labels(objects: NiftiObjects, volume: Volume) -> LabelMap | None:
    """The labels of a label map, or of masks of one vertebra each on one grid; the caudal mask wins an overlap."""
    if objects.label_map is not None:
        return labels_from_nifti(objects.read(objects.label_map), volume)
    masks = objects.vertebra_masks
    by_level = {level: name for name in masks if (level := level_in(name.rpartition("/")[2].split(".")[0]))}
    joined: tuple[npt.NDArray[np.uint8], Array] | None = None
    for level in sorted(by_level, key=LEVEL_INDEX.__getitem__):
        mask_DHW, affine = _readable_grid(objects.read(by_level[level]))
        joined = joined or (np.zeros(mask_DHW.shape, np.uint8), affine)
        if mask_DHW.shape != joined[0].shape or not np.allclose(affine, joined[1], atol=1e-3):
            raise StudyFailed(Reason.BAD_SEGMENTATION, "expected vertebra masks on one grid, found several grids.")
        joined[0][mask_DHW.astype(bool)] = 1 + LEVEL_INDEX[level]
    return _label_map(*joined, volume) if joined else None


def _numbers_to_labels(levels: Mapping[int, str], largest: int = 0) -> npt.NDArray[np.uint8]:
    """A table from numbers, up to `largest` or more, to the values of a LabelMap."""
    table = np.zeros(max(largest, *levels) + 1, np.uint8)
    for number, level in levels.items():
        table[number] = 1 + LEVEL_INDEX[level]
    return table


def _readable_grid(content: bytes) -> tuple[npt.NDArray[np.generic], Array]:
    """The array and affine of a NIfTI label map; StudyFailed(BAD_SEGMENTATION) if it cannot be read."""
    try:
        numbers_DHW, affine, _ = nifti_grid(content)
        return numbers_DHW, affine
    except StudyProblem as problem:
        raise StudyFailed(Reason.BAD_SEGMENTATION, f"expected a readable label map: {problem.detail}") from problem


def _label_map(labels_DHW: npt.NDArray[np.uint8], affine: Array, volume: Volume) -> LabelMap:
    onto = _onto_grid(labels_DHW, affine, volume)
    return LabelMap(onto, volume.affine, _bodies_only(onto, volume.affine))


def _onto_grid(labels_DHW: npt.NDArray[np.uint8], affine: Array, volume: Volume) -> npt.NDArray[np.uint8]:
    """The labels at the voxels of `volume`: nearest neighbour, 0 outside their own grid."""
    shape = volume.hu_DHW.shape
    between = np.linalg.inv(affine) @ volume.affine  # from index in the volume to index in the labels
    matrix = between[:3, :3]
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape])).reshape(3, 8)
    apart = np.abs(matrix @ corners + between[:3, 3:] - corners).max()
    if labels_DHW.shape == shape and apart < SAME_GRID_TOLERANCE:
        return labels_DHW
    along = np.argmax(np.abs(matrix), axis=1)
    rest = matrix.copy()
    rest[np.arange(3), along] = 0
    if sorted(along.tolist()) == [0, 1, 2] and np.abs(rest @ np.array(shape)).max() < SAME_GRID_TOLERANCE:
        # Parallel axes: one look-up per axis instead of one per voxel.
        source = np.pad(np.transpose(labels_DHW, np.argsort(along)), 1)  # with a border of background
        for axis, row in enumerate(np.argsort(along)):
            index = np.rint(matrix[row, axis] * np.arange(shape[axis]) + between[row, 3]).astype(np.intp)
            source = source.take(np.clip(index + 1, 0, source.shape[axis] - 1), axis)
        return source
    moved = ndimage.affine_transform(labels_DHW, matrix, between[:3, 3], output_shape=shape, order=0, cval=0)
    return np.asarray(moved, np.uint8)


def _bodies_only(labels_DHW: npt.NDArray[np.uint8], affine: Array) -> bool:
    """Whether most labels are too shallow from front to back to hold posterior elements; see BODY_DEPTH_MM."""
    shallow = []
    for level, box in zip(LEVEL_INDEX, ndimage.find_objects(labels_DHW), strict=False):
        if box is not None:
            depth = max(abs(step) * (part.stop - part.start) for step, part in zip(affine[1], box, strict=False))
            shallow.append(depth <= BODY_DEPTH_MM[region(level) or "lumbar"])
    return bool(shallow) and sum(shallow) * 2 > len(shallow)
