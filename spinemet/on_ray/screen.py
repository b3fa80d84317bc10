"""An archive screened on a Ray cluster: studies are read by CPU tasks, classified by a pool of model actors, and
committed in waves by the driver.

    plan (driver) -> read_rows (one task per study) -> ModelActor (batches across studies) -> driver -> tables

What travels is one row per study with a pickled StudyReading: its compact slice stacks, never the volume, and no
giant tensor column, which Ray Data would copy and coalesce. The pseudonym key stays with the driver. A study that
breaks anything becomes a ledger row; only the store or the cluster can stop a run, and then whole waves stand.
"""

from __future__ import annotations

import pickle
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from deltalake.exceptions import DeltaError
from obstore.exceptions import BaseError

from spinemet import __version__
from spinemet.archive.listing import list_studies
from spinemet.config import DatePolicy, StudyConfig, config_digest
from spinemet.dicom.pseudonym import Pseudonymizer
from spinemet.dicom.values import quiet_dicom
from spinemet.errors import BadInput, JobFailed, Reason
from spinemet.files import cause
from spinemet.model.card import load_card, model_digest, read_weights
from spinemet.on_ray.cluster import connect, enough_cpus, model_pool, own_error, parallel_tasks
from spinemet.on_ray.meters import Meters
from spinemet.process.memory import keep_memory
from spinemet.progress import Progress, no_progress
from spinemet.results.lease import hold_lease
from spinemet.results.schemas import RunState
from spinemet.results.tables import Results, has_results, open_results
from spinemet.screening.drift import LAST_RUNS, drift
from spinemet.screening.linkage import Linkage, check_linkage_apart
from spinemet.screening.outcome import MadeWith, slimmed, without_pixels
from spinemet.screening.plan import (
    Plan,
    Wanted,
    check_apart,
    check_continues,
    find_studies,
    first_checked,
    key_id,
    plan_studies,
)
from spinemet.screening.run import Run, account, in_words
from spinemet.screening.stopping import Stop, arriving
from spinemet.screening.wave import Answer, Wave
from spinemet.types import NotScreened, Screened, SliceStack, State, StudyReading, StudyRef

if TYPE_CHECKING:
    from spinemet.process.isolation import IsolatedReader

ROUND = 2000
"""Studies that Ray Data gets at a time; bounds what the driver holds of the listing (some 20 kB per study)."""
WAVE = 32
"""Studies per commit: a kill costs at most these, and 1,000 studies a night make 32 files per table."""
BATCH = 2
"""Studies per call of the model: its last, filled-up forward pass is then shared by about 200 slices, and at a run's
end no actor works alone for long."""


@dataclass(frozen=True)
class ScreenOptions:
    """What is to be screened, with what, and where the answers go.

    config: how studies are read; its slices are replaced by those the model was trained on. key: the pseudonym key.
    workers: model actors; None for one per GPU, or on CPUs for one per two. gpus: GPUs for
    these, which the cluster may still have to grow to; None for those it has. pictures: also store the straightened
    spine. slices: also store every slice's probabilities. wanted: which studies. max_hours: stop after that time, with
    what is done committed.
    linkage: a place where to write what the pseudonyms stand for; None for nowhere.
    """

    archive: str
    results: str
    model: str
    key: bytes = field(repr=False)
    config: StudyConfig = field(default_factory=StudyConfig)
    dates: DatePolicy = "shifted"
    wanted: Wanted = field(default_factory=Wanted)
    max_hours: float | None = None
    workers: int | None = None
    gpus: int | None = None
    pictures: bool = True
    slices: bool = False
    linkage: str | None = None


@dataclass(frozen=True)
class Forecast:
    """What a run would do: studies seen, to be screened and left waiting; their bytes; hours, None where unknown."""

    listed: int
    planned: int
    waiting: int
    planned_bytes: int
    hours: float | None

    def __str__(self) -> str:
        """In one line, for a log."""
        size, later = f"{self.planned_bytes / 1e9:.1f} GB", f"{self.waiting} left for later"
        time = "no run tells yet how long" if self.hours is None else f"{self.hours:.1f} h at the last run's speed"
        return f"{self.listed} studies listed, {self.planned} to be screened ({size}; {time}), {later}"


@dataclass(frozen=True)
class _Asked:
    """Checked options: the studies of the archive and what they are to be read with."""

    studies: Iterator[StudyRef]
    names: Pseudonymizer
    config: StudyConfig
    digests: dict[str, str]


