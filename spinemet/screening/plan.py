"""What a run is asked for, and which studies it screens.

By default these are the studies of the archive that the ledger lacks, for one model and one configuration.

A study in the ledger is not screened again, whatever its state, with two exceptions: the archive could not be reached
last time, which is not the study's fault, or the study has grown since (another series, the second half of a transfer).
A study that is still being written waits for a later run, and so does one whose headers could not be read to tell
which study they belong to. Neither gets a ledger row before it is complete.

The listing is streamed. Memory holds the ledger's keys: about 190 MB per million studies.
"""

import itertools
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Literal

from spinemet import files
from spinemet.archive.listing import list_studies
from spinemet.archive.store import Unlisted
from spinemet.config import DatePolicy, StudyConfig, changed, config_digest
from spinemet.dicom.pseudonym import Pseudonymizer
from spinemet.errors import BadInput, Reason
from spinemet.model.card import load_card, model_digest, read_weights
from spinemet.model.marks import Marks, load_marks
from spinemet.model.points import Points, load_points
from spinemet.reading import State
from spinemet.results.schemas import Row
from spinemet.results.suppression import suppressed
from spinemet.results.tables import Results
from spinemet.screening.linkage import check_linkage_apart
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
    done = results.ledger(model_digest, config_digest)
    only: Set[str] | None = None
    again: Set[str] = results.ledger(model_digest, config_digest, only=RETRIED).keys()
    if rescreen == "all":
        again = set(done)
    elif rescreen == "failed":
        again = only = results.ledger(model_digest, config_digest, state=State.FAILED).keys()
    elif rescreen == "stale":
        again, only = set(), results.ledger().keys() - done.keys()
    for key in again:
        done.pop(key, None)
    erased = suppressed(results.uri).sources
    done |= dict.fromkeys(erased, sys.maxsize)  # however much they grow
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


def check_apart(archive: str, results: str) -> None:
    """Raise BadInput if the results would lie inside the archive: the next run would list them as studies."""
    root, place = files.resolved(archive), files.resolved(results)
    if f"{place}/".startswith(f"{root}/"):
        raise BadInput(f"expected a results place outside the archive {root}, found {place}.")


def check_key(last_run: Row | None, names: Pseudonymizer) -> None:
    """Raise BadInput if the results were made with another pseudonym key."""
    if last_run is not None and last_run["pseudonym_key_id"] != names.key_id:
        raise BadInput("expected the pseudonym key that these results were made with, found another one.")


def check_continues(last_run: Row | None, names: Pseudonymizer, dates: DatePolicy) -> None:
    """Raise BadInput if the results were made with another pseudonym key or date policy than this run's.

    With another key no study would be found in the ledger; all would be screened and counted twice.
    """
    check_key(last_run, names)
    if last_run is not None and last_run["date_policy"] != dates:
        raise BadInput(f"expected the date policy of these results ({last_run['date_policy']}), found {dates}.")


# ---- options ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ScreenOptions:
    """What a run screens, with what, and where the answers go.

    key: the pseudonym key. config: how studies are read; its slices are replaced by those that the model was trained
    on. selection: which studies. max_hours: stop after this time; what is done is committed. workers: model actors;
    None for one per GPU, or one per two CPUs. gpus: how many GPUs they take; the cluster may still have to start
    them. None for the GPUs that it has now. pictures: also store the straightened spine. slices: also store the
    probabilities of each slice. linkage: where to write the table that says which identifiers the pseudonyms stand for;
    None for no table. moved_from: the address at which the archive's studies were screened before; they keep their
    keys and are not screened again.
    """

    archive: str
    results: str
    model: str
    key: bytes = field(repr=False)
    config: StudyConfig = field(default_factory=StudyConfig)
    dates: DatePolicy = "shifted"
    selection: Selection = field(default_factory=Selection)
    max_hours: float | None = None
    workers: int | None = None
    gpus: int | None = None
    pictures: bool = True
    slices: bool = False
    linkage: str | None = None
    moved_from: str | None = None


@dataclass(frozen=True)
class Inputs:
    """Everything that checked options lead to: studies, pseudonyms, reading configuration, `runs` digest columns.

    unlisted: counts what could not be listed, while `studies` are taken. trained_on: of the model's card. marks: of the
    patients that the model has met. points: its operating points.
    """

    studies: Iterator[StudyRef]
    unlisted: Counter[Unlisted]
    names: Pseudonymizer
    config: StudyConfig
    digests: dict[str, str]
    trained_on: str
    marks: Marks
    points: Points


def check_options(options: ScreenOptions) -> Inputs:
    """The inputs of a run. Raises BadInput if a number is out of range, a place is missing or wrong, or a selected
    study is not in the archive.
    """
    for name, number, least in (
        ("limit", options.selection.limit, 1),
        ("number of workers", options.workers, 1),
        ("number of GPUs", options.gpus, 0),
    ):
        if number is not None and number < least:
            raise BadInput(f"expected a {name} of at least {least}, found {number}.")
    if not options.selection.quiet_s >= 0:
        raise BadInput(f"expected quiet minutes of at least 0, found {options.selection.quiet_s / 60:g}.")
    if options.max_hours is not None and not options.max_hours > 0:
        raise BadInput(f"expected a number of hours above 0, found {options.max_hours:g}.")
    card = load_card(options.model)
    read_weights(options.model, card)  # finds a damaged model now, and without torch, which a quiet night does not need
    config = changed(options.config, slices=card.spec.slices)
    moved = {files.normalize(options.archive): files.normalize(options.moved_from)} if options.moved_from else None
    names = Pseudonymizer(options.key, options.dates, moved)
    check_apart(options.archive, options.results)
    files.check_folder(options.results)
    if options.linkage is not None:
        check_apart(options.archive, options.linkage)
        check_linkage_apart(options.linkage, options.results)
    unlisted: Counter[Unlisted] = Counter()
    studies = first_checked(list_studies(options.archive, unlisted))
    if options.selection.studies:
        studies = find_studies(studies, names, options.selection.studies)
    digests = {"model_digest": model_digest(card), "config_digest": config_digest(config)}
    marks = load_marks(options.model, card, names.key_id)
    points = load_points(options.model, card)
    return Inputs(studies, unlisted, names, config, digests, card.trained_on, marks, points)
