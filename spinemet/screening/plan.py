"""What a run has to do: the archive's studies minus the ledger's, for one model and one configuration.

The listing is streamed; what is held is the ledger's keys (about 190 MB per million studies). A study in the ledger
is not screened again, whatever its state, unless asked for; but for those that could not be reached, which says
nothing of the study, and those that have grown: a series or the second half of a transfer has come since.
A study that is still being written waits for a later run, and so does one whose headers could not be asked what
belongs to it: neither is in the ledger until it is whole.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from spinemet import files
from spinemet.config import DatePolicy
from spinemet.dicom.pseudonym import Pseudonymizer
from spinemet.errors import BadInput, Reason
from spinemet.results.schemas import Row
from spinemet.results.tables import Results
from spinemet.types import State, StudyRef

RETRIED: tuple[Reason, ...] = (Reason.UNREACHABLE,)
"""Reasons that the next run tries again; the study's ledger row is then replaced."""

Rescreen = Literal["stale", "failed", "all"]


@dataclass(frozen=True)
class Wanted:
    """Which studies of the archive a run is for; as it stands, all that the ledger does not have.

    limit: at most so many. quiet_s: studies whose newest object is younger wait. since: only studies with an object
    written then or later, in seconds since 1970. studies: only these, by their key in the archive or their source_key.
    rescreen: `failed`, only what failed with this model and configuration, again; `stale`, only what another model or
    configuration has screened and this one has not; `all`, the whole archive, again.
    """

    limit: int | None = None
    quiet_s: float = 0.0
    since: float = 0.0
    studies: frozenset[str] = frozenset()
    rescreen: Rescreen | None = None

    @property
    def chosen(self) -> bool:
        """Whether it is less, or more, than what is new: the rates of such a run are not the usual ones."""
        return bool(self.since or self.studies or self.rescreen)


@dataclass
class Plan:
    """The studies to do, one pass, and how many were seen so far.

    done: studies that are left out unless they have more bytes now, by source key. only: source keys of those that
    alone are done, None for all. retried: of those that are done again, those that have grown once they are found;
    their ledger rows have to be replaced. As the archive's clock may be another one, studies as little ahead of ours
    as `quiet_s` wait as well.
    """

    studies: Iterable[StudyRef]
    names: Pseudonymizer
    done: Mapping[str, int]
    retried: set[str] = field(default_factory=set)
    only: set[str] | None = None
    wanted: Wanted = field(default_factory=Wanted)
    listed: int = 0
    planned: int = 0
    waiting: int = 0
    planned_bytes: int = 0
    started: float = field(default_factory=time.time)

    def __iter__(self) -> Iterator[StudyRef]:
        for ref in self.studies:
            if self.wanted.limit is not None and self.planned >= self.wanted.limit:
                return
            self.listed += 1
            if ref.last_modified < self.wanted.since:
                continue
            key = self.names.source_key(ref.archive, ref.key)
            had = self.done.get(key)
            if (had is not None and ref.size <= had) or (self.only is not None and key not in self.only):
                continue
            if not ref.settled or abs(self.started - ref.last_modified) < self.wanted.quiet_s:
                self.waiting += 1
                continue
            if had is not None:
                self.retried.add(key)
            self.planned += 1
            self.planned_bytes += ref.size
            yield ref


def plan_studies(
    studies: Iterable[StudyRef],
    results: Results | None,
    names: Pseudonymizer,
    model_digest: str,
    config_digest: str,
    wanted: Wanted = Wanted(),
) -> Plan:
    """The plan for `studies`, read against the ledger as it is now; results: None where there are none yet."""
    if results is None:
        return Plan(studies, names, {}, set(), set() if wanted.rescreen in {"failed", "stale"} else None, wanted)
    done = results.ledger_sizes(model_digest, config_digest)
    again, only = results.ledger_keys(model_digest, config_digest, only=RETRIED), None
    if wanted.rescreen == "all":
        again = set(done)
    elif wanted.rescreen == "failed":
        again = only = results.ledger_keys(model_digest, config_digest, state=State.FAILED)
    elif wanted.rescreen == "stale":
        only = results.ledger_keys() - done.keys()
        again = set()
    for key in again:
        done.pop(key, None)
    return Plan(studies, names, done, again, only, wanted)


def find_studies(studies: Iterable[StudyRef], names: Pseudonymizer, wanted: frozenset[str]) -> Iterator[StudyRef]:
    """The studies that `wanted` names, by their key in the archive or their source_key.

    Raises BadInput where one of them is not in the archive; the listing ends with the last one.
    """
    left, found = set(wanted), []
    for ref in studies:
        if said := left & {ref.key, names.source_key(ref.archive, ref.key)}:
            left -= said
            found.append(ref)
            if not left:
                return iter(found)
    raise BadInput(f"expected {len(wanted)} studies of the archive, found {len(found)} of them.")


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