@quiet_dicom()
def run_screen(options: ScreenOptions, progress: Progress = no_progress) -> Run:
    """Screen the studies of the archive that the results do not have for this model and configuration.

    Gives the counted run, which is also the last row of `runs`. A second run over the same archive adds no row to any
    table but `runs`. SIGTERM and `max_hours` end it with what is done committed. Raises BadInput, before anything is
    written, where the archive, the model or the results place is not one, another run works on the results, or they
    were made under another pseudonym key or date policy. Raises JobFailed where the lease on the results is lost, or a
    store breaks under way.
    """
    hours = options.max_hours
    with Stop(None if hours is None else hours * 3600) as stop:
        asked = _checked(options)
        run = Run(asked={**_facts(options, asked.config, asked.names), **asked.digests})
        with _stores_needed(), hold_lease(options.results, run.run_id) as lease:
            results = open_results(options.results, create=True, guard=lease.check)
            check_continues(results.last_run(), asked.names, options.dates)
            plan = plan_studies(asked.studies, results, asked.names, **asked.digests, wanted=options.wanted)
            results.write_run(run.row(RunState.RUNNING))
            try:
                results.drop_leftovers()
                _screen(plan, results, run, options, asked.config, progress, stop)
            except BaseException:
                with suppress(Exception):  # the store may be what broke; the error that did it is the one to tell
                    results.write_run(run.row(RunState.FAILED))
                raise
            if not options.wanted.chosen:
                run.signals = drift(run.row(run.state), results.usual_runs(**asked.digests, last=LAST_RUNS))
            results.write_run(run.row(run.state))
    return run


@contextmanager
def _stores_needed() -> Iterator[None]:
    """A store that breaks under way ends the run with one sentence: at night nobody is there to read a trace."""
    try:
        yield
    except (DeltaError, BaseError, OSError) as error:
        raise JobFailed(
            f"expected to read and write the stores until the end, found: {cause(error)}. What was committed stands; "
            f"the next run does the rest."
        ) from error


@quiet_dicom()
def forecast(options: ScreenOptions, progress: Progress = no_progress) -> Forecast:
    """What `run_screen` would do, at the speed of the last run; writes nothing. Raises BadInput as that does."""
    asked = _checked(options)
    results = open_results(options.results) if has_results(options.results) else None
    if results is not None:
        check_continues(results.last_run(), asked.names, options.dates)
    plan = plan_studies(asked.studies, results, asked.names, **asked.digests, wanted=options.wanted)
    for _ in plan:
        progress(plan.listed, 0, f"{plan.planned} to be screened")
    rate = results.last_rate() if results is not None else None
    return Forecast(
        plan.listed, plan.planned, plan.waiting, plan.planned_bytes, None if rate is None else plan.planned / rate
    )


def _checked(options: ScreenOptions) -> _Asked:
    for name, number, least in (
        ("limit", options.wanted.limit, 1),
        ("number of workers", options.workers, 1),
        ("number of GPUs", options.gpus, 0),
    ):
        if number is not None and number < least:
            raise BadInput(f"expected a {name} of at least {least}, found {number}.")
    if not options.wanted.quiet_s >= 0:
        raise BadInput(f"expected quiet minutes of at least 0, found {options.wanted.quiet_s / 60:g}.")
    if options.max_hours is not None and not options.max_hours > 0:
        raise BadInput(f"expected a number of hours above 0, found {options.max_hours:g}.")
    card = load_card(options.model)
    read_weights(options.model, card)  # a damaged model is told now, and without torch: a quiet night needs none
    config = options.config.model_copy(update={"slices": card.spec.slices})
    names = Pseudonymizer(options.key, options.dates)
    check_apart(options.archive, options.results)
    if options.linkage is not None:
        check_apart(options.archive, options.linkage)
        check_linkage_apart(options.linkage, options.results)
    studies = first_checked(iter(list_studies(options.archive)))
    if options.wanted.studies:
        studies = find_studies(studies, names, options.wanted.studies)
    return _Asked(studies, names, config, {"model_digest": model_digest(card), "config_digest": config_digest(config)})


def _screen(
    plan: Plan, results: Results, run: Run, options: ScreenOptions, config: StudyConfig, progress: Progress, stop: Stop
) -> None:
    """Do the plan, round by round, committing a wave whenever one is full or old, until the end or `stop`."""
    made_with = MadeWith(run.asked["model_digest"], run.asked["config_digest"], __version__, run.run_id)
    wave = Wave(Linkage(options.linkage, plan.names), results, run, plan.retried, WAVE)
    seen: Counter[str] = Counter()
    todo = iter(plan)
    refs = list(islice(todo, ROUND))
    if not refs:
        run.listed, run.waiting = plan.listed, plan.waiting
        return progress(0, 0, in_words(seen))
    connect()  # here and not before: a night without new studies needs no cluster
    meters = Meters()
    stop.defer()
    while refs and not run.stopped:
        following = list(islice(todo, ROUND))
        total = 0 if following else plan.planned
        run.listed, run.planned, run.waiting = plan.listed, plan.planned, plan.waiting
        progress(seen.total(), total, in_words(seen))
        for answer in arriving(_answers(refs, options, config), WAVE):
            if answer is not None:
                wave.add(answer, made_with, plan.names, slices=options.slices)
                seen[str(answer.reading.state)] += 1
                progress(seen.total(), total, in_words(seen))
            results.guard()
            if wave.is_due():
                meters.count(wave.commit())
            run.stopped = stop.why()
            if run.stopped:
                break
        refs = following
    run.listed, run.planned, run.waiting = plan.listed, plan.planned, plan.waiting
    meters.count(wave.commit())
    progress(seen.total(), seen.total(), in_words(seen))


