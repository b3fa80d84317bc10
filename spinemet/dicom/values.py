"""Values of DICOM attributes as plain Python; None or empty if they are absent or unusable.

Attributes are read one by one. A malformed value counts as absent and raises no error.
"""

from __future__ import annotations

import logging
import math
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import date
from typing import Any

import pydicom.config
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from spinemet.types import StoredPixels

_SYNTAXES: dict[tuple[bool | None, bool | None], str] = {
    (True, True): "1.2.840.10008.1.2",
    (False, True): "1.2.840.10008.1.2.1",
    (False, False): "1.2.840.10008.1.2.2",
}
"""Uncompressed transfer syntaxes by (implicit VR, little endian)."""
# fmt: off
_NO_WORDS = frozenset({
    "AUCUN", "AUCUNE", "C", "FALSE", "FREE", "FREI", "GEEN", "INGEN", "KEIN", "KEINE", "KEINES", "LIBRE", "N",
    "NATIV", "NATIVE", "NC", "NEIN", "NEM", "NESSUNA", "NESSUNO", "NIL", "NINGUNA", "NINGUNO", "NO", "NON",
    "NONCONTRAST", "NONE", "NOT", "OHNE", "PLAIN", "SANS", "SEM", "SENZA", "SIN", "UDEN", "UNENHANCED",
    "UTAN", "W/O", "WITHOUT", "WO", "ZONDER",
})
# fmt: on
_UNKNOWN_WORDS = frozenset({"INCONNU", "N/A", "NA", "NULL", "UNBEKANNT", "UNKNOWN", "UNSPECIFIED"})
_CONTRAST_WORDS = frozenset({"CONTRAST", "IV", "KM", "KONTRASTMITTEL", "MDC", "CONTRASTE", "AGENT", "MEDIUM", "MEDIA"})
"""Words that say neither yes nor no before another one; alone they say yes."""
_YES_WORDS = frozenset({"WITH", "W", "IONIC", "MIT", "AVEC", "CON"})
"""After a no: `W/O & W` is a study with both, and non-ionic agents are agents."""
_HOUNSFIELD = {"[hnsf'U]", "HU"}
_AGE_UNITS = {"D": 365.25, "W": 365.25 / 7, "M": 12.0, "Y": 1.0}
OLDEST_YEARS = 130


