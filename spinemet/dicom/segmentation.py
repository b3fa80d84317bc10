"""A study's own vertebra labels, on the grid of its chosen volume.

They come from DICOM SEG objects (BINARY, FRACTIONAL, LABELMAP) or, in a NIfTI study, from one label map in the numbers
of VerSe or TotalSegmentator, or from masks of one vertebra each.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from spinemet.anatomy import LEVEL_INDEX, is_other_structure, level_in, may_be_vertebra, region
from spinemet.archive.layouts.nifti import NiftiObjects
from spinemet.archive.objects import StudyObjects
from spinemet.dicom.label_numbers import mask_of, numbering, whole_numbers
from spinemet.dicom.values import quiet_readers
from spinemet.dicom.volume import nifti_grid
from spinemet.errors import Reason, StudyFailed, StudyProblem
from spinemet.types import Array, LabelMap, SeriesHeader, Volume

SAME_GRID_TOLERANCE = 0.05
"""Two grids are equal if their voxels coincide to this share of a voxel."""
BODY_DEPTH_MM: Mapping[str, float] = {"cervical": 28.0, "thoracic": 45.0, "lumbar": 52.0, "sacral": 60.0}
"""A label deeper than this from front to back holds more than a body. Bodies alone are 15-20 (cervical), 18-35
(thoracic) and 30-40 mm (lumbar) deep; whole vertebrae with their spinous process 45, 60 and 75 mm and more."""

_PART = re.compile(
    r"body|corpus|arch|pedicle|lamina|process|posterior|anterior|facet|endplate|left|right", re.IGNORECASE
)
"""Several segments of one vertebra may be its parts."""
_SAME_SHARE = 0.5
"""Two segments are one vertebra if they share this part of the smaller one's voxels."""


def find_labels(
    objects: StudyObjects, series: Sequence[SeriesHeader], chosen: SeriesHeader, volume: Volume
) -> LabelMap | None:
    """The vertebra labels of the study on the grid of `volume`; None if it has none.

    A NIfTI study has its labels in masks beside the volume; `series` and `chosen` do not matter then. Of several DICOM
    SEG objects with vertebrae those that refer to the chosen series win, then those that share its frame of reference,
    then any other of its study. Equals are joined, as some tools write one object per vertebra; of a vertebra that
    several hold, the first counts.
    Raises StudyFailed(BAD_SEGMENTATION) if none of the segmentations can be read, or one of several equals cannot; if
    a segment looks like a vertebra of unknown level; or if two contradict each other.
    """
    if isinstance(objects, NiftiObjects):
        return _nifti_labels(objects, volume)
    broken: StudyFailed | None = None
    joined: dict[int, npt.NDArray[np.uint8]] = {}
    objects_of: Counter[int] = Counter()
    for item in series:
        shares_frame = bool(chosen.FrameOfReferenceUID) and item.FrameOfReferenceUID == chosen.FrameOfReferenceUID
        if item.Modality != "SEG" or not (shares_frame or item.StudyInstanceUID == chosen.StudyInstanceUID):
            continue
        for instance in item.instances:
            try:
                labels_DHW, refers = _seg_labels(objects.read(instance.name), chosen, volume)
            except StudyFailed as problem:
                if problem.reason is not Reason.BAD_SEGMENTATION:
                    raise
                broken = problem
                continue
            if labels_DHW is not None:
                rank = 0 if refers else 1 if shares_frame else 2
                joined[rank] = _join(joined[rank], labels_DHW) if rank in joined else labels_DHW
                objects_of[rank] += 1
    if broken is not None and (not joined or objects_of[min(joined)] > 1):
        raise broken
    if not joined:
        return None
    best_DHW = joined[min(joined)]
    return LabelMap(best_DHW, volume.affine, _bodies_only(best_DHW, volume.affine))


def labels_from_nifti(content: bytes, volume: Volume) -> LabelMap:
    """The label map in a NIfTI file, in the numbers of a public scheme (see label_numbers), on the grid of `volume`.

    Raises StudyFailed(BAD_SEGMENTATION) if the file cannot be read or fits no scheme.
    """
    values, affine = _readable_grid(content)
    numbers = whole_numbers(values)
    table = _numbers_to_labels(numbering(numbers, affine), int(numbers.max()))
    return _label_map(table[numbers], affine, volume)


