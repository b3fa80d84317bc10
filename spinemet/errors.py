"""The exceptions of SpineMet.

    SpineMetError
    ├── BadInput          the caller's mistake: exit code 2, nothing was changed
    ├── JobFailed         a job cannot go on although its input is sound: exit code 1, finished work is kept
    └── StudyProblem      one study cannot be used: it becomes one ledger row and never stops a job
        ├── StudyExcluded   the study is sound but does not qualify (no axial CT, no spine in view, …)
        └── StudyFailed     something broke (truncated, undecodable, unreachable, out of time, …)
            └── BrokenSlices  some slices of a series cannot be decoded; the others can be read without them

A message is one sentence; about a wrong value it says "expected X, found Y". Messages of a StudyProblem go to logs and
tables, so they never hold a patient identifier, an object key or a UID.
"""

from __future__ import annotations

import traceback
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Self


class Explained(StrEnum):
    """Words of a closed list; `meaning` explains each to a reader."""

    meaning: str

    def __new__(cls, value: str, meaning: str = "") -> Self:
        """A member that is the string `value`."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member


class Reason(Explained):
    """Why a study was not screened or a series not chosen: every value of the ledger's column `reason`."""

    # Of series, in the order of how far the series came. A study without a usable series takes the last of theirs.
    NOT_CT = "not_ct", "not CT"
    NO_PIXELS = "no_pixels", "no pixels in the objects"
    SECONDARY_CAPTURE = "secondary_capture", "secondary captures"
    LOCALIZER = "localizer", "localizer images"
    DERIVED = "derived", "derived images"
    NOT_HU = "not_hu", "values that are not HU"
    NO_GEOMETRY = "no_geometry", "no position or spacing in the headers"
    NOT_AXIAL = "not_axial", "not axial"
    UNSUPPORTED_PIXELS = "unsupported_pixels", "pixel format that is not supported"
    LOSSY = "lossy", "lossy compression"
    TOO_FEW_SLICES = "too_few_slices", "too few slices"
    SHEARED = "sheared", "tilted gantry"
    GAPS = "gaps", "missing slices"
    DUPLICATE_POSITIONS = "duplicate_positions", "several slices at one position"
    TOO_THICK = "too_thick", "slices too far apart"
    FIELD_OF_VIEW = "field_of_view", "field of view too small"
    BODY_PART = "body_part", "body part without a spine"
    NOT_PREFERRED = "not_preferred", "another series was preferred"
    # Of studies that do not qualify.
    EMPTY = "empty", "nothing in it"
    NO_SERIES = "no_series", "no usable series"
    SEVERAL_STUDIES = "several_studies", "several studies in one place"
    NO_SPINE = "no_spine", "no spine in view"
    # Of studies that failed.
    NOT_DICOM = "not_dicom", "objects that are not DICOM"
    BROKEN_ARCHIVE = "broken_archive", "broken zip or tar"
    UNSAFE_ARCHIVE = "unsafe_archive", "zip or tar that is not safe to unpack"
    TRUNCATED = "truncated", "truncated objects"
    UNDECODABLE = "undecodable", "pixels that cannot be decoded"
    UNREACHABLE = "unreachable", "objects that could not be fetched"
    TIME_LIMIT = "time_limit", "out of time"
    MEMORY_LIMIT = "memory_limit", "out of memory"
    CRASHED = "crashed", "the reader crashed"
    BAD_SEGMENTATION = "bad_segmentation", "unusable segmentation"
    INTERNAL = "internal", "unexpected error"


_PLAIN_CAUSES = (
    (("NotFound", "FileNotFound", "NotADirectory"), "it does not exist"),
    (("IsADirectory",), "it is a folder"),
    (("FileExists", "AlreadyExists"), "a file of that name exists"),
    (("Permission", "Unauthenticated", "Credential"), "access is denied"),
    (("Timeout", "Connect", "Endpoint", "Proxy", "SSL"), "no answer"),
)


def plain_cause(error: BaseException) -> str:
    """In plain words, without the error's text, which may hold an identifier: why a file or store cannot be used."""
    name = type(error).__name__
    return next((words for parts, words in _PLAIN_CAUSES if any(part in name for part in parts)), "the access failed")


def fault_in(error: BaseException) -> str:
    """The sentence about an error that SpineMet did not foresee: its file and line, without its text or name."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"a fault of SpineMet at {PurePosixPath(last.filename).name}:{last.lineno}: report it."


class SpineMetError(Exception):
    """Base of every error that SpineMet raises on purpose."""


class BadInput(SpineMetError):
    """The caller's input cannot be used; commands print the message and exit with 2."""


class JobFailed(SpineMetError):
    """A job cannot go on, for example because it lost a lease; jobs print the message and exit with 1."""


class StudyProblem(SpineMetError):
    """A study cannot be used; `reason` goes to its ledger row."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type[StudyProblem], tuple[Reason, str]]:
        # Pickled between processes (Ray, pebble): the default of Exception would drop the reason.
        return type(self), (self.reason, self.detail)


class StudyExcluded(StudyProblem):
    """The study is sound but does not qualify."""


class StudyFailed(StudyProblem):
    """Reading the study failed."""


class BrokenSlices(StudyFailed):
    """Slices of a series cannot be decoded. broken: their places in the series; `reason` is that of the first."""

    def __init__(self, reason: Reason, detail: str, broken: frozenset[int] = frozenset()) -> None:
        super().__init__(reason, detail)
        self.broken = broken
