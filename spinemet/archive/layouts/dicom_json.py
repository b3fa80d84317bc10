"""Metadata in DICOM JSON (PS3.18 annex F) written as the beginning of a DICOM object (PS3.10)."""

import base64
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spinemet.errors import Reason, StudyFailed

PLAIN_SYNTAX = "1.2.840.10008.1.2.1"
UNCOMPRESSED = frozenset({"1.2.840.10008.1.2", PLAIN_SYNTAX, "1.2.840.10008.1.2.1.99"})
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_NUMBERS = {"FL": "f", "FD": "d", "SL": "i", "SS": "h", "SV": "q", "UL": "I", "US": "H", "UV": "Q"}
_TEXTS = {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"}
_LONG = {"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"}

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Instance:
    """An instance without its pixels.

    elements: the data set up to the pixels, explicit VR little endian. syntax: as the metadata names it, "" if it does
    not. pixel_bytes: of all frames unpacked. inline: pixels within the metadata. pixel_uri: where else they lie.
    """

    elements: bytes
    sop_class: str
    sop_instance: str
    syntax: str
    pixel_bytes: int
    inline: bytes | None
    pixel_uri: str


def instance_of(dataset: Json) -> Instance | None:
    """What an instance's metadata says; None if it does not name its SOP class."""
    sop_class = text(dataset, "00080016")
    if not sop_class:
        return None
    pixels = dataset.get("7FE00010") or {}
    inline = pixels.get("InlineBinary")
    try:
        elements = _elements({tag: value for tag, value in dataset.items() if "00080005" < tag.upper() < "7FE00000"})
        content = None if inline is None else base64.b64decode(inline)
    except (ValueError, RecursionError):
        return None
    rows, columns, bits = (_number(dataset, tag, 0) for tag in ("00280010", "00280011", "00280100"))
    count = rows * columns * _number(dataset, "00280002", 1) * _number(dataset, "00280008", 1)
    return Instance(
        elements=elements,
        sop_class=sop_class,
        sop_instance=text(dataset, "00080018"),
        syntax=text(dataset, "00083002") or text(dataset, "00020010"),
        pixel_bytes=(count * bits + 7) // 8,
        inline=content,
        pixel_uri=str(pixels.get("BulkDataURI", "")),
    )


def text(dataset: Json, tag: str) -> str:
    """The first value of an element; "" if it has none or is no text."""
    value = _first(dataset, tag)
    return value if isinstance(value, str) else ""


def _first(dataset: Json, tag: str) -> Any:
    element = dataset.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return (values or [None])[0] if isinstance(values, list) else values


def _number(dataset: Json, tag: str, default: int) -> int:
    value = str(_first(dataset, tag))
    return int(value) if value.isdecimal() and len(value) < 10 else default


def _elements(dataset: Json) -> bytes:
    """A data set in explicit VR little endian; elements that cannot be written or lie elsewhere are left out."""
    written = []
    for tag, element in sorted(dataset.items()):
        try:
            number, vr = int(tag, 16), element["vr"]
            value = _value(vr, element)
            head = struct.pack("<HH", number >> 16, number & 0xFFFF) + vr.encode()
            length = struct.pack("<xxI", len(value)) if vr in _LONG else struct.pack("<H", len(value))
        except (ValueError, TypeError, KeyError, AttributeError, struct.error):
            continue
        if number != 0x00080005:
            written.append(head + length + value)
    return b"".join(written)


def _value(vr: str, element: Json) -> bytes:
    if "BulkDataURI" in element:
        raise ValueError("the value lies elsewhere")
    if "InlineBinary" in element:
        return _even(base64.b64decode(element["InlineBinary"]))
    values = element.get("Value") or []
    values = values if isinstance(values, list) else [values]
    if vr == "SQ":
        return b"".join(sequence_item(0xE000, _elements(inner or {})) for inner in values)
    if vr in _NUMBERS:
        return struct.pack(f"<{len(values)}{_NUMBERS[vr]}", *values)
    if vr == "AT":
        return b"".join(struct.pack("<HH", int(tag[:4], 16), int(tag[4:], 16)) for tag in values)
    if vr not in _TEXTS:
        raise ValueError("an unknown kind of value")
    texts = [value.get("Alphabetic", "") if isinstance(value, dict) else value for value in values]
    joined = "\\".join("" if text is None else str(text) for text in texts).encode()
    return _even(joined, b"\0" if vr == "UI" else b" ")


def _even(value: bytes, padding: bytes = b"\0") -> bytes:
    return value + padding * (len(value) % 2)


def sequence_item(element: int, value: bytes) -> bytes:
    """One item of a sequence or of compressed pixels (element E000), or the end of such pixels (E0DD)."""
    value = _even(value)
    return struct.pack("<HHI", 0xFFFE, element, len(value)) + value


def beginning(instance: Instance, syntax: str, pixel_bytes: int | None) -> bytes:
    """A DICOM object up to the value of its pixels, as long for one transfer syntax as for another.

    pixel_bytes: length of uncompressed pixels; None if the object has no pixels.
    """
    if syntax == _BIG_ENDIAN:
        raise StudyFailed(Reason.UNDECODABLE, "frames in big endian cannot be read from DICOMweb.")
    is_plain = syntax in UNCOMPRESSED
    names = (instance.sop_class, instance.sop_instance, (PLAIN_SYNTAX if is_plain else syntax).ljust(64, "\0"))
    meta = _elements(
        {f"000200{tag}": {"vr": "UI", "Value": [name]} for tag, name in zip(("02", "03", "10"), names, strict=True)}
    )
    group = struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(meta))
    utf8 = struct.pack("<HH2sH", 8, 5, b"CS", 10) + b"ISO_IR 192"
    whole = b"\0" * 128 + b"DICM" + group + meta + utf8 + instance.elements
    if pixel_bytes is None:
        return whole
    length = pixel_bytes + pixel_bytes % 2 if is_plain else 0xFFFFFFFF
    return whole + struct.pack("<HH2sxxI", 0x7FE0, 0x0010, b"OW" if is_plain else b"OB", length)
