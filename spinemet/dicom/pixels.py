"""The HU of one slice, from a CT object or from its bytes and its header.

imagecodecs decodes 16-bit grey pixels in the usual transfer syntaxes. Its JPEG 2000, JPEG-LS and JPEG Lossless decoders
release Python's lock, so that threads help; those behind pydicom hold it. Its RLE decoder is six times as fast as
pydicom's. pydicom decodes everything else and every object that looks unusual. If the header pass has found the
pixels, the object is not parsed again, because parsing takes longer than decoding uncompressed pixels. README.md in
this folder has the decoding times.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

import imagecodecs
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.utils import pixel_array

from spinemet.dicom.values import functional_group, integer, number, stored_pixels, transfer_syntax, value_of
from spinemet.errors import Reason, StudyExcluded, StudyFailed
from spinemet.types import AIR_HU, Array32, InstanceHeader, StoredPixels

MOST_HU = 32767
PADDING_BELOW_HU = -900.0
PADDING_ABOVE_HU = 3071.0
"""PixelPaddingValue counts only if its HU lies outside these two: some headers declare 0, which is water."""
WHOLE_TOLERANCE = 1e-6
END_BYTES = 64
"""The end marker of a codestream is searched in the last so many bytes; padding may follow it."""

PixelArray = npt.NDArray[np.int16] | Array32
_Uint16Array = npt.NDArray[np.uint16]

_JPEG = "1.2.840.10008.1.2.4."
_NATIVE = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"})
JPEG_2000 = frozenset({_JPEG + "90", _JPEG + "91"})
"""These take a hundred times as long to decode as a header to parse."""

PIXEL_DATA = b"\xe0\x7f\x10\x00"
"""The tag (7FE0,0010) in little-endian bytes."""
_ITEM, _END_OF_ITEMS = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_UNDEFINED = 0xFFFFFFFF


@dataclass(frozen=True)
class _Layout:
    """The layout of an object's pixel data, one grey sample of 16 bits per pixel."""

    syntax: str
    shape: tuple[int, int]
    bits: int
    signed: bool
    frames: int


def slice_hu(dataset: Dataset, frame: int | None) -> PixelArray:
    """HU of one slice: int16 if slope and intercept are whole numbers, else float32; padding and below as AIR_HU.

    frame: the frame of an Enhanced object, counted from 0; None for a classic object. Raises StudyExcluded
    (UNSUPPORTED_PIXELS) for colour or without a rescale to HU, StudyFailed: TRUNCATED, UNDECODABLE.
    """
    if not isinstance(value_of(dataset, "PixelData"), bytes):
        # The header says CT image, so an object without pixels was cut off.
        raise StudyFailed(Reason.TRUNCATED, "expected pixel data in every slice, found an object without.")
    facts = stored_pixels(dataset)
    if facts.SamplesPerPixel not in {None, 1}:
        raise StudyExcluded(Reason.UNSUPPORTED_PIXELS, "expected one sample per pixel, found colour.")
    source = dataset
    if frame is not None:
        shared = dataset.get("SharedFunctionalGroupsSequence") or [Dataset()]
        group = dataset.PerFrameFunctionalGroupsSequence[frame]
        source = functional_group(shared[0], group, "PixelValueTransformationSequence")
    rescale = _rescale(number(source, "RescaleSlope"), number(source, "RescaleIntercept"))
    if rescale is None:
        raise StudyExcluded(Reason.UNSUPPORTED_PIXELS, "expected a rescale to HU in every slice, found none.")
    try:
        stored = stored_values(dataset, frame)
    except MemoryError:
        raise
    except Exception as error:  # broken bytes make decoders raise any kind of error
        reason = Reason.TRUNCATED if _is_short(dataset) else Reason.UNDECODABLE
        found = "fewer bytes than the matrix needs" if reason is Reason.TRUNCATED else "pixels that no decoder reads"
        raise StudyFailed(reason, f"expected decodable pixel data, found {found}.") from error
    return to_hu(stored, *rescale, _padding(facts, *rescale))


