"""Functions that damage bytes, blindly or at DICOM elements. The same generator state gives the same damage."""

from __future__ import annotations

import struct
from collections.abc import Callable
from random import Random

from pydicom.datadict import tag_for_keyword

Mutator = Callable[[bytes, Random], bytes]

HEADER_BYTES = 1600
"""The headers of the corpus end about here. Most bytes of an object are pixels, but most defects lie in headers."""

_NUMBERS = [struct.pack("<H", n) for n in (0, 1, 2, 7, 8, 12, 17, 24, 32, 64, 0x7FFF, 0xFFFE, 0xFFFF)]
_TEXTS = [
    b"", b"0", b"-1", b"nan", b"inf", b"-inf", b"1e308", b"1e-308", b"-0", b"abc", b"1\\2", b"0\\0\\0", b"\\\\\\\\",
    b"\0" * 8, b"9" * 40, b"1.5", b"2147483648", b"99999999999", b"0\\0\\0\\0\\0\\0", b"1\\1\\1\\1\\1\\1",
    b"nan\\nan\\nan", b"1e200\\0\\0", b"0.000001\\0.000001", b"-1\\-1", b"\xff\xfe", "é".encode(), b"LOCALIZER",
    b"20209999", b"999Y", b"1.2.840.10008.5.1.4.1.1.2.1", b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.1.99",
    b"1.2.840.10008.1.2.2",
    b"1.2.840.10008.1.2.4.50", b"1.2.840.10008.1.2.4.70", b"1.2.840.10008.1.2.4.90", b"1.2.840.10008.1.2.5",
    b"RGB", b"PALETTE COLOR", b"MONOCHROME1",
]  # fmt: skip
_KEYWORDS = (
    "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel",
    "NumberOfFrames", "PhotometricInterpretation", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient",
    "RescaleSlope", "RescaleIntercept", "SOPClassUID", "TransferSyntaxUID", "ImageType", "Modality", "PatientAge",
    "StudyDate", "PatientBirthDate", "PatientID", "SeriesInstanceUID", "SpecificCharacterSet", "InstanceNumber",
    "SliceThickness", "PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence", "PixelData",
    "FileMetaInformationGroupLength", "PlanePositionSequence", "SegmentSequence", "ReferencedSeriesSequence",
)  # fmt: skip
_TAGS = [struct.pack("<HH", tag >> 16, tag & 0xFFFF) for tag in map(tag_for_keyword, _KEYWORDS) if tag is not None]
_LONG = (b"OB", b"OW", b"OF", b"SQ", b"UT", b"UN", b"UC", b"UR", b"OD", b"OL", b"OV")
_VRS = (*_LONG, b"US", b"SS", b"DS", b"IS", b"LO", b"AT", b"FD", b"UI", b"PN", b"??", b"\0\0")
_LENGTHS = (0, 1, 3, 0xFE, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)


def flip_bits(content: bytes, rng: Random) -> bytes:
    """Flip one to eight bits, anywhere or only in the header."""
    damaged = bytearray(content)
    end = min(len(damaged), HEADER_BYTES) if rng.random() < 0.5 else len(damaged)
    for _ in range(rng.randint(1, 8)):
        damaged[rng.randrange(end)] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def truncate(content: bytes, rng: Random) -> bytes:
    """Cut off at any byte, rarely to nothing."""
    return content[: rng.randrange(len(content))]


def overwrite(content: bytes, rng: Random) -> bytes:
    """Overwrite a block with zeros, ones or noise."""
    start, length = rng.randrange(len(content)), rng.choice((1, 2, 4, 16, 128, 1024))
    block = rng.choice((bytes(length), b"\xff" * length, rng.randbytes(length)))
    return content[:start] + block + content[start + length :]


def insert(content: bytes, rng: Random) -> bytes:
    """Insert some bytes."""
    start = rng.randrange(len(content))
    return content[:start] + rng.randbytes(rng.choice((1, 2, 4, 64))) + content[start:]


