"""What a NIfTI file needs before its voxels can be read: its bytes without gzip, and its orientation."""

from __future__ import annotations

import gzip
import io
import zlib
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt

from spinemet.errors import Reason, StudyExcluded, StudyFailed
from spinemet.types import Array

GUNZIP_PIECE = 16 << 20
MOST_DEFLATE_RATIO = 1032
"""Deflate cannot make bytes fewer by more than this."""
SAME_MM = 0.02
"""Two orientations, or two voxel sizes, are the same if no entry differs by more than this share or this many mm."""
_TEMPLATE_CODES = range(3, 6)
"""Codes of an sform in the space of a template (Talairach, MNI), whose millimetres are not the patient's."""


def gunzip(content: bytes, limit: int) -> npt.NDArray[np.uint8] | bytearray:
    """The bytes of a gzip file, at most `limit`.

    libdeflate is 2.7 times as fast as zlib, but reads one member of a known size (pigz, nibabel, ITK and gzip write
    one). Everything else is read by Python's gzip: bgzip's many members, a file beyond 4 GiB, and broken ones.
    Raises StudyExcluded(MEMORY_LIMIT) if there are more bytes, StudyFailed(BROKEN_ARCHIVE) if the file is broken.
    """
    checksum, size = (int.from_bytes(content[start:][:4], "little") for start in (-8, -4))
    if 0 < size <= min(limit, MOST_DEFLATE_RATIO * len(content)):
        plain = np.empty(size, np.uint8)
        try:
            whole = len(imagecodecs.gzip_decode(content, out=plain.data)) == size
        except (imagecodecs.GzipError, ValueError):
            whole = False
        # libdeflate stops after the first member; the checksum at the end is that of the last.
        if whole and imagecodecs.deflate_crc32(plain) == checksum:  # type: ignore[arg-type] # takes any buffer
            return plain
    return _in_pieces(content, limit)


def _in_pieces(content: bytes, limit: int) -> bytearray:
    plain = bytearray()
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as stream:
            # In pieces, because one read of the limit would allocate all of it, more than a reader process may have.
            while len(plain) <= limit and (piece := stream.read(GUNZIP_PIECE)):
                plain += piece
    except (OSError, EOFError, zlib.error) as error:
        raise StudyFailed(Reason.BROKEN_ARCHIVE, "expected a readable gzip file, found a broken one.") from error
    if len(plain) > limit:
        raise StudyExcluded(Reason.MEMORY_LIMIT, f"expected a NIfTI file of at most {limit} bytes, found more.")
    return plain


def orientation(header: Any) -> tuple[Array, bool]:
    """(affine of index to RAS, whether the header contradicts itself about it), from a nibabel NIfTI header.

    The sform wins, as in nibabel, unless it is unusable, or belongs to a template, or its voxels have another size
    than `pixdim`, and there is a better qform. Raises StudyExcluded(NO_GEOMETRY) if neither is set and usable.
    """
    if header["qform_code"] <= 0 and header["sform_code"] <= 0:
        raise StudyExcluded(Reason.NO_GEOMETRY, "expected a NIfTI file with an orientation, found none.")
    usable = [form for form in (_sform(header), _qform(header)) if form is not None]
    if not usable:
        detail = "expected an sform or qform that gives each voxel a place, found neither in the NIfTI header."
        raise StudyExcluded(Reason.NO_GEOMETRY, detail)
    sizes = np.abs(np.asarray(header["pixdim"][1:4], np.float64))

    def doubts(form: tuple[int, Array]) -> tuple[bool, bool]:
        return form[0] in _TEMPLATE_CODES, not _same(np.linalg.norm(form[1][:3, :3], axis=0), sizes)

    best = min(usable, key=doubts)
    disputed = any(doubts(best)) or any(not _same(form[1], best[1]) for form in usable)
    return best[1], disputed


def _sform(header: Any) -> tuple[int, Array] | None:
    affine = header.get_sform()
    return (int(header["sform_code"]), affine) if header["sform_code"] > 0 and _invertible(affine) else None


def _qform(header: Any) -> tuple[int, Array] | None:
    if header["qform_code"] <= 0:
        return None
    try:
        affine = header.get_qform()
    except ValueError:  # a quaternion longer than 1, or a negative voxel size
        return None
    return (int(header["qform_code"]), affine) if _invertible(affine) else None


def _invertible(affine: Array) -> bool:
    return bool(np.all(np.isfinite(affine))) and abs(np.linalg.det(affine[:3, :3])) > 1e-9


def _same(one: Array, other: Array) -> bool:
    return bool(np.allclose(one, other, rtol=SAME_MM, atol=SAME_MM))