def quick_hu(content: bytes, instance: InstanceHeader) -> PixelArray | None:
    """The result of slice_hu for a whole classic object, without parsing it again.

    None if only slice_hu can tell: the header pass did not find the pixels, they contradict the header, or they do not
    decode. slice_hu then raises the reason.
    """
    facts = instance.stored
    if facts is None or instance.pixels_at is None or facts.SamplesPerPixel not in {None, 1}:
        return None
    layout = _layout(facts, instance.TransferSyntaxUID, (instance.Rows, instance.Columns), instance.NumberOfFrames)
    rescale = _rescale(facts.RescaleSlope, facts.RescaleIntercept)
    if layout is None or layout.frames != 1 or rescale is None:
        return None
    try:
        stored = _values_at(content, instance.pixels_at, layout)
    except MemoryError:
        raise
    except Exception:  # as in slice_hu
        return None
    return None if stored is None else to_hu(stored, *rescale, _padding(facts, *rescale))


# ---- stored values -------------------------------------------------------------------------------------------


def stored_values(dataset: Dataset, frame: int | None) -> npt.NDArray[np.integer]:
    """Stored values (H, W) of one slice, with only the bits that BitsStored declares.

    Raises any error of the decoders.
    """
    syntax = transfer_syntax(dataset)
    shape = (integer(dataset, "Rows") or 0, integer(dataset, "Columns") or 0)
    layout = _layout(stored_pixels(dataset), syntax, shape, integer(dataset, "NumberOfFrames") or 1)
    if layout is not None and (frame is not None or layout.frames == 1):
        values = _decoded(dataset, layout, frame or 0)
        if values is not None:
            return values
    # raw: without colour transformation. MONOCHROME1 inverts only the display; its stored values rescale as usual.
    return pixel_array(dataset, index=frame, raw=True, view_only=True)


def _layout(facts: StoredPixels, syntax: str, shape: tuple[int, int], frames: int) -> _Layout | None:
    """The layout; None unless the header declares 16 bits per pixel with the value in the low ones."""
    bits = facts.BitsStored
    if not all(shape) or facts.BitsAllocated != 16 or facts.PixelRepresentation not in {0, 1}:
        return None
    if bits is None or not 0 < bits <= 16 or facts.HighBit != bits - 1:
        return None
    return _Layout(syntax, shape, bits, facts.PixelRepresentation == 1, frames)


def _decoded(dataset: Dataset, layout: _Layout, frame: int) -> npt.NDArray[np.integer] | None:
    """Stored values (H, W) of one frame; None for an unknown syntax or a frame that contradicts the layout."""
    if layout.syntax in _NATIVE:
        size = layout.shape[0] * layout.shape[1] * 2
        return _native(dataset.PixelData, frame * size, layout)
    decode = DECODERS.get(layout.syntax)
    if decode is None:
        return None
    table = dataset.get("ExtendedOffsetTable"), dataset.get("ExtendedOffsetTableLengths")
    offsets = table if all(table) else None
    code = get_frame(dataset.PixelData, frame, number_of_frames=layout.frames, extended_offsets=offsets)
    return decode(code, layout)


def _values_at(content: bytes, at: int, layout: _Layout) -> npt.NDArray[np.integer] | None:
    """Stored values (H, W) of the only frame of the element PixelData at `at`; None as in _decoded."""
    if content[at : at + 4] != PIXEL_DATA:
        return None  # the bytes differ from those that the header pass read
    # Explicit VR has these letters here. In implicit VR they would be half of an odd length, and lengths are even.
    start = at + (12 if content[at + 4 : at + 6] in {b"OB", b"OW"} else 8)
    (length,) = struct.unpack_from("<I", content, start - 4)
    if layout.syntax in _NATIVE:
        size = layout.shape[0] * layout.shape[1] * 2
        return _native(content, start, layout) if size <= length < _UNDEFINED else None
    decode, code = DECODERS.get(layout.syntax), _only_frame(content, start) if length == _UNDEFINED else None
    return None if decode is None or code is None else decode(code, layout)


