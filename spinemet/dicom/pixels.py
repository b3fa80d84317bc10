"""The HU of one slice, from a parsed CT object.

16-bit grey pixels in the usual transfer syntaxes are decoded here, by imagecodecs, whose JPEG 2000, JPEG-LS and JPEG
Lossless decoders release Python's lock (those behind pydicom hold it, so that threads gain nothing), and whose RLE
decoder is six times pydicom's. pydicom decodes everything else, and whatever does not look as expected.
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

from spinemet.dicom.values import functional_group, integer, number, text, value_of
from spinemet.errors import Reason, StudyExcluded, StudyFailed
from spinemet.types import AIR_HU

MOST_HU = 32767
PADDING_BELOW_HU = -900.0
PADDING_ABOVE_HU = 3071.0
"""PixelPaddingValue counts only where its HU lies outside these: some headers declare 0, which is water."""
WHOLE_TOLERANCE = 1e-6
END_BYTES = 64
"""Where the end of a codestream is looked for; padding may follow it."""

PixelArray = npt.NDArray[np.int16] | npt.NDArray[np.float32]
_Uint16Array = npt.NDArray[np.uint16]

_JPEG = "1.2.840.10008.1.2.4."
_NATIVE = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"})
_RLE = "1.2.840.10008.1.2.5"
_JPEG_2000 = frozenset({_JPEG + "90", _JPEG + "91"})
_JPEG_LS = frozenset({_JPEG + "80", _JPEG + "81"})
_JPEG_LOSSLESS = frozenset({_JPEG + "57", _JPEG + "70"})


@dataclass(frozen=True)
class _Layout:
    """How the pixel data of an object with one grey sample of 16 bits are laid out."""

    syntax: str
    shape: tuple[int, int]
    bits: int
    signed: bool
    frames: int


def slice_hu(dataset: Dataset, frame: int | None) -> PixelArray:
    """HU of one slice: int16 where rescale is whole-numbered, else float32; padding and below as AIR_HU.

    frame: of an Enhanced object, counted from 0; None for a classic one. Raises StudyExcluded(UNSUPPORTED_PIXELS) for
    colour and where there is no rescale to HU, StudyFailed: TRUNCATED, UNDECODABLE.
    """
    if not isinstance(value_of(dataset, "PixelData"), bytes):
        # A CT image by its header: an object that ends before its pixels was cut off. Empty and unreadable ones alike.
        raise StudyFailed(Reason.TRUNCATED, "expected pixel data in every slice, found an object without.")
    if integer(dataset, "SamplesPerPixel") not in {None, 1}:
        raise StudyExcluded(Reason.UNSUPPORTED_PIXELS, "expected one sample per pixel, found colour.")
    slope, intercept = _rescale(dataset, frame)
    try:
        stored = stored_values(dataset, frame)
    except MemoryError:
        raise
    except Exception as error:  # decoders raise whatever the bytes provoke
        reason = Reason.TRUNCATED if _is_short(dataset) else Reason.UNDECODABLE
        raise StudyFailed(reason, f"expected decodable pixel data, found {type(error).__name__}.") from error
    return to_hu(stored, slope, intercept, _padding(dataset, slope, intercept))


# ---- stored values -------------------------------------------------------------------------------------------


def stored_values(dataset: Dataset, frame: int | None) -> npt.NDArray[np.integer]:
    """Stored values (H, W) of one slice, without the bits that BitsStored leaves unused.

    Raises whatever the decoders raise.
    """
    layout = _layout(dataset)
    if layout is not None and (frame is not None or layout.frames == 1):
        values = _decoded(dataset, layout, frame or 0)
        if values is not None:
            return values
    # raw: no colour transformation. MONOCHROME1 only turns the display; stored values rescale alike.
    return pixel_array(dataset, index=frame, raw=True, view_only=True)


def _layout(dataset: Dataset) -> _Layout | None:
    """The layout; None where there are not 16 bits of which the low ones are used, or the header says too little."""
    rows, columns, allocated, bits, high_bit, representation = (
        integer(dataset, name)
        for name in ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
    )
    if not rows or not columns or allocated != 16 or bits is None or not 0 < bits <= 16 or high_bit != bits - 1:
        return None
    syntax = text(getattr(dataset, "file_meta", Dataset()), "TransferSyntaxUID")
    frames = integer(dataset, "NumberOfFrames") or 1
    return _Layout(syntax, (rows, columns), bits, representation == 1, frames) if representation in {0, 1} else None


def _decoded(dataset: Dataset, layout: _Layout, frame: int) -> npt.NDArray[np.integer] | None:
    """Stored values (H, W) of one frame; None for another syntax or a frame that does not look as the layout says."""
    rows, columns = layout.shape
    if layout.syntax in _NATIVE:
        size = rows * columns
        if len(dataset.PixelData) < (frame + 1) * size * 2:
            return None
        values = np.frombuffer(dataset.PixelData, "<u2", size, frame * size * 2).reshape(layout.shape)
        return _used_bits(values, layout.bits, layout.signed)
    decode = _DECODERS.get(layout.syntax)
    if decode is None:
        return None
    offsets = dataset.get("ExtendedOffsetTable"), dataset.get("ExtendedOffsetTableLengths")
    code = get_frame(
        dataset.PixelData, frame, number_of_frames=layout.frames, extended_offsets=offsets if all(offsets) else None
    )
    return decode(code, layout)


def _decode_rle(code: bytes, layout: _Layout) -> npt.NDArray[np.integer] | None:
    if len(code) < 64 or struct.unpack_from("<I", code)[0] != 2:
        return None
    # The segments hold planes of bytes, the most significant first (PS3.5 annex G).
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
        return None  # header and codestream disagree: pydicom knows whom to believe
    return imagecodecs.jpeg2k_decode(code, numthreads=1)


def _decode_jpeg_ls(code: bytes, layout: _Layout) -> npt.NDArray[np.integer] | None:
    precision = _jpeg_precision(code, 0xF7, layout)
    if precision is None:
        return None
    if b"\xff\xd9" not in code[-END_BYTES:]:
        # CharLS takes four seconds to see it, where a code that breaks off ends in zero bits.
        raise ValueError("expected the end of image marker, found a code that breaks off")
    # JPEG-LS has no sign: the codestream's precision says where it is.
    return _used_bits(imagecodecs.jpegls_decode(code), precision, layout.signed)


def _decode_jpeg_lossless(code: bytes, layout: _Layout) -> npt.NDArray[np.integer] | None:
    if _jpeg_precision(code, 0xC3, layout) is None:
        return None
    return _used_bits(imagecodecs.ljpeg_decode(code), layout.bits, layout.signed)


_DECODERS: dict[str, Callable[[bytes, _Layout], npt.NDArray[np.integer] | None]] = {
    _RLE: _decode_rle,
    **dict.fromkeys(_JPEG_2000, _decode_jpeg_2000),
    **dict.fromkeys(_JPEG_LS, _decode_jpeg_ls),
    **dict.fromkeys(_JPEG_LOSSLESS, _decode_jpeg_lossless),
}


def _jpeg_precision(code: bytes, start_of_frame: int, layout: _Layout) -> int | None:
    """Bits per sample of a JPEG frame of kind SOF `start_of_frame`; None where it is another kind or not 16-bit."""
    at = 2
    while at + 10 <= len(code) and code[at] == 0xFF:
        marker, length = struct.unpack_from(">xBH", code, at)
        if marker == start_of_frame:
            precision, rows, columns, components = struct.unpack_from(">BHHB", code, at + 4)
            _check((rows, columns), components, layout)
            return precision if 8 < precision <= 16 else None
        at += 2 + length
    return None


def _check(shape: tuple[int, int], components: int, layout: _Layout) -> None:
    """Raise ValueError where a codestream is not of the header's matrix, before it takes memory.

    Not left to pydicom: GDCM ends the process over such a JPEG-LS frame.
    """
    if shape != layout.shape or components != 1:
        raise ValueError(f"expected a frame of {layout.shape} grey pixels, found {components} x {shape}")


def _used_bits(values_HW: _Uint16Array, bits: int, signed: bool) -> npt.NDArray[np.integer]:
    """What the low `bits` of each value say; the others may hold anything (overlays, in old objects)."""
    if not signed:
        return values_HW if bits == 16 else values_HW & np.uint16((1 << bits) - 1)
    signed_HW = values_HW.view(np.int16)
    return signed_HW if bits == 16 else (signed_HW << (16 - bits)) >> (16 - bits)


def _is_short(dataset: Dataset) -> bool:
    """Whether uncompressed pixel data hold fewer bytes than the matrix needs."""
    rows, columns, bits = (integer(dataset, name) or 0 for name in ("Rows", "Columns", "BitsAllocated"))
    is_native = not text(getattr(dataset, "file_meta", Dataset()), "TransferSyntaxUID").startswith(_JPEG)
    return is_native and len(dataset.PixelData) < rows * columns * bits // 8 * (integer(dataset, "NumberOfFrames") or 1)


# ---- HU ------------------------------------------------------------------------------------------------------


def to_hu(
    stored: npt.NDArray[np.integer], slope: float, intercept: float, padding: tuple[int, int] | None
) -> PixelArray:
    """HU from AIR_HU to MOST_HU, int16 where slope and intercept are whole; values within `padding` as AIR_HU."""
    whole = all(abs(value - round(value)) < WHOLE_TOLERANCE for value in (slope, intercept))
    is_padding = None if padding is None else (stored >= padding[0]) & (stored <= padding[1])
    if whole and slope == 1 and stored.dtype.itemsize == 2 and stored.dtype.isnative:
        shift, limits = round(intercept), np.iinfo(stored.dtype)
        low, high = max(AIR_HU - shift, limits.min), min(MOST_HU - shift, limits.max)
        if low <= high:
            # Every sum fits into 16 bits, so that it may wrap on its way there, whatever the sign of the stored type.
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


def _rescale(dataset: Dataset, frame: int | None) -> tuple[float, float]:
    """(slope, intercept), of this slice: real series change them from slice to slice."""
    source = dataset
    if frame is not None:
        shared = dataset.get("SharedFunctionalGroupsSequence") or [Dataset()]
        group = dataset.PerFrameFunctionalGroupsSequence[frame]
        source = functional_group(shared[0], group, "PixelValueTransformationSequence")
    slope, intercept = number(source, "RescaleSlope"), number(source, "RescaleIntercept")
    if slope is None or intercept is None or slope <= 0:
        raise StudyExcluded(Reason.UNSUPPORTED_PIXELS, "expected a rescale to HU in every slice, found none.")
    return slope, intercept


def _padding(dataset: Dataset, slope: float, intercept: float) -> tuple[int, int] | None:
    """The range of stored values that stand for no value (PS3.3 C.7.5.1.1.2), None without one that is believable.

    None also where it lies below AIR_HU, since whatever does becomes AIR_HU.
    """
    value, limit = integer(dataset, "PixelPaddingValue"), integer(dataset, "PixelPaddingRangeLimit")
    if value is None:
        return None
    low, high = sorted((value, value if limit is None else limit))
    if AIR_HU < high * slope + intercept <= PADDING_BELOW_HU or low * slope + intercept >= PADDING_ABOVE_HU:
        return low, high
    return None