def printable(text: str) -> str:
    """`text` with a blank for each control character: escape sequences of a header must not reach a terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


@contextmanager
def quiet_readers() -> Iterator[None]:
    """Silence the warnings and log lines of pydicom, highdicom and nibabel: they quote values, which may identify a
    patient, beside the one sentence of an error."""
    loggers = [logging.getLogger(name) for name in ("pydicom", "highdicom", "nibabel.global")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), pydicom.config.disable_value_validation():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def texts(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    """All values of an attribute as stripped text."""
    value = value_of(dataset, keyword)
    if value is None:
        return ()
    values = value if isinstance(value, (MultiValue, list, tuple)) else [value]
    return tuple(str(item).strip(" \0") for item in values)


def text(dataset: Dataset, keyword: str) -> str:
    """The first value of an attribute as stripped text."""
    return next(iter(texts(dataset, keyword)), "")


def number(dataset: Dataset, keyword: str) -> float | None:
    """The first value of an attribute as a finite number."""
    values = numbers(dataset, keyword)
    return values[0] if values else None


def integer(dataset: Dataset, keyword: str) -> int | None:
    """The first value of an attribute as a whole number."""
    value = number(dataset, keyword)
    return None if value is None else int(value)


def numbers(dataset: Dataset, keyword: str, count: int | None = None) -> Any:
    """All values of an attribute as a tuple of finite numbers; None if one is not, or if there are not `count` of them.

    The type is Any, because the length of the tuple depends on `count`.
    """
    try:
        values = tuple(float(item) for item in texts(dataset, keyword))
    except ValueError:
        return None
    if not values or not all(map(math.isfinite, values)) or (count is not None and len(values) != count):
        return None
    return values


def day(dataset: Dataset, keyword: str) -> date | None:
    """An attribute of type DA (YYYYMMDD, or the YYYY.MM.DD of old standards)."""
    digits = text(dataset, keyword).replace(".", "").replace("-", "")
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:])) if len(digits) == 8 else None
    except ValueError:
        return None


def age_years(dataset: Dataset) -> float | None:
    """PatientAge (PS3.5 6.2, type AS: `045Y`, `018M`), else StudyDate minus PatientBirthDate; None without both."""
    age = text(dataset, "PatientAge").upper()
    if age[:-1].isdigit() and age[-1:] in _AGE_UNITS:
        years = int(age[:-1]) / _AGE_UNITS[age[-1]]
    else:
        born, seen = day(dataset, "PatientBirthDate"), day(dataset, "StudyDate")
        if born is None or seen is None:
            return None
        years = (seen - born).days / 365.25
    # De-identification writes zero; the ages of infants come in days, weeks or months.
    return years if 0 < years <= OLDEST_YEARS else None


def stored_pixels(dataset: Dataset) -> StoredPixels:
    """A classic object's attributes of its stored values."""
    read = {"RescaleSlope": number, "RescaleIntercept": number, "RescaleType": text}
    values: dict[str, Any] = {
        keyword: read.get(keyword, integer)(dataset, keyword) for keyword in StoredPixels.__dataclass_fields__
    }
    values["RescaleType"] = real_world_unit(value_of(dataset, "RealWorldValueMappingSequence")) or values["RescaleType"]
    return StoredPixels(**values)


def real_world_unit(mappings: Iterable[Dataset] | None) -> str:
    """The unit of a RealWorldValueMappingSequence (PS3.3 C.7.6.16.2.11) in UCUM; `HU` if one of `mappings` has it."""
    coded: list[Dataset] = [
        item for one in mappings or () for item in value_of(one, "MeasurementUnitsCodeSequence") or ()
    ]
    units = [text(item, "CodeValue") for item in coded]
    return "HU" if _HOUNSFIELD & set(units) else next(iter(filter(None, units)), "")


def transfer_syntax(dataset: Dataset) -> str:
    """The TransferSyntaxUID of the file meta information; without it, that of the encoding that pydicom found."""
    stated = text(getattr(dataset, "file_meta", Dataset()), "TransferSyntaxUID")
    return stated or _SYNTAXES.get(dataset.original_encoding, "")


def names_contrast(agent: str) -> bool | None:
    """Whether a ContrastBolusAgent names an agent; False for `NONE` or `ohne KM`, None if it says neither."""
    if any(character.isdigit() for character in agent.strip("0 ")):  # a dose or a concentration
        return True
    words = [word for word in re.findall(r"[^\W\d_]+(?:/[^\W\d_]+)?", agent.upper()) if word not in _CONTRAST_WORDS]
    if not words:
        return True if re.search(r"[^\W\d_]{2}", agent) else (False if "0" in agent else None)
    if _UNKNOWN_WORDS.issuperset(words):
        return None
    return words[0] not in _NO_WORDS or bool(set(words[1:]) & _YES_WORDS)


def functional_group(shared: Dataset, frame: Dataset, keyword: str) -> Dataset:
    """The item of one functional group (PS3.3 C.7.6.16), from the frame, else from the shared groups, else empty."""
    items: list[Dataset] = value_of(frame, keyword) or value_of(shared, keyword) or [Dataset()]
    return items[0]


def value_of(dataset: Dataset, keyword: str) -> Any:
    """The value of an attribute as pydicom gives it; None if it is absent or unusable."""
    try:
        return dataset.get(keyword)
    except MemoryError:
        raise
    except Exception:  # pydicom converts on access; a malformed value makes it raise any kind of error
        return None
