"""What a run has to do: the archive's studies minus the ledger's, for one model and one configuration.

The listing is streamed; what is held is the ledger's keys (about 130 MB per million studies). A study in the ledger
is never screened again, whatever its state, but for those that could not be reached: that says nothing of the study.
A study that is still being written waits for a later run, and so does one whose headers could not be asked what
belongs to it: neither is in the ledger until it is whole.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from spinemet.config import DatePolicy
from spinemet.dicom.pseudonym import Pseudonymizer
from spinemet.errors import BadInput, Reason
from spinemet.storage import files
from spinemet.storage.tables import Results, Row
from spinemet.types import StudyRef

RETRIED: tuple[Reason, ...] = (Reason.UNREACHABLE,)
"""Reasons that the next run tries again; the study's ledger row is then replaced."""


@dataclass
class Plan:
    """The studies to do, one pass, and how many were seen so far.

    retried: source keys of studies that are done again; their ledger rows have to be replaced. quiet_s: studies whose
    newest object is younger wait; as the archive's clock may be another one, so do those as little ahead of ours.
    """

    studies: Iterable[StudyRef]
    names: Pseudonymizer
    done: set[str]
    retried: set[str] = field(default_factory=set)
    limit: int | None = None
    quiet_s: float = 0.0
    listed: int = 0
    planned: int = 0
    waiting: int = 0
    started: float = field(default_factory=time.time)

    def __iter__(self) -> Iterator[StudyRef]:
        for ref in self.studies:
            if self.limit is not None and self.planned >= self.limit:
                return
            self.listed += 1
            if self.names.source_key(ref.archive, ref.key) in self.done:
                continue
            if not ref.settled or abs(self.started - ref.last_modified) < self.quiet_s:
                self.waiting += 1
                continue
            self.planned += 1
            yield ref


def plan_studies(
    studies: Iterable[StudyRef],
    results: Results,
    names: Pseudonymizer,
    model_digest: str,
    config_digest: str,
    *,
    limit: int | None = None,
    quiet_s: float = 0.0,
) -> Plan:
    """The plan for `studies`, read against the ledger as it is now."""
    retried = results.ledger_keys(model_digest, config_digest, only=RETRIED)
    done = results.ledger_keys(model_digest, config_digest) - retried
    return Plan(studies, names, done, retried, limit, quiet_s)


def first_checked(studies: Iterator[StudyRef]) -> Iterator[StudyRef]:
    """`studies` with the first one fetched now, so that a missing or empty archive raises BadInput before any work."""
    return itertools.chain([next(studies)], studies)


def key_id(names: Pseudonymizer) -> str:
    """Twelve digits that name the pseudonym key without telling it."""
    return names.source_key("spinemet:key", "")[:12]


def check_apart(archive: str, results: str) -> None:
    """Raise BadInput where the results would lie inside the archive: the next run would take them for studies."""
    root, place = files.normalize(archive), files.normalize(results)
    if f"{place}/".startswith(f"{root}/"):
        raise BadInput(f"expected a results place outside the archive {root}, found {place}.")


def check_continues(last_run: Row | None, names: Pseudonymizer, dates: DatePolicy) -> None:
    """Raise BadInput where the results were made under another pseudonym key or date policy than this run's.

    Under another key no study would be found in the ledger, and all would be screened and counted twice.
    """
    if last_run is None:
        return
    if last_run["pseudonym_key_id"] != key_id(names):
        raise BadInput("expected the pseudonym key that these results were made with, found another one.")
    if last_run["date_policy"] != dates:
        raise BadInput(f"expected the date policy of these results ({last_run['date_policy']}), found {dates}.")
