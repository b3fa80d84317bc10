"""The exceptions of SpineMet.

    SpineMetError
    ├── BadInput          the caller's mistake: exit code 2, nothing was changed
    ├── JobFailed         a job cannot go on although its input is sound: exit code 1, finished work is kept
    └── StudyProblem      one study cannot be used: it becomes one ledger row and never stops a job
        ├── StudyExcluded   the study is sound but does not qualify (no axial CT, no spine in view, …)
        └── StudyFailed     something broke (truncated, undecodable, unreachable, out of time, …)

A message is one sentence; about a wrong value it says "expected X, found Y". Messages of a StudyProblem go to logs and
tables, so they never hold a patient identifier, an object key or a UID.
"""

from __future__ import annotations

import traceback
from enum import StrEnum
from pathlib import PurePosixPath


class Reason(StrEnum):
    """Why a study was not screened or a series not chosen: every value of the ledger's column `reason`."""

    # Of series, in the order of how far the series came. A study without a usable series takes the last of theirs.
    NOT_CT = "not_ct"
    NO_PIXELS = "no_pixels"
    SECONDARY_CAPTURE = "secondary_capture"
    LOCALIZER = "localizer"
    DERIVED = "derived"
    NOT_HU = "not_hu"
    NO_GEOMETRY = "no_geometry"
    NOT_AXIAL = "not_axial"
    UNSUPPORTED_PIXELS = "unsupported_pixels"
    LOSSY = "lossy"
    TOO_FEW_SLICES = "too_few_slices"
    SHEARED = "sheared"
    GAPS = "gaps"
    DUPLICATE_POSITIONS = "duplicate_positions"
    TOO_THICK = "too_thick"
    FIELD_OF_VIEW = "field_of_view"
    BODY_PART = "body_part"
    NOT_PREFERRED = "not_preferred"
    # Of studies that do not qualify.
    EMPTY = "empty"
    NO_SERIES = "no_series"
    SEVERAL_STUDIES = "several_studies"
    NO_SPINE = "no_spine"
    # Of studies that failed.
    NOT_DICOM = "not_dicom"
    BROKEN_ARCHIVE = "broken_archive"
    UNSAFE_ARCHIVE = "unsafe_archive"
    TRUNCATED = "truncated"
    UNDECODABLE = "undecodable"
    UNREACHABLE = "unreachable"
    TIME_LIMIT = "time_limit"
    MEMORY_LIMIT = "memory_limit"
    CRASHED = "crashed"
    BAD_SEGMENTATION = "bad_segmentation"
    INTERNAL = "internal"


_PLAIN_CAUSES = (
    (("NotFound", "FileNotFound", "NotADirectory"), "it does not exist"),
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
