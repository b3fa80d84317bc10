"""Crops made on a Ray cluster: its worker processes share the archive's studies and store one shard per study.

A study's volume lives in a child process of the worker that reads it, and its slices go from there to the crops
place. Only the identifiers and a few numbers of each study come back through Ray; the pseudonym key stays with the
driver.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from spinemet.config import StudyConfig
from spinemet.dicom.pseudonym import Pseudonymizer
from spinemet.on_ray.cluster import connect, parallel_tasks, worker_errors
from spinemet.process.isolation import process_reader
from spinemet.progress import Progress, no_progress
from spinemet.training.crops import CropsInfo
from spinemet.training.labels import LABEL_CLASSES, LabelWords
from spinemet.training.preparing import PreparedStudy, prepare_archive, prepare_study
from spinemet.types import StudyRef

if TYPE_CHECKING:
    import pandas as pd


def run_prepare(
    archive: str,
    labels_uri: str,
    out: str,
    config: StudyConfig,
    names: Pseudonymizer,
    progress: Progress = no_progress,
    words: LabelWords = LABEL_CLASSES,
) -> CropsInfo:
    """Do what `prepare_archive` does, with the studies prepared on the Ray cluster."""

    def prepared(studies: Sequence[StudyRef], labels: pd.DataFrame) -> Iterator[PreparedStudy]:
        connect()
        return _prepared(studies, partial(prepare_row, labels=labels, config=config, out=out))

    return prepare_archive(archive, labels_uri, out, config, names, prepared, progress, words)


def _prepared(studies: Sequence[StudyRef], prepare: Any) -> Iterator[PreparedStudy]:
    import ray

    rows = (
        ray.data.from_items([{"study": pickle.dumps(ref)} for ref in studies], override_num_blocks=len(studies))
        .map(prepare, compute=ray.data.TaskPoolStrategy(size=parallel_tasks()), num_cpus=1)
        .iter_rows()
    )
    with worker_errors():
        for row in rows:
            yield PreparedStudy.model_validate_json(row["prepared"])


def prepare_row(row: dict[str, Any], labels: pd.DataFrame, config: StudyConfig, out: str) -> dict[str, str]:
    """A row with a pickled StudyRef -> a row with the PreparedStudy as JSON."""
    prepared = prepare_study(pickle.loads(row["study"]), labels, config, out, process_reader().read)
    return {"prepared": prepared.model_dump_json()}
