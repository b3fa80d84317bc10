"""A screening run on a Ray cluster: CPU tasks read the studies, a pool of model actors classifies them.

    run_night (driver) -> read_row (a task per study) -> ModelActor (batches across studies) -> run_night (tables)

What travels is one row per study with its pickled Answer: compact slice stacks, never the volume, and no tensor column,
which Ray Data would copy and coalesce. The pseudonym key stays with the driver.
"""

import pickle
from collections.abc import Generator, Sequence
from functools import cache, partial
from typing import Any

from spinemet.config import StudyConfig
from spinemet.on_ray.cluster import (
    READ_CPUS,
    READ_MEMORY_BYTES,
    connect,
    grown,
    model_pool,
    parallel_tasks,
    worker_errors,
)
from spinemet.on_ray.meters import Meters
from spinemet.process.memory import keep_memory
from spinemet.progress import Progress, no_progress
from spinemet.screening.answers import Answer, classify, read_answer
from spinemet.screening.night import run_night
from spinemet.screening.plan import PlannedStudy, ScreenOptions
from spinemet.screening.run import Run

BATCH = 2
"""Studies per call of the model: about 200 slices share its last, padded forward pass, and at the end of a run no actor
works alone for long."""


def run_screen(options: ScreenOptions, progress: Progress = no_progress) -> Run:
    """Do what `run_night` does, with the studies read and classified on the Ray cluster."""

    def answers(studies: Sequence[PlannedStudy], config: StudyConfig) -> Generator[Answer, None, None]:
        connect()
        return _answers(studies, config, options)

    meters = cache(Meters)  # made at the first commit, when Ray is connected
    return run_night(options, answers, progress, lambda rows: meters().count(rows))


def _answers(
    studies: Sequence[PlannedStudy], config: StudyConfig, options: ScreenOptions
) -> Generator[Answer, None, None]:
    import ray

    cpus, gpus = grown(1 if options.gpus else options.workers or 1, options.gpus or 0)
    actors, resources = model_pool(cpus, gpus if options.gpus is None else options.gpus, options.workers)
    rows = (
        ray.data.from_items([{"study": pickle.dumps(study)} for study in studies], override_num_blocks=len(studies))
        .map(
            partial(read_row, config=config, views=options.pictures),
            num_cpus=READ_CPUS,
            memory=READ_MEMORY_BYTES,  # not that of an actor: Ray Data would fuse the two, and read only beside models
            compute=ray.data.TaskPoolStrategy(size=parallel_tasks()),
        )
        .map_batches(
            ModelActor,
            fn_constructor_args=(options.model,),
            batch_size=BATCH,
            compute=ray.data.ActorPoolStrategy(size=min(actors, len(studies))),
            **resources,
        )
        .iter_rows()
    )
    with worker_errors():
        for row in rows:
            yield pickle.loads(row["study"])


def read_row(row: dict[str, Any], config: StudyConfig, views: bool) -> dict[str, Any]:
    """A row with a pickled PlannedStudy -> a row with its pickled Answer, not yet classified."""
    from spinemet.process.isolation import process_reader  # half a second of imports that the driver does not need

    read = partial(process_reader().read, config=config, views=views)
    return {"study": pickle.dumps(read_answer(pickle.loads(row["study"]), read))}


class ModelActor:
    """A model that classifies the studies of a batch together."""

    def __init__(self, model: str) -> None:
        from spinemet.model.predictor import Predictor

        keep_memory()
        self._predict = Predictor.load(model).predict_studies

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        answers = [pickle.loads(pickled) for pickled in batch["study"]]
        return {"study": [pickle.dumps(answer) for answer in classify(answers, self._predict)]}
