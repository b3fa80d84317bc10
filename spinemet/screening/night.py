"""One screening run, from its options to its last row of `runs`.

    options -> lease -> plan -> rounds of studies -> answers, in any order -> waves -> tables -> drift

Knows no Ray: the caller passes the function that reads and classifies a round of studies.
"""

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

from deltalake.exceptions import DeltaError
from obstore.exceptions import BaseError

from spinemet import __version__
from spinemet.archive.listing import describe
from spinemet.config import StudyConfig
from spinemet.dicom.values import quiet_readers
from spinemet.errors import JobFailed
from spinemet.files import cause
from spinemet.model.points import as_json
from spinemet.progress import Progress, no_progress
from spinemet.results.lease import hold_lease
from spinemet.results.schemas import Row, RunState
from spinemet.results.suppression import suppressed
from spinemet.results.tables import Results, has_results, open_results
from spinemet.screening.answers import Answer
from spinemet.screening.drift import drift
from spinemet.screening.linkage import Linkage
from spinemet.screening.outcome import MadeWith
from spinemet.screening.plan import (
    Inputs,
    Plan,
    PlanCounts,
    PlannedStudy,
    ScreenOptions,
    check_continues,
    check_options,
    plan_studies,
)
from spinemet.screening.run import RATED, Run, Wave, account, in_words
from spinemet.screening.stopping import WAKE_S, Stop, Watchdog, arriving

ROUND = 2000
"""Studies per call of `answers`; bounds what this process holds of the listing (some 20 kB per study)."""
WAVE = 32
"""Studies per commit: a kill loses at most the work on these, and 1,000 studies a night make 32 files per table."""

Answers = Callable[[Sequence[PlannedStudy], StudyConfig], Generator[Answer, None, None]]
"""Reads and classifies studies; gives one answer per study, in any order."""
OnCommit = Callable[[Mapping[str, Sequence[Row]]], None]
"""Gets the rows of a committed wave, by table."""


@quiet_readers()
def run_night(
    options: ScreenOptions, answers: Answers, progress: Progress = no_progress, on_commit: OnCommit | None = None
) -> Run:
    """Screen the selected studies of the archive; gives the counted run, which is also the last row of `runs`.

    A second run over the same archive adds no row to any table but `runs`. SIGTERM and `max_hours` stop the run early,
    with everything done so far committed. `answers` is not called if no study is selected. Its call may start what it
    needs, on this thread; another thread draws from the generator.

    Raises BadInput, before anything is written, if the options do not pass `check_options`, another run holds the
    results, or they were made with another pseudonym key or date policy. Raises JobFailed if the lease on the results
    is lost, a store fails during the run, or no study is finished for too long (see `Watchdog`).
    """
    hours = options.max_hours
    with Stop(None if hours is None else hours * 3600) as stop:
        inputs = check_options(options)
        run = Run(_facts(options, inputs))
        with _store_errors(), hold_lease(options.results, run.run_id) as lease:
            results = open_results(options.results, create=True, lease=lease)
            results.check_whole()
            plan = _plan(options, inputs, results)
            run.plan = plan.counts
            results.write_run(run.row(RunState.RUNNING))
            try:
                results.drop_leftovers()
                made_with = MadeWith(**inputs.digests, software_version=__version__, run_id=run.run_id)
                linkage = Linkage(options.linkage, inputs.names)
                wave = Wave(results, run, inputs.names, inputs.marks, linkage, made_with, WAVE, options.slices)
                wave.erased = suppressed(results.uri).patients
                _screen(plan, wave, lambda studies: answers(studies, inputs.config), stop, progress, on_commit)
            except BaseException:
                with suppress(Exception):  # the same store may be broken; the first error is the one to report
                    results.write_run(run.row(RunState.FAILED))
                raise
            if not options.selection.by_hand:
                run.alarms = drift(run.row(run.state), results.usual_runs(**inputs.digests))
            results.write_run(run.row(run.state))
    return run