def remove(content: bytes, rng: Random) -> bytes:
    """Remove some bytes."""
    start = rng.randrange(len(content))
    return content[:start] + content[start + rng.choice((1, 2, 4, 64, 1024)) :]


def repeat(content: bytes, rng: Random) -> bytes:
    """Repeat a stretch of the content."""
    start = rng.randrange(len(content))
    stretch = content[start : start + rng.choice((8, 64, 512))]
    return content[:start] + stretch + content[start:]


def swap_value(content: bytes, rng: Random) -> bytes:
    """Give another value, with the right length, to an element that the reader uses."""
    place = _element(content, rng)
    if place is None:
        return flip_bits(content, rng)
    start, head, length = place
    numeric = length in {2, 4} and rng.random() < 0.7
    value = rng.choice(_NUMBERS) * max(1, length // 2) if numeric else rng.choice(_TEXTS)
    value += b" " * (len(value) % 2)
    if len(head) == 8 and head[4:6].isalpha():
        head = head[:6] + struct.pack("<H", len(value))
    else:
        head = head[:-4] + struct.pack("<I", len(value))
    return content[:start] + head + value + content[start + len(head) + length :]


def edit_length(content: bytes, rng: Random) -> bytes:
    """Give an element a wrong length."""
    place = _element(content, rng)
    if place is None:
        return overwrite(content, rng)
    start, head, _ = place
    short = len(head) == 8 and head[4:6].isalpha()
    length = rng.choice(_LENGTHS)
    edited = head[:6] + struct.pack("<H", length & 0xFFFF) if short else head[:-4] + struct.pack("<I", length)
    return content[:start] + edited + content[start + len(head) :]


def edit_vr(content: bytes, rng: Random) -> bytes:
    """Give an element a wrong value representation."""
    place = _element(content, rng)
    if place is None:
        return overwrite(content, rng)
    start = place[0] + 4
    return content[:start] + rng.choice(_VRS) + content[start + 2 :]


def drop_element(content: bytes, rng: Random) -> bytes:
    """Remove one element that the reader uses."""
    place = _element(content, rng)
    if place is None:
        return remove(content, rng)
    start, head, length = place
    return content[:start] + content[start + len(head) + length :]


def nest(content: bytes, rng: Random) -> bytes:
    """Nest sequences deeply, before an element that the reader uses."""
    place = _element(content, rng)
    start = place[0] if place is not None else len(content)
    tag = rng.choice((content[start : start + 4] or b"\x08\0\x40\x11", b"\x08\0\x40\x11", b"\0\x52\x30\x92"))
    explicit = content[start + 4 : start + 6].isalpha()
    opening = tag + (b"SQ\0\0" if explicit else b"") + b"\xff\xff\xff\xff" + b"\xfe\xff\0\xe0\xff\xff\xff\xff"
    return content[:start] + opening * rng.choice((3, 50, 400, 3000, 20000)) + content[start:]


MUTATORS: tuple[Mutator, ...] = (
    flip_bits, truncate, overwrite, insert, remove, repeat, swap_value, swap_value, swap_value, edit_length, edit_vr,
    drop_element, nest,
)  # fmt: skip


def _element(content: bytes, rng: Random) -> tuple[int, bytes, int] | None:
    """(start, tag with VR and length, length of the value) of some element in the content, little endian."""
    for tag in rng.sample(_TAGS, len(_TAGS)):
        start = content.find(tag)
        if start < 0 or start + 12 > len(content):
            continue
        vr = content[start + 4 : start + 6]
        if vr in _LONG:
            head, (length,) = content[start : start + 12], struct.unpack_from("<I", content, start + 8)
        elif vr.isalpha():
            head, (length,) = content[start : start + 8], struct.unpack_from("<H", content, start + 6)
        else:
            head, (length,) = content[start : start + 8], struct.unpack_from("<I", content, start + 4)
        return start, head, 0 if length == 0xFFFFFFFF else min(length, len(content) - start - len(head))
    return None