# ---- DICOM SEG -----------------------------------------------------------------------------------------------


def _seg_labels(content: bytes, chosen: SeriesHeader, volume: Volume) -> tuple[npt.NDArray[np.uint8] | None, bool]:
    """(labels of the vertebrae in one SEG object on the volume's grid, whether it refers to the chosen series)."""
    import highdicom as hd

    try:
        with quiet_readers():
            segmentation = hd.seg.segread(io.BytesIO(content))
            referenced = [item.get("SeriesInstanceUID") for item in segmentation.get("ReferencedSeriesSequence") or []]
            refers = bool(chosen.SeriesInstanceUID) and chosen.SeriesInstanceUID in referenced
            levels = segment_levels(segmentation.SegmentSequence)
            if not levels:
                return None, refers
            labels_DHW, affine = _seg_grid(segmentation, levels)
    except StudyProblem:
        raise
    except Exception as error:  # highdicom and pydicom raise whatever the bytes provoke
        raise StudyFailed(Reason.BAD_SEGMENTATION, "expected a readable DICOM SEG, found a broken one.") from error
    return (_onto_grid(labels_DHW, affine, volume) if labels_DHW.any() else None), refers


def _seg_grid(segmentation: Any, levels: Mapping[int, str]) -> tuple[npt.NDArray[np.uint8], Array]:
    """(label map, affine) of the segments in `levels`, on the grid of the SEG object; absent frames are empty.

    Raises StudyFailed(BAD_SEGMENTATION) if two levels are the same voxels (see `_join`).
    """
    if segmentation.SegmentationType != "FRACTIONAL":
        try:
            stacked = segmentation.get_volume(segment_numbers=list(levels), combine_segments=True)
            return _numbers_to_labels(levels)[stacked.array], np.asarray(stacked.affine, np.float64)
        except RuntimeError:  # the segments overlap
            pass
    labels_DHW: npt.NDArray[np.uint8] | None = None
    for level in dict.fromkeys(levels.values()):
        parts = [number for number, name in levels.items() if name == level]
        stacked = segmentation.get_volume(segment_numbers=parts)  # (D, H, W, segment), fractions from 0 to 1
        one_DHW = (stacked.array >= 0.5).any(axis=-1).astype(np.uint8) * np.uint8(1 + LEVEL_INDEX[level])
        labels_DHW = one_DHW if labels_DHW is None else _join(labels_DHW, one_DHW)
    assert labels_DHW is not None  # `levels` is not empty
    return labels_DHW, np.asarray(stacked.affine, np.float64)


def segment_levels(segments: Iterable[Any]) -> dict[int, str]:
    """Segment number to level, for the segments of a SEG object that are vertebrae.

    Raises StudyFailed(BAD_SEGMENTATION) if a segment looks like a vertebra but has no known level, if its label and
    its codes name different levels, or if two segments have the same level and are not parts of a vertebra.
    """
    levels: dict[int, str] = {}
    whole: set[str] = set()
    unknown = 0
    for segment in segments:
        level, looks_alike = _segment_level(segment)
        unknown += level is None and looks_alike
        if level is None or segment.SegmentNumber <= 0:
            continue
        is_part = _PART.search(str(segment.get("SegmentLabel", ""))) is not None
        if not is_part and level in whole:
            raise StudyFailed(Reason.BAD_SEGMENTATION, f"two segments of the DICOM SEG are named {level}.")
        whole |= set() if is_part else {level}
        levels[int(segment.SegmentNumber)] = level
    if unknown:
        detail = (
            f"{unknown} segments of the DICOM SEG look like vertebrae, but their names or codes are no known level."
        )
        raise StudyFailed(Reason.BAD_SEGMENTATION, detail)
    return levels


