"""Crops made on a Ray cluster: the archive's studies spread over worker processes, one shard each.

A study's volume lives in a child process of the worker that reads it, and its slices go from there to the crops
place; what comes back through Ray is a few numbers per study.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from spinemet.archive.listing import list_studies
from spinemet.config import StudyConfig
from spinemet.dicom.values import quiet_dicom
from spinemet.on_ray.cluster import connect, parallel_tasks, worker_errors
from spinemet.process.isolation import process_reader
from spinemet.progress import Progress, no_progress
from spinemet.training.crops import CropsInfo, check_writable, write_manifest
from spinemet.training.labels import LABEL_CLASSES, LabelWords, consensus, read_labels
from spinemet.training.preparing import PreparedStudy, prepare_study, summarize

if TYPE_CHECKING:
    import pandas as pd

WAVE = 2000
"""Studies that Ray Data gets at a time; bounds what the driver holds of the archive's listing."""


@quiet_dicom()
def run_prepare(
    archive: str,
    labels_uri: str,
    out: str,
    config: StudyConfig,
    progress: Progress = no_progress,
    words: LabelWords = LABEL_CLASSES,
) -> CropsInfo:
    """Make the crops of all labelled studies below `archive` at `out`; gives the manifest written there.

    words: the label columns to take, and what may stand in them (see `training.labels.label_words`).
    A rerun on the same archive and labels gives the same crops; one that is stopped leaves the earlier crops as they
    were. Studies that cannot be used are counted by reason. Raises BadInput where archive or label table are missing
    or wrong, nothing in the archive is labelled, or `out` cannot be written.
    """
    labels = consensus(read_labels(labels_uri, words))
    studies = list_studies(archive)
    wave = list(islice(studies, WAVE))
    check_writable(out)
    connect()
    prepared: list[PreparedStudy] = []
    while wave:
        following = list(islice(studies, WAVE))
        total = 0 if following else len(prepared) + len(wave)
        for one in _prepare_wave([pickle.dumps(ref) for ref in wave], labels, config, out):
            prepared.append(one)
            cut = sum(1 for each in prepared if each.shard)
            progress(len(prepared), total, f"{cut} with labels")
        wave = following
    info = summarize(prepared, labels, config, archive)
    write_manifest(out, info)
    return info


def _prepare_wave(refs: list[bytes], labels: pd.DataFrame, config: StudyConfig, out: str) -> Iterator[PreparedStudy]:
    """What became of each study, in the order in which they end."""
    import ray

    rows = (
        ray.data.from_items([{"ref": ref} for ref in refs], override_num_blocks=len(refs))
        .map(
            partial(prepare_row, labels=labels, config=config, out=out),
            compute=ray.data.TaskPoolStrategy(size=parallel_tasks()),
            num_cpus=1,
        )
        .iter_rows()
    )
    with worker_errors():
        for row in rows:
            yield PreparedStudy.model_validate_json(row["prepared"])


def prepare_row(row: dict[str, Any], labels: pd.DataFrame, config: StudyConfig, out: str) -> dict[str, str]:
    """A row with a pickled StudyRef -> a row with the PreparedStudy as JSON."""
    prepared = prepare_study(pickle.loads(row["ref"]), labels, config, out, process_reader().read)
    return {"prepared": prepared.model_dump_json()}
