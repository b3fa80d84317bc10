"""Which studies a run screens: those of the archive that the ledger lacks, for one model and one configuration.

A study in the ledger is not screened again, whatever its state, with two exceptions: the archive could not be reached
last time, which is not the study's fault, or the study has grown since (another series, the second half of a transfer).
A study that is still being written waits for a later run, and so does one whose headers could not be read to tell
which study they belong to. Neither gets a ledger row before it is complete.

The listing is streamed. Memory holds the ledger's keys: about 190 MB per million studies.
"""

import itertools
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Literal

from spinemet import files
from spinemet.archive.store import Unlisted
from spinemet.config import DatePolicy
from spinemet.dicom.pseudonym import Pseudonymizer
from spinemet.errors import BadInput, Reason
from spinemet.reading import State
from spinemet.results.schemas import Row
from spinemet.results.tables import Results
from spinemet.types import StudyRef

RETRIED: tuple[Reason, ...] = (Reason.UNREACHABLE,)
"""A study that failed for one of these reasons is tried again by the next run; its ledger row is then replaced."""

Rescreen = Literal["stale", "failed", "all"]


@dataclass(frozen=True)
class Selection:
    """Which studies of the archive a run screens; by default every study that the ledger lacks.

    limit: at most this many. quiet_s: studies whose newest object is younger than this wait for a later run. since:
    only studies with an object written at this time or later, in seconds since 1970. studies: only these, by their key
    in the archive or their source_key. rescreen: `failed`: only studies that failed with this model and configuration;
    `stale`: only studies that another model or configuration has screened and this one has not; `all`: every study of
    the archive, again.
    """

    limit: int | None = None
    quiet_s: float = 0.0
    since: float | None = None
    studies: frozenset[str] = frozenset()
    rescreen: Rescreen | None = None

    @property
    def by_hand(self) -> bool:
        """Whether anything but new studies is selected: the rates of such a run are not those of a usual night."""
        return bool(self.since is not None or self.studies or self.rescreen)


@dataclass(frozen=True)
class PlannedStudy:
    """A study to screen. replaces: its new rows replace those that the ledger already has."""

    ref: StudyRef
    replaces: bool = False


@dataclass
class PlanCounts:
    """Studies that planning has seen in the archive, selected, and left for a later run; bytes of those selected.

    unlisted: what could not be listed.
    """

    listed: int = 0
    planned: int = 0
    waiting: int = 0
    planned_bytes: int = 0
    unlisted: Counter[Unlisted] = field(default_factory=Counter)


@dataclass(frozen=True)
class Plan:
    """The studies to screen, in the order of the archive; iterate once. `counts` grows with the iteration.

    done: bytes by source key of the studies to leave out, unless they have grown. again: source keys of studies that
    the ledger has and that are screened again. only: source keys to choose from; None for all. A study whose newest
    object lies up to `quiet_s` in the future waits as well, because the archive's clock may run ahead of ours.
    """

    studies: Iterable[StudyRef]
    names: Pseudonymizer
    done: Mapping[str, int]
    again: Set[str] = frozenset()
    only: Set[str] | None = None
    selection: Selection = field(default_factory=Selection)
    counts: PlanCounts = field(default_factory=PlanCounts)
    started: float = field(default_factory=time.time)

    def __iter__(self) -> Iterator[PlannedStudy]:
        counts, limit, since = self.counts, self.selection.limit, self.selection.since
        for ref in self.studies:
            if limit is not None and counts.planned >= limit:
                return
            counts.listed += 1
            if since is not None and ref.last_modified < since:
                continue
            key = self.names.source_key(ref.archive, ref.key)
            had = self.done.get(key)
            if (had is not None and ref.size <= had) or (self.only is not None and key not in self.only):
                continue
            if not ref.settled or abs(self.started - ref.last_modified) < self.selection.quiet_s:
                counts.waiting += 1
                continue
            counts.planned += 1
            counts.planned_bytes += ref.size
            yield PlannedStudy(ref, replaces=had is not None or key in self.again)


def plan_studies(
    studies: Iterable[StudyRef],
    results: Results | None,
    names: Pseudonymizer,
    model_digest: str,
    config_digest: str,
    selection: Selection = Selection(),
) -> Plan:
    """The plan for `studies` against the ledger as it is now; results: None if there are none yet."""
    rescreen = selection.rescreen
    if results is None:
        return Plan(studies, names, {}, only=set() if rescreen in {"failed", "stale"} else None, selection=selection)
    done = results.ledger_sizes(model_digest, config_digest)
    again, only = results.ledger_keys(model_digest, config_digest, only=RETRIED), None
    if rescreen == "all":
        again = set(done)
    elif rescreen == "failed":
        again = only = results.ledger_keys(model_digest, config_digest, state=State.FAILED)
    elif rescreen == "stale":
        again, only = set(), results.ledger_keys() - done.keys()
    for key in again:
        done.pop(key, None)
    return Plan(studies, names, done, again, only, selection)


def find_studies(studies: Iterable[StudyRef], names: Pseudonymizer, wanted: frozenset[str]) -> Iterator[StudyRef]:
    """The studies named in `wanted`, by their key in the archive or their source_key.

    The listing ends as soon as all are found. Raises BadInput if one of them is not in the archive.
    """
    missing, found = set(wanted), []
    for ref in studies:
        if matched := missing & {ref.key, names.source_key(ref.archive, ref.key)}:
            missing -= matched
            found.append(ref)
            if not missing:
                return iter(found)
    raise BadInput(f"expected {len(wanted)} studies of the archive, found {len(found)} of them.")


def first_checked(studies: Iterator[StudyRef]) -> Iterator[StudyRef]:
    """`studies`, with the first one fetched now: a missing or empty archive raises BadInput before any work."""
    return itertools.chain([next(studies)], studies)


def key_id(names: Pseudonymizer) -> str:
    """Twelve digits that identify the pseudonym key without revealing it."""
    return names.source_key("spinemet:key", "")[:12]


def check_apart(archive: str, results: str) -> None:
    """Raise BadInput if the results would lie inside the archive: the next run would list them as studies."""
    root, place = files.normalize(archive), files.normalize(results)
    if f"{place}/".startswith(f"{root}/"):
        raise BadInput(f"expected a results place outside the archive {root}, found {place}.")


def check_continues(last_run: Row | None, names: Pseudonymizer, dates: DatePolicy) -> None:
    """Raise BadInput if the results were made with another pseudonym key or date policy than this run's.

    With another key no study would be found in the ledger; all would be screened and counted twice.
    """
    if last_run is None:
        return
    if last_run["pseudonym_key_id"] != key_id(names):
        raise BadInput("expected the pseudonym key that these results were made with, found another one.")
    if last_run["date_policy"] != dates:
        raise BadInput(f"expected the date policy of these results ({last_run['date_policy']}), found {dates}.")
