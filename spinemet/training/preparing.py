"""From an archive and a label table to crops. Knows no Ray: the caller passes the function that prepares studies."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import pandas as pd

from spinemet.archive.grouping import NO_IDENTITY, identity_in
from spinemet.archive.layouts.nifti import NiftiLayout
from spinemet.archive.listing import describe, list_studies, open_study
from spinemet.archive.store import Unlisted
from spinemet.config import FrozenModel, StudyConfig, changed, config_digest
from spinemet.dicom.pseudonym import Pseudonymizer
from spinemet.dicom.values import quiet_readers
from spinemet.errors import BadInput, Reason, StudyProblem
from spinemet.files import normalize
from spinemet.progress import Progress, no_progress
from spinemet.reading import NotScreened, Screened, StudyReading
from spinemet.training.crops import CropsInfo, Shard, check_writable, crop_rows, whose, write_manifest, write_shard
from spinemet.training.labels import LABEL_CLASSES, ORIGINS, LabelWords, consensus, label_columns, read_labels
from spinemet.training.matching import match_labels
from spinemet.types import StudyRef

ROUND = 2000
"""Studies per call of `Prepare`; bounds what this process holds of the archive's listing."""
HEAD_BYTES = 64 << 10
"""Enough for the identifiers of any CT object, which come before the description of the image."""
HEADS = 5
"""How many objects' heads are tried for identifiers before the study is read as a whole."""


class PreparedStudy(FrozenModel):
    """The outcome for one study.

    shard: with the study's identifiers, which only the driver turns into pseudonyms: it alone has the key. labels: the
    row in the label table of each cropped vertebra that is labelled as a whole. slice_labels: the rows of labels that
    reached a slice. strays: see CropsInfo. reason: why the study could not be used. skipped: the study was not read
    because it has no labels.
    """

    shard: Shard | None = None
    labels: tuple[int, ...] = ()
    slice_labels: tuple[int, ...] = ()
    strays: tuple[int, ...] = ()
    reason: Reason | None = None
    skipped: bool = False


Prepare = Callable[[Sequence[StudyRef], pd.DataFrame], Iterator[PreparedStudy]]
"""Does `prepare_study` for each study with the labels; gives one result per study, in any order."""


@quiet_readers()
def prepare_archive(
    archive: str,
    labels_uri: str,
    out: str,
    config: StudyConfig,
    names: Pseudonymizer,
    prepare: Prepare,
    progress: Progress = no_progress,
    words: LabelWords = LABEL_CLASSES,
) -> CropsInfo:
    """Make the crops of all labelled studies below `archive` at `out`; gives the manifest written there.

    names: the pseudonyms under which patients and studies appear. words: the label columns to take and the words
    allowed in them (see `training.labels.label_words`).
    The same archive, labels and key give the same crops. A run that is stopped leaves earlier crops unchanged. Studies
    that cannot be used are counted by reason. Raises BadInput if archive or label table are missing or wrong, nothing
    in the archive is labelled, or `out` cannot be written.
    """
    labels = consensus(read_labels(labels_uri, words))
    unlisted: Counter[Unlisted] = Counter()
    listed = list_studies(archive, unlisted)
    studies = list(islice(listed, ROUND))
    check_writable(out)
    done: list[PreparedStudy] = []
    labelled = 0
    while studies:
        following = list(islice(listed, ROUND))
        total = 0 if following else len(done) + len(studies)
        for one in prepare(studies, labels):
            done.append(one)
            labelled += one.shard is not None
            progress(len(done), total, f"{labelled} with labels")
        studies = following
    info = summarize(done, labels, config, archive, names, unlisted)
    write_manifest(out, info)
    return info


def prepare_study(
    ref: StudyRef,
    labels: pd.DataFrame,
    config: StudyConfig,
    out: str,
    read: Callable[[StudyRef, StudyConfig], StudyReading],
) -> PreparedStudy:
    """Cut the labelled vertebrae of one study and store them as a shard below `out`.

    labels: from `training.labels.consensus`. read: `study.read_study`, or the method of an `IsolatedReader`.
    """
    if not may_have_labels(ref, labels):
        return PreparedStudy(skipped=True)
    reading = read(ref, config)
    if isinstance(reading, NotScreened):
        return PreparedStudy(reason=reading.reason)
    return store_crops(reading, labels, out)