def _answers(refs: Sequence[StudyRef], options: ScreenOptions, config: StudyConfig) -> Generator[Answer, None, None]:
    """What became of each study, in the order in which they end."""
    import ray

    gpus = int(ray.cluster_resources().get("GPU", 0)) if options.gpus is None else options.gpus
    cpus = enough_cpus(1 if gpus else 1 + (options.workers or 1))
    actors, resources = model_pool(cpus, gpus, options.workers)
    rows = (
        ray.data.from_items([{"study": pickle.dumps(ref)} for ref in refs], override_num_blocks=len(refs))
        .map(
            partial(read_row, config=config, views=options.pictures),
            num_cpus=1,
            compute=ray.data.TaskPoolStrategy(size=parallel_tasks()),
        )
        .map_batches(
            ModelActor,
            fn_constructor_args=(options.model,),
            batch_size=BATCH,
            compute=ray.data.ActorPoolStrategy(size=min(actors, len(refs))),
            **resources,
        )
        .iter_rows()
    )
    try:
        for row in rows:
            yield pickle.loads(row["study"])
    except ray.exceptions.RayError as error:
        if (own := own_error(error)) is not None:
            raise own from error
        raise


_reader: IsolatedReader | None = None
"""This worker process's reader: Ray reuses its workers, so the child and its imports serve many studies."""


def read_row(row: dict[str, Any], config: StudyConfig, views: bool) -> dict[str, Any]:
    """A row with a pickled StudyRef -> a row with the pickled, slim Answer of its reading, not yet classified."""
    global _reader  # noqa: PLW0603
    from spinemet.process.isolation import IsolatedReader  # half a second of imports that the driver does without

    _reader = _reader or IsolatedReader()
    ref: StudyRef = pickle.loads(row["study"])
    try:
        reading: StudyReading = slimmed(_reader.read(ref, config, views=views))
    except Exception as error:  # whatever a study does, it is a row; the text of the error could hold an identifier
        reading = NotScreened(State.FAILED, Reason.INTERNAL, f"unexpected {type(error).__name__} while it was read.")
    return {"study": pickle.dumps(Answer(ref, reading))}


class ModelActor:
    """A model that classifies the studies of a batch together."""

    def __init__(self, model: str) -> None:
        from spinemet.model.predictor import Predictor

        keep_memory()
        self._predict = Predictor.load(model).predict

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        answers = [pickle.loads(pickled) for pickled in batch["study"]]
        return {"study": [pickle.dumps(answer) for answer in classify(answers, self._predict)]}


def classify(answers: Iterable[Answer], predict: Any) -> list[Answer]:
    """The answers with their calls and without pixels.

    predict: slice stacks -> one VertebraCall each. All studies are asked at once; where that fails each is asked
    alone, and the one to blame becomes `failed: internal`. A vertebra without slices gets no call.
    """
    answers = list(answers)
    stacks = [_stacks(answer) for answer in answers]
    start = time.perf_counter()
    try:
        calls = predict([stack for each in stacks for stack in each])
    except Exception as error:
        if len(answers) > 1:
            return [one for answer in answers for one in classify([answer], predict)]
        detail = f"unexpected {type(error).__name__} in the model."
        return [_broken(answer, detail) for answer in answers]
    per_stack = (time.perf_counter() - start) / max(len(calls), 1)
    given = iter(calls)
    return [
        replace(
            answer,
            reading=without_pixels(answer.reading),
            calls=tuple(next(given) if len(stack.hu_NHW) else None for stack in answer.reading.stacks),
            seconds_model=per_stack * len(mine) if mine else None,
        )
        if isinstance(answer.reading, Screened)
        else answer
        for answer, mine in zip(answers, stacks, strict=True)
    ]


def _broken(answer: Answer, detail: str) -> Answer:
    reading = answer.reading
    return replace(answer, reading=reading.failed(Reason.INTERNAL, detail)) if isinstance(reading, Screened) else answer


def _stacks(answer: Answer) -> list[SliceStack]:
    reading = answer.reading
    return [stack for stack in reading.stacks if len(stack.hu_NHW)] if isinstance(reading, Screened) else []


def _facts(options: ScreenOptions, config: StudyConfig, names: Pseudonymizer) -> dict[str, Any]:
    return {
        "asked_by": account(),
        "archive_key": names.source_key(options.archive, ""),
        "pseudonym_key_id": key_id(names),
        "date_policy": options.dates,
        "study_limit": options.wanted.limit,
        "chosen": options.wanted.chosen,
        "config": config.model_dump_json(),
        "software_version": __version__,
    }
