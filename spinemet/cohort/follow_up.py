"""Patients followed over time: their visits, and what the model's errors do to what changes between them.

A visit is a day with at least one evaluable vertebra; it has a lesion if the population's rule calls one of them so.
Two studies of one day make one visit. Only studies of the population count. What a model calls falsely at one visit and
not at the other looks like a change, so each measure says how many changes the errors alone would make.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spinemet.anatomy import LEVELS
from spinemet.cohort.evaluated import ANY, read_evaluation
from spinemet.cohort.prevalence import TASK
from spinemet.cohort.views import asked, records
from spinemet.errors import BadInput
from spinemet.statistics.correction import Errors
from spinemet.statistics.hidden_lesions import CallErrors
from spinemet.types import BONE_QUALITY

if TYPE_CHECKING:
    import duckdb

CALLED = "called by the model, not corrected"
BESIDE = "called by the model, corrected beside"
"""The words of the column `events`: whether a corrected value stands beside the counted one."""

GROUPS = ("sex", "age_group", "year")
"""The columns that a measure over time can be grouped by; age and sex are those at the visit from which time runs."""


def open_visits(connection: duckdb.DuckDBPyConnection) -> None:
    """Add the table `visits` and the view `steps` of follow_up.sql to a connection from `open_cohort`.

    Raises BadInput if the study dates hold no days.
    """
    if asked(connection)["date_policy"] == "year":
        raise BadInput(
            "these results keep only the year of study dates, so the time between two studies is not known. Screen "
            "into another results place with --dates shifted, which keeps the time between a patient's studies."
        )
    bits = ", ".join(f"('{level}', {1 << place}::bigint)" for place, level in enumerate(LEVELS))
    connection.execute(Path(__file__).with_suffix(".sql").read_text().format(bits=bits))


def check_groups(by: Sequence[str], allowed: Sequence[str]) -> None:
    """Raise BadInput if a column of `by` is not one of `allowed`, or stands there twice."""
    unknown = [name for name in by if name not in allowed]
    if unknown or len(set(by)) < len(by):
        raise BadInput(f"expected different columns out of {', '.join(allowed)} to group by, found {', '.join(by)}.")


def visit_errors(connection: duckdb.DuckDBPyConnection, evaluation: str) -> CallErrors:
    """How often a study with and one without a lesion is called so, as the evaluation in that folder measured it.

    Raises BadInput as `read_evaluation` does, and if its patients are too few or its calls too poor to correct for.
    """
    found = read_evaluation(connection, evaluation).errors(TASK, BONE_QUALITY, "study", ANY)
    errors = _usable(found, ("free of lesions", "affected"))
    # One more right and one more wrong call belong to the shares: no error is known to be impossible.
    shares, sizes = errors.smoothed, errors.sizes_C + 2
    return CallErrors(float(shares[1, 1]), float(shares[0, 0]), float(sizes[1]), float(sizes[0]))


def vertebra_errors(connection: duckdb.DuckDBPyConnection, evaluation: str) -> Errors:
    """How vertebrae of each bone quality are called; raises as `visit_errors` does."""
    return _usable(read_evaluation(connection, evaluation).errors(TASK, BONE_QUALITY, "vertebra"), BONE_QUALITY)


def _usable(errors: Errors, classes: Sequence[str]) -> Errors:
    problem = errors.not_identifiable(classes)
    if problem:
        raise BadInput(
            f"this evaluation does not suffice to correct for the model's errors: {problem}. Evaluate more patients, "
            "or ask with --uncorrected for what the model called."
        )
    return errors


def share_with_lesion(connection: duckdb.DuckDBPyConnection, errors: CallErrors) -> float:
    """The share of patients that truly have a lesion at the first visit (Rogan and Gladen 1978), from 0 to 1."""
    called = records(
        connection,
        "select avg(has_lesion::int) as share from (select arg_min(has_lesion, day) as has_lesion from visits"
        " where day is not null group by patient)",
    )[0]["share"]
    share = ((called or 0.0) + errors.specificity - 1) / (errors.sensitivity + errors.specificity - 1)
    return min(max(share, 0.0), 1.0)


def called_by_error(errors: CallErrors, share: float, negatives: int, positives: int) -> float:
    """How probably the next visit is called with a lesion if nothing truly changes.

    share: of patients that have a lesion all along. negatives, positives: how the visits so far were called.
    """
    ill = share * errors.sensitivity**positives * (1 - errors.sensitivity) ** negatives
    free = (1 - share) * (1 - errors.specificity) ** positives * errors.specificity**negatives
    return (ill * errors.sensitivity + free * (1 - errors.specificity)) / (ill + free)


def notes(connection: duckdb.DuckDBPyConnection, errors: CallErrors | None) -> list[str]:
    """Sentences that a reader of a measure over time has to know, besides those of any answer."""
    of = records(
        connection,
        """select count(*) filter (n > 1) as followed, count(*) filter (n <= 1) as single,
            count(*) filter (n > 1 and had) as ill
        from (select count(day) as n, arg_min(has_lesion, day) as had from visits group by patient)""",
    )[0]
    found = [
        f"{of['followed']} patients have at least two visits, {of['ill']} of them with a lesion at the first; "
        f"{of['single']} have one visit and are not followed."
    ]
    if errors is None:
        return [*found, f"Events are {CALLED}: an error at one visit counts as a change."]
    return [
        *found,
        f"Corrected for a sensitivity of {errors.sensitivity:.3f} and a specificity of {errors.specificity:.3f} per "
        "visit, as if errors were independent from visit to visit. A model that errs again and again in the same "
        "patient makes fewer false changes than that.",
    ]