def _segment_level(segment: Any) -> tuple[str | None, bool]:
    """(level of a segment, whether it looks like a vertebra), from its label and description, type and region codes."""
    coded = [
        item
        for name in ("SegmentedPropertyTypeCodeSequence", "AnatomicRegionSequence", "PrimaryAnatomicStructureSequence")
        for item in segment.get(name) or []
    ]
    names = [str(segment.get("SegmentLabel", "")), str(segment.get("SegmentDescription", ""))]
    kinds = [str(item.get("CodeMeaning", "")) for item in coded]
    by_name = [level for text in names if (level := level_in(text))]
    by_code = [level for item in coded if (level := _coded_level(item))]
    if any(is_other_structure(text) for text in (*names, *kinds)):
        return None, False
    found = {*by_name[:1], *by_code}
    if len(found) > 1:
        raise StudyFailed(Reason.BAD_SEGMENTATION, "the names of the DICOM SEG's segments contradict their codes.")
    return (found.pop() if found else None), any(map(may_be_vertebra, (*names, *kinds)))


def _coded_level(item: Any) -> str | None:
    """The level of a code: SNOMED CT (also as SNOMED RT, which older objects have), else its meaning in words."""
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code

    code = Code(str(item.get("CodeValue", "")), str(item.get("CodingSchemeDesignator", "")), "")
    for level in LEVEL_INDEX:
        known = getattr(codes.SCT, f"{level}Vertebra", None) if level not in ("T13", "L6", "S1") else None
        if known is not None and code == known:
            return level
    return level_in(str(item.get("CodeMeaning", "")))


def _join(first_DHW: npt.NDArray[np.uint8], second_DHW: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Both label maps in one. Of a level that both hold, and where they overlap, the first counts.

    Raises StudyFailed(BAD_SEGMENTATION) if they give one vertebra two levels, or one level to two vertebrae.
    """
    values = len(LEVEL_INDEX) + 1
    sizes = [np.bincount(labels.ravel(), minlength=values) for labels in (first_DHW, second_DHW)]
    both = (first_DHW > 0) & (second_DHW > 0)
    pairs = first_DHW[both].astype(np.intp) * values + second_DHW[both]
    shared = np.bincount(pairs, minlength=values * values).reshape(values, values)
    smaller = np.minimum.outer(*sizes)
    is_same = shared > _SAME_SHARE * smaller
    twice = np.flatnonzero((sizes[0] > 0) & (sizes[1] > 0))[1:]
    if is_same[~np.eye(values, dtype=bool)].any() or not is_same[twice, twice].all():
        detail = "the segments of the study's vertebrae contradict each other about their levels."
        raise StudyFailed(Reason.BAD_SEGMENTATION, detail)
    added = np.where(np.isin(second_DHW, twice), 0, second_DHW)
    return np.where(first_DHW > 0, first_DHW, added)


# ---- grids ---------------------------------------------------------------------------------------------------


def _nifti_labels(objects: NiftiObjects, volume: Volume) -> LabelMap | None:
    """The labels of a label map, or of masks of one vertebra each on one grid; the caudal mask wins an overlap."""
    if objects.label_map is not None:
        return labels_from_nifti(objects.read(objects.label_map), volume)
    by_level: dict[str, str] = {}
    for name in objects.vertebra_masks:
        level = level_in(name.rpartition("/")[2].split(".")[0])
        if level is None or level in by_level:
            found = "one of no known level" if level is None else f"two of {level}"
            raise StudyFailed(Reason.BAD_SEGMENTATION, f"expected vertebra masks of one level each, found {found}.")
        by_level[level] = name
    joined: tuple[npt.NDArray[np.uint8], Array] | None = None
    for level in sorted(by_level, key=LEVEL_INDEX.__getitem__):
        mask_DHW, affine = _readable_grid(objects.read(by_level[level]))
        joined = joined or (np.zeros(mask_DHW.shape, np.uint8), affine)
        if mask_DHW.shape != joined[0].shape or not np.allclose(affine, joined[1], atol=1e-3):
            raise StudyFailed(Reason.BAD_SEGMENTATION, "expected vertebra masks on one grid, found several grids.")
        joined[0][mask_of(mask_DHW)] = 1 + LEVEL_INDEX[level]
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
