"""The chosen series, or a NIfTI file, as a volume in HU with its LPS affine. README.md here has the reading speed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spinemet.archive.layouts.nifti import NiftiObjects
from spinemet.archive.objects import StudyObjects
from spinemet.dicom.decoding import SliceDecoder
from spinemet.dicom.geometry import SliceGrid, arrange
from spinemet.dicom.hounsfield import check_hu
from spinemet.dicom.interleaved import one_pass
from spinemet.dicom.nifti import gunzip, orientation
from spinemet.dicom.pixels import MOST_HU, WHOLE_TOLERANCE, PixelArray
from spinemet.dicom.values import quiet_readers
from spinemet.errors import BadInput, BrokenSlices, Reason, StudyExcluded, StudyFailed, StudyProblem
from spinemet.types import AIR_HU, Array, Array32, Flag, InstanceHeader, SeriesHeader, Volume

MAX_VOXELS = 2 << 30
"""4 GiB of int16; a whole body at 0.5 mm takes a third of that."""
NIFTI_HEADER_BYTES = 4 << 20
"""Enough for the header and its extensions, which have some kilobytes in real files."""
AXES_TOLERANCE = 1e-3
"""Largest cosine between two axes of a NIfTI affine that count as perpendicular."""


def read_volume(objects: StudyObjects, series: SeriesHeader, decoder: SliceDecoder | None = None) -> Volume:
    """The volume of one classic or Enhanced CT series.

    decoder: a decoder of `objects` that may have decoded slices ahead; None makes one for this volume.

    Array order: slices along their normal, rows, columns as stored; an oblique series stays oblique. Padding and all
    values below AIR_HU become AIR_HU. Slices at the same position must be identical; one of them is kept. Of two passes
    with slices in turn, one is read (interleaved.py). Flags:
    DESKEWED, LOSSY, DIVIDED, LEFT_OUT, INTERPOLATED_SLICE, and the series' doubts.
    Raises StudyExcluded: NO_GEOMETRY, TOO_FEW_SLICES, GAPS, SHEARED (see geometry.arrange), DUPLICATE_POSITIONS,
    UNSUPPORTED_PIXELS (colour, no rescale to HU), NOT_HU, MEMORY_LIMIT; BrokenSlices: TRUNCATED, UNDECODABLE; and what
    StudyObjects raises.
    """
    volume = assemble(objects, series, decoder)
    check_hu(volume.hu_DHW)
    return one_pass(volume)


def assemble(objects: StudyObjects, series: SeriesHeader, decoder: SliceDecoder | None = None) -> Volume:
    """The volume of read_volume with whatever values its slices hold."""
    grid = arrange(series.instances)
    first = series.instances[0]
    applies = {
        Flag.DESKEWED: grid.is_sheared,
        Flag.LOSSY: series.lossy,
        Flag.DIVIDED: series.divided,
    }
    flags = [*(flag for flag, is_set in applies.items() if is_set), *series.doubts]
    if grid.count * first.Rows * first.Columns > MAX_VOXELS:
        raise StudyExcluded(Reason.MEMORY_LIMIT, f"expected at most {MAX_VOXELS} voxels, found more.")
    with SliceDecoder(objects) if decoder is None else nullcontext(decoder) as slices:
        hu_DHW, repeated = _stack(slices, series.instances, grid)
    if series.left_out + repeated:
        flags.append(Flag.LEFT_OUT)
    for place in grid.missing:
        between = (hu_DHW[place - 1].astype(np.float32) + hu_DHW[place + 1]) / 2
        hu_DHW[place] = between if hu_DHW.dtype == np.float32 else np.rint(between)
        flags.append(Flag.INTERPOLATED_SLICE)
    hu_DHW, affine = _deskew(hu_DHW, grid) if grid.is_sheared else (hu_DHW, grid.affine)
    return Volume(hu_DHW, affine, tuple(flags), series.left_out + repeated)


def read_nifti(objects: NiftiObjects) -> Volume:
    """The volume of a NIfTI study, with its axes turned to D superior, H posterior, W left.

    Raises StudyExcluded: NO_GEOMETRY (no orientation), SHEARED, NOT_CT (a label map), NOT_HU, UNSUPPORTED_PIXELS (not
    3-D, not numbers), MEMORY_LIMIT; StudyFailed: UNDECODABLE; and what StudyObjects raises.
    """
    array_DHW, affine, disputed = nifti_grid(objects.read(objects.image))
    if array_DHW.min() >= 0 and array_DHW.max() <= 255:
        raise StudyExcluded(Reason.NOT_CT, "expected HU, found values from 0 to 255, as label maps and pictures have.")
    hu_DHW = _compact(array_DHW)
    check_hu(hu_DHW)
    return one_pass(Volume(hu_DHW, affine, (Flag.ORIENTATION_DISPUTED,) if disputed else ()))


@quiet_readers()
def nifti_grid(content: bytes) -> tuple[npt.NDArray[np.generic], Array, bool]:
    """(array (D, H, W), affine (4, 4) of index (d, h, w) to LPS, whether it is disputed) of a NIfTI file.

    Disputed: see nifti.orientation. Raises as read_nifti does.
    """
    import nibabel as nib
    from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

    try:
        plain: Any = gunzip(content, MAX_VOXELS * 4) if content[:2] == b"\x1f\x8b" else content
        image = nib.Nifti1Image.from_bytes(bytes(plain[:NIFTI_HEADER_BYTES]))
        to_ras, disputed = orientation(image.header)
        kind = image.get_data_dtype().kind
        shape = image.shape[:3] if all(n == 1 for n in image.shape[3:]) else image.shape
        if len(shape) != 3 or min(shape) < 2 or kind not in "iuf":
            raise StudyExcluded(Reason.UNSUPPORTED_PIXELS, "expected a 3-D NIfTI volume of numbers, found another.")
        # A view of the bytes, because nibabel would copy them.
        raw: Any = image.dataobj
        stored: npt.NDArray[Any] = np.ndarray(shape, raw.dtype, plain, raw.offset, order="F")
        values = stored if (raw.slope, raw.inter) == (1, 0) else stored * raw.slope + raw.inter
        to_lps = ornt_transform(io_orientation(to_ras), axcodes2ornt(("L", "P", "S")))
        array_WHD = apply_orientation(values, to_lps)
        affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ to_ras @ inv_ornt_aff(to_lps, shape)  # RAS+ to LPS
    except (StudyProblem, MemoryError):
        raise
    except Exception as error:  # broken bytes make nibabel raise any kind of error
        raise StudyFailed(Reason.UNDECODABLE, "expected a readable NIfTI file, found a broken one.") from error
    affine = affine[:, [2, 1, 0, 3]]
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.all(np.isfinite(affine)) or lengths.min() < 1e-3:
        raise StudyExcluded(Reason.NO_GEOMETRY, "expected a NIfTI affine that can be inverted, found another.")
    cosines = (affine[:3, :3] / lengths).T @ (affine[:3, :3] / lengths)
    if np.abs(cosines - np.eye(3)).max() > AXES_TOLERANCE:
        raise StudyExcluded(Reason.SHEARED, "expected a NIfTI affine with perpendicular axes, found a sheared one.")
    return np.transpose(array_WHD, (2, 1, 0)), affine, disputed


def write_nifti(volume: Volume, path: str | Path) -> None:
    """Write the volume as NIfTI-1 (`.nii` or `.nii.gz`) with its affine, voxels in the order of the volume.

    Raises BadInput if the name has another ending or the place cannot be written.
    """
    import nibabel as nib

    if not str(path).endswith((".nii", ".nii.gz")):
        raise BadInput(f"expected a name that ends in .nii or .nii.gz, found {path}.")
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine[:, [2, 1, 0, 3]]
    image = nib.Nifti1Image(np.transpose(volume.hu_DHW, (2, 1, 0)), affine)
    image.header.set_xyzt_units("mm")
    try:
        nib.save(image, str(path))
    except OSError as error:
        raise BadInput(f"expected a place that can be written at {path}, found {error.strerror}.") from error


def _stack(decoder: SliceDecoder, instances: Sequence[InstanceHeader], grid: SliceGrid) -> tuple[PixelArray, int]:
    """(HU (D, H, W) of all slices at their places, how many repeat another one); missing places are undefined.

    Raises BrokenSlices after all others were decoded.
    """
    first = instances[0]
    hu_DHW: PixelArray = np.empty((grid.count, first.Rows, first.Columns), np.int16)
    slices = decoder.slices([instances[index] for index in grid.order])
    problems: dict[int, StudyFailed] = {}
    for place, at_place in groupby(zip(grid.place.tolist(), slices, strict=True), itemgetter(0)):
        try:
            hu_HW = _one_slice([slice_ for _, slice_ in at_place], hu_DHW.shape[1:])
        except StudyFailed as problem:
            problems[place] = problem
            continue
        if hu_HW.dtype == np.float32 and hu_DHW.dtype == np.int16:
            hu_DHW = hu_DHW.astype(np.float32)
        hu_DHW[place] = hu_HW
    if problems:
        first_problem = next(iter(problems.values()))
        broken = frozenset(grid.order[np.isin(grid.place, list(problems))].tolist())
        raise BrokenSlices(first_problem.reason, first_problem.detail, broken)
    return hu_DHW, len(instances) - len(set(grid.place.tolist()))


def _one_slice(at_place: Sequence[PixelArray | StudyFailed], shape: tuple[int, ...]) -> PixelArray:
    """The slice at one place, if those that can be decoded are identical."""
    whole = [hu_HW for hu_HW in at_place if not isinstance(hu_HW, StudyFailed)]
    for problem in at_place:
        if isinstance(problem, StudyFailed) and not whole:
            raise problem
    for hu_HW in whole:
        if hu_HW.shape != shape:
            raise StudyFailed(Reason.UNDECODABLE, f"expected slices of {shape} pixels, found {hu_HW.shape}.")
        if hu_HW is not whole[0] and not np.array_equal(whole[0], hu_HW):
            raise StudyExcluded(Reason.DUPLICATE_POSITIONS, "expected one slice per position, found different ones.")
    return whole[0]


def _deskew(hu_DHW: PixelArray, grid: SliceGrid) -> tuple[PixelArray, Array]:
    """The slices shifted within their own plane onto an orthogonal grid that holds all of them, and its affine.

    The grid keeps the slices' normal: interpolation is linear within each slice, and none happens between slices.
    """
    per_row, per_column = grid.drift_mm[1] / grid.pixel_spacing[0], grid.drift_mm[0] / grid.pixel_spacing[1]
    steps = np.arange(grid.count)
    shift_H, shift_W = steps * per_row, steps * per_column
    start_H, start_W = int(np.floor(shift_H.min())), int(np.floor(shift_W.min()))
    height = hu_DHW.shape[1] + int(np.ceil(shift_H.max())) - start_H
    width = hu_DHW.shape[2] + int(np.ceil(shift_W.max())) - start_W
    if grid.count * height * width > MAX_VOXELS:
        raise StudyExcluded(Reason.MEMORY_LIMIT, f"expected at most {MAX_VOXELS} voxels, found more.")
    straight = np.full((grid.count, height, width), AIR_HU, hu_DHW.dtype)
    for place, hu_HW in enumerate(hu_DHW):
        moved = _shift(hu_HW.astype(np.float32), shift_H[place] - start_H, height, 0)
        moved = _shift(moved, shift_W[place] - start_W, width, 1)
        straight[place] = moved if straight.dtype == np.float32 else np.rint(moved)
    affine = grid.affine.copy()
    affine[:3, 3] += affine[:3, 1] * start_H + affine[:3, 2] * start_W
    return straight, affine


def _shift(image: Array32, shift: float, length: int, axis: int) -> Array32:
    """`image` moved by `shift` >= 0 pixels along `axis` into AIR_HU of `length`, with linear interpolation."""
    whole, part = int(np.floor(shift)), np.float32(shift - np.floor(shift))
    pad = [(0, 0), (0, 0)]
    pad[axis] = (whole, length - image.shape[axis] - whole)
    moved = np.pad(image, pad, constant_values=AIR_HU)
    if part < WHOLE_TOLERANCE:
        return moved
    before = np.roll(moved, 1, axis)
    return moved * (1 - part) + before * part


def _compact(array_DHW: npt.NDArray[np.generic]) -> PixelArray:
    """HU clipped to AIR_HU and above, NaN as AIR_HU; int16 if every value is whole."""
    whole = array_DHW.dtype.kind in "iu" or all(np.array_equal(np.rint(hu), hu) for hu in map(_in_range, array_DHW))
    hu_DHW: PixelArray = np.empty(array_DHW.shape, np.int16 if whole else np.float32)
    for place, values_HW in enumerate(array_DHW):
        hu_DHW[place] = _in_range(values_HW)
    return hu_DHW


def _in_range(values_HW: npt.NDArray[np.generic]) -> npt.NDArray[np.float32] | npt.NDArray[np.int64]:
    if values_HW.dtype.kind in "iu":
        # 64 bits, because NumPy rejects limits outside the type's range.
        return np.clip(values_HW.astype(np.int64), AIR_HU, MOST_HU)
    return np.clip(np.nan_to_num(values_HW.astype(np.float32), nan=AIR_HU), AIR_HU, MOST_HU)