@dataclass
class Forecast(PlanCounts):
    """What a run would do, and the hours that it would take, None if unknown."""

    hours: float | None = None

    def __str__(self) -> str:
        """In one line, for a log."""
        size, later = f"{self.planned_bytes / 1e9:.1f} GB", f"{self.waiting} left for later"
        time = (
            f"time unknown: no run of {RATED} studies"
            if self.hours is None
            else f"{self.hours:.1f} h at the last run's speed"
        )
        missing = f"; not listed: {describe(self.unlisted)}" if self.unlisted else ""
        return f"{self.listed} studies listed, {self.planned} to be screened ({size}; {time}), {later}{missing}"


@quiet_readers()
def forecast(options: ScreenOptions, progress: Progress = no_progress) -> Forecast:
    """What `run_night` would do, at the speed of the last run; writes nothing. Raises BadInput as that does."""
    inputs = check_options(options)
    results = open_results(options.results) if has_results(options.results) else None
    if results is not None:
        results.check_whole()
    plan = _plan(options, inputs, results)
    counts = plan.counts
    for _ in plan:
        progress(counts.listed, 0, f"{counts.planned} to be screened")
    rate = results.last_rate() if results is not None else None
    hours = 0.0 if not counts.planned else None if rate is None else counts.planned / rate
    return Forecast(**vars(counts), hours=hours)


def _plan(options: ScreenOptions, inputs: Inputs, results: Results | None) -> Plan:
    if results is not None:
        check_continues(results.last_run(), inputs.names, options.dates)
    plan = plan_studies(inputs.studies, results, inputs.names, **inputs.digests, selection=options.selection)
    plan.counts.unlisted = inputs.unlisted
    return plan


def _screen(
    plan: Plan,
    wave: Wave,
    answers: Callable[[Sequence[PlannedStudy]], Generator[Answer, None, None]],
    stop: Stop,
    progress: Progress,
    on_commit: OnCommit | None,
) -> None:
    """Screen the planned studies, round by round; commit each wave that is due. Ends early if `stop` says so."""
    seen: Counter[str] = Counter()
    total = 0

    def show(more: str = "") -> None:
        progress(seen.total(), total, in_words(seen) + more)

    def commit() -> None:
        rows = wave.commit()
        if rows and on_commit is not None:
            on_commit(rows)

    planned = iter(plan)
    studies = list(islice(planned, ROUND))
    while studies and not wave.run.stopped:
        following = list(islice(planned, ROUND))
        total = 0 if following else plan.counts.planned
        coming = answers(studies)
        stop.defer()  # after that call, which may start Ray: it sets a SIGTERM handler of its own
        show()
        watchdog = Watchdog()
        for answer in arriving(coming, WAVE, WAKE_S):
            if answer is not None:
                wave.add(answer)
                seen[answer.reading.state] += 1
                watchdog.answered()
                show()
            elif minutes := watchdog.quiet_minutes():
                show(f"; no study finished for {minutes} min")
            wave.results.guard()
            if wave.is_due():
                commit()
            if (stalled := watchdog.stalled()) is not None:
                commit()
                raise stalled
            wave.run.stopped = stop.why()
            if wave.run.stopped:
                break
        studies = following
    commit()
    total = seen.total()
    show()


@contextmanager
def _store_errors() -> Iterator[None]:
    """Turns a store's failure during the run into one sentence: at night nobody is there to read a traceback."""
    try:
        yield
    except (DeltaError, BaseError, OSError) as error:
        raise JobFailed(
            f"A store failed during the run: {cause(error)}. What was committed stands; the next run does the rest."
        ) from error


def _facts(options: ScreenOptions, inputs: Inputs) -> dict[str, Any]:
    """The columns of `runs` that are known from the start."""
    return {
        "asked_by": account(),
        "archive_key": inputs.names.source_key(options.moved_from or options.archive, ""),
        "pseudonym_key_id": inputs.names.key_id,
        "date_policy": options.dates,
        "study_limit": options.selection.limit,
        "chosen": options.selection.by_hand,
        "config": inputs.config.model_dump_json(),
        "software_version": __version__,
        "trained_on": inputs.trained_on or None,
        "operating_points": as_json(inputs.points),
        "training_marks": str(inputs.marks.matching),
        **inputs.digests,
    }