def _only_frame(content: bytes, at: int) -> bytes | None:
    """The codestream of an object's only frame: all fragments after the offset table at `at` (PS3.5 A.4).

    None if the end delimiter is missing.
    """
    fragments = []
    while content[at : at + 4] == _ITEM:
        (length,) = struct.unpack_from("<I", content, at + 4)
        fragments.append(content[at + 8 : at + 8 + length])
        at += 8 + length
    return b"".join(fragments[1:]) if content[at : at + 4] == _END_OF_ITEMS else None


def _native(pixel_data: bytes, start: int, layout: _Layout) -> npt.NDArray[np.integer] | None:
    size = layout.shape[0] * layout.shape[1]
    if len(pixel_data) < start + size * 2:
        return None
    values = np.frombuffer(pixel_data, "<u2", size, start).reshape(layout.shape)
    return _used_bits(values, layout.bits, layout.signed)


def _decode_rle(code: bytes, layout: _Layout) -> npt.NDArray[np.integer] | None:
    if len(code) < 64 or struct.unpack_from("<I", code)[0] != 2:
        return None
    # The segments are planes of bytes, the most significant first (PS3.5 annex G).
    plain = imagecodecs.dicomrle_decode(code, "<u2")
    return _used_bits(np.frombuffer(plain, "<u2").reshape(layout.shape), layout.bits, layout.signed)


def _decode_jpeg_2000(code: bytes, layout: _Layout) -> npt.NDArray[np.integer] | None:
    if len(code) < 44 or code[:4] != b"\xff\x4f\xff\x51":
        return None  # a JP2 file instead of a codestream, or garbage
    right, bottom, left, top = struct.unpack_from(">4I", code, 8)
    components, depth = struct.unpack_from(">HB", code, 40)
    precision, signed = (depth & 0x7F) + 1, bool(depth & 0x80)
    _check((bottom - top, right - left), components, layout)
    if not 8 < precision <= 16 or signed != layout.signed:
        return None  # header and codestream disagree: pydicom has rules for that
    return imagecodecs.jpeg2k_decode(code, numthreads=1)


def _decode_jpeg_ls(code: bytes, layout: _Layout) -> npt.NDArray[np.integer] | None:
    precision = _jpeg_precision(code, {0xF7}, layout)
    if precision is None:
        return None
    _check_end(code)
    # JPEG-LS has no sign: the codestream's precision says which bit it is.
    return _used_bits(imagecodecs.jpegls_decode(code), precision, layout.signed)


def _decode_jpeg_lossless(code: bytes, layout: _Layout) -> npt.NDArray[np.integer] | None:
    if _jpeg_precision(code, {0xC3}, layout) is None:
        return None
    return _used_bits(imagecodecs.ljpeg_decode(code), layout.bits, layout.signed)


def _decode_jpeg_lossy(code: bytes, layout: _Layout) -> npt.NDArray[np.integer] | None:
    # Twelve bits; pydicom's decoders without the GPL read only eight.
    if _jpeg_precision(code, {0xC0, 0xC1, 0xC2}, layout) is None:
        return None
    _check_end(code)
    return _used_bits(imagecodecs.jpeg8_decode(code), layout.bits, layout.signed)


DECODERS: dict[str, Callable[[bytes, _Layout], npt.NDArray[np.integer] | None]] = {
    "1.2.840.10008.1.2.5": _decode_rle,
    **dict.fromkeys(JPEG_2000, _decode_jpeg_2000),
    **dict.fromkeys((_JPEG + "80", _JPEG + "81"), _decode_jpeg_ls),
    **dict.fromkeys((_JPEG + "57", _JPEG + "70"), _decode_jpeg_lossless),
    **dict.fromkeys((_JPEG + "51", _JPEG + "53", _JPEG + "55"), _decode_jpeg_lossy),
}
"""Decoders of compressed pixels by transfer syntax; None if the frame contradicts the layout."""


def _jpeg_precision(code: bytes, starts_of_frame: set[int], layout: _Layout) -> int | None:
    """Bits per sample of a JPEG frame with one of the markers `starts_of_frame`; None for another kind or depth."""
    at = 2
    while at + 10 <= len(code) and code[at] == 0xFF:
        marker, length = struct.unpack_from(">xBH", code, at)
        if marker in starts_of_frame:
            precision, rows, columns, components = struct.unpack_from(">BHHB", code, at + 4)
            _check((rows, columns), components, layout)
            return precision if 8 < precision <= 16 else None
        at += 2 + length
    return None