def store_crops(reading: Screened, labels: pd.DataFrame, out: str) -> PreparedStudy:
    """Store the labelled vertebrae of a reading as a shard below `out`; no shard if it has no labels."""
    matches = match_labels(reading, labels)
    rows = crop_rows(reading, labels, matches)
    if rows.num_rows == 0:
        return PreparedStudy(strays=matches.strays)
    found = matches.vertebrae.values()
    return PreparedStudy(
        shard=changed(write_shard(out, rows), **whose(reading, labels, matches)),
        labels=tuple(match.row for match in found if match.row is not None),
        slice_labels=tuple(sorted({row for match in found for row in match.slice_rows})),
        strays=matches.strays,
    )


def may_have_labels(ref: StudyRef, labels: pd.DataFrame) -> bool:
    """False if the head of a DICOM object (a few KB) shows that the study has no labels.

    True if it cannot show that; a broken study is then found by reading it.
    """
    if ref.layout == NiftiLayout.name:
        return True
    studies, patients = set(labels["study"]), set(labels.loc[labels["study"] == "", "patient"])
    try:
        with quiet_readers(), open_study(ref) as objects:
            for name in objects.names()[:HEADS]:
                identity = identity_in(objects.head(name, HEAD_BYTES))
                if identity is None or identity == NO_IDENTITY:
                    continue
                patient, study = identity
                # identity_in ignores character sets: names with other letters than ASCII cannot be compared.
                return study in studies or patient in patients or not patient.isascii()
    except StudyProblem:
        return True
    return True


def summarize(
    prepared: Sequence[PreparedStudy],
    labels: pd.DataFrame,
    config: StudyConfig,
    archive: str,
    names: Pseudonymizer,
    unlisted: Counter[Unlisted] | None = None,
) -> CropsInfo:
    """The manifest of the crops of all `prepared` studies, in any order. unlisted: see `list_studies`.

    Raises BadInput if no label belongs to a whole vertebra of the archive.
    """
    problems = dict(sorted(Counter(str(one.reason) for one in prepared if one.reason is not None).items()))
    # A study that is in the archive twice gives the same shard twice.
    used = {one.shard: one for one in prepared if one.shard is not None}
    if not used:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in problems.items())
        because = f" ({reasons})" if reasons else ""
        missing = f"; not listed: {describe(unlisted)}" if unlisted else ""
        raise BadInput(
            f"expected labelled studies in {normalize(archive)}, found no labelled vertebra in {len(prepared)} "
            f"studies{because}{missing}."
        )
    # By content: a key does not change the order in which slices are learned from.
    shards = tuple(sorted((shard.under(names) for shard in used), key=lambda one: (one.name, one.patient, one.study)))
    rows = [row for one in used.values() for row in one.labels]
    slice_rows = sorted({row for one in used.values() for row in one.slice_labels})
    columns = label_columns(labels)
    labelled = labels[columns].notna().any(axis=1)
    return CropsInfo(
        slice_config=config.slices,
        config_digest=config_digest(config),
        pseudonym_key_id=names.key_id,
        shards=shards,
        patients=len({shard.patient for shard in shards}),
        studies=len({shard.study for shard in shards}),
        vertebrae=sum(shard.vertebrae for shard in shards),
        slices=sum(shard.slices for shard in shards),
        classes={name: _count(labels[name], rows) for name in columns},
        slice_classes={name: _count(labels[name], slice_rows) for name in columns if (labels["slice"] != "").any()},
        labels_unmatched=int(labelled.sum()) - len(set(rows)) - len(slice_rows),
        strays=tuple(sorted({row for one in prepared for row in one.strays})),
        problems=problems,
        unlisted={str(kind): count for kind, count in sorted((unlisted or {}).items())},
        trained_on=_origins(labels["origin"].iloc[[*rows, *slice_rows]]),
    )


def _origins(cells: pd.Series) -> str:
    """Where labelled vertebrae come from, in words; "" if all may be of patients."""
    words = sorted(ORIGINS[word] for word in set(cells) - {""})
    return " and ".join([*words, *(["other studies"] if words and (cells == "").any() else [])])


def _count(words: pd.Series, rows: Sequence[int]) -> dict[str, int]:
    """Class -> how many of `rows` have it; in columns beyond LABEL_CLASSES, each word is a class."""
    counts = Counter(words.iloc[list(rows)].dropna())
    return {name: counts[name] for name in LABEL_CLASSES.get(str(words.name), sorted(words.dropna().unique()))}
