"""The exception tree of SpineMet, whole.

    SpineMetError
    ├── BadInput          the caller's mistake: one clear sentence, exit code 2, nothing changed
    ├── JobFailed         a job cannot go on, its input is sound: one sentence, exit code 1, what is done stands
    └── StudyProblem      one study cannot be used; becomes one ledger row and never stops a job
        ├── StudyExcluded   the study is sound but does not qualify (no axial CT, no spine in view, …)
        └── StudyFailed     something broke (truncated, undecodable, unreachable, out of time, …)

Messages are one sentence that says what was expected and what was found. They never hold a patient identifier, an
object key or a UID: they go to logs and tables.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why a study was not screened, or a series not chosen; the closed vocabulary of the ledger's `reason` column."""

    # Series rejected by the selection; the study takes the most telling one when no series is left.
    NOT_CT = "not_ct"
    LOCALIZER = "localizer"
    SECONDARY_CAPTURE = "secondary_capture"
    DERIVED = "derived"
    NOT_AXIAL = "not_axial"
    TOO_FEW_SLICES = "too_few_slices"
    TOO_THICK = "too_thick"
    FIELD_OF_VIEW = "field_of_view"
    BODY_PART = "body_part"
    NO_PIXELS = "no_pixels"
    NO_GEOMETRY = "no_geometry"
    UNSUPPORTED_PIXELS = "unsupported_pixels"
    LOSSY = "lossy"
    GAPS = "gaps"
    DUPLICATE_POSITIONS = "duplicate_positions"
    SHEARED = "sheared"
    NOT_PREFERRED = "not_preferred"
    # Whole studies that do not qualify.
    EMPTY = "empty"
    NO_SERIES = "no_series"
    SEVERAL_STUDIES = "several_studies"
    NO_SPINE = "no_spine"
    # Studies that broke.
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


class SpineMetError(Exception):
    """Base of every error that SpineMet raises on purpose."""


class BadInput(SpineMetError):
    """The caller asked for something that cannot be done as asked; commands print the message and exit with 2."""


class JobFailed(SpineMetError):
    """A job cannot go on (a lease was lost); jobs print the message and exit with 1."""


class StudyProblem(SpineMetError):
    """A study that cannot be used, with the reason code for its ledger row."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type[StudyProblem], tuple[Reason, str]]:
        # Crosses process borders (Ray, pebble): Exception's default pickling would drop the reason.
        return type(self), (self.reason, self.detail)


class StudyExcluded(StudyProblem):
    """The study is sound but does not qualify."""


class StudyFailed(StudyProblem):
    """Something broke while the study was read."""