def _check(shape: tuple[int, int], components: int, layout: _Layout) -> None:
    """Raise ValueError if a codestream's matrix differs from the header's, before decoding takes memory.

    pydicom would not raise it: GDCM ends the process over such a JPEG-LS frame.
    """
    if shape != layout.shape or components != 1:
        raise ValueError(f"expected a frame of {layout.shape} grey pixels, found {components} x {shape}")


def _check_end(code: bytes) -> None:
    """Raise ValueError if a JPEG code breaks off; CharLS needs four seconds to notice if it ends in zero bits."""
    if b"\xff\xd9" not in code[-END_BYTES:]:
        raise ValueError("expected the end of image marker, found a code that breaks off")


def _used_bits(values_HW: _Uint16Array, bits: int, signed: bool) -> npt.NDArray[np.integer]:
    """The low `bits` of each value, with sign; the other bits may hold anything (overlays, in old objects)."""
    if not signed:
        return values_HW if bits == 16 else values_HW & np.uint16((1 << bits) - 1)
    signed_HW = values_HW.view(np.int16)
    return signed_HW if bits == 16 else (signed_HW << (16 - bits)) >> (16 - bits)


def _is_short(dataset: Dataset) -> bool:
    """Whether uncompressed pixel data hold fewer bytes than the matrix needs."""
    rows, columns, bits = (integer(dataset, name) or 0 for name in ("Rows", "Columns", "BitsAllocated"))
    is_native = not transfer_syntax(dataset).startswith(_JPEG)
    return is_native and len(dataset.PixelData) < rows * columns * bits // 8 * (integer(dataset, "NumberOfFrames") or 1)


# ---- HU ------------------------------------------------------------------------------------------------------


def to_hu(
    stored: npt.NDArray[np.integer], slope: float, intercept: float, padding: tuple[int, int] | None
) -> PixelArray:
    """HU from AIR_HU to MOST_HU, int16 if slope and intercept are whole; values within `padding` as AIR_HU."""
    whole = all(abs(value - round(value)) < WHOLE_TOLERANCE for value in (slope, intercept))
    is_padding = None if padding is None else (stored >= padding[0]) & (stored <= padding[1])
    if whole and slope == 1 and stored.dtype.itemsize == 2 and stored.dtype.isnative:
        shift, limits = round(intercept), np.iinfo(stored.dtype)
        low, high = max(AIR_HU - shift, limits.min), min(MOST_HU - shift, limits.max)
        if low <= high:
            # Each result fits into int16, so the unsigned sum may wrap on the way.
            hu_uint16 = np.clip(stored, low, high).view(np.uint16)
            hu_uint16 += np.uint16(shift & 0xFFFF)
            hu_int16 = hu_uint16.view(np.int16)
            if is_padding is not None:
                hu_int16[is_padding] = AIR_HU
            return hu_int16
    hu = stored.astype(np.float64) * slope + intercept
    if is_padding is not None:
        hu[is_padding] = AIR_HU
    np.clip(hu, AIR_HU, MOST_HU, out=hu)
    return hu.astype(np.int16) if whole else hu.astype(np.float32)


def _rescale(slope: float | None, intercept: float | None) -> tuple[float, float] | None:
    """(slope, intercept) of one slice (real series change them between slices); None if absent or not positive."""
    return None if slope is None or intercept is None or slope <= 0 else (slope, intercept)


def _padding(facts: StoredPixels, slope: float, intercept: float) -> tuple[int, int] | None:
    """The range of stored values that mean "no value" (PS3.3 C.7.5.1.1.2); None if none is declared or believable.

    None also if the range lies below AIR_HU, because everything below becomes AIR_HU anyway.
    """
    value, limit = facts.PixelPaddingValue, facts.PixelPaddingRangeLimit
    if value is None:
        return None
    low, high = sorted((value, value if limit is None else limit))
    if AIR_HU < high * slope + intercept <= PADDING_BELOW_HU or low * slope + intercept >= PADDING_ABOVE_HU:
        return low, high
    return None
