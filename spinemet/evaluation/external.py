"""The external check: a model measured on a site's own studies, straight from its archive and label table.

Every study is read as in screening, in a child process, and every label is accounted for. Writes no pixels.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import pandas as pd

from spinemet.archive.listing import describe, list_studies
from spinemet.archive.store import Unlisted
from spinemet.config import StudyConfig, changed
from spinemet.dicom.pseudonym import Pseudonymizer
from spinemet.errors import BadInput
from spinemet.evaluation.evaluate import (
    Evaluation,
    Split,
    chosen_patients,
    measured,
    unknown_patients,
    write_evaluation,
)
from spinemet.evaluation.groups import GROUPS, scan_groups
from spinemet.evaluation.predictions import Probabilities, certainty, unit_tables
from spinemet.model.doubt import bone_hu, in_context
from spinemet.model.marks import Marks, load_marks
from spinemet.model.predictor import Predictor
from spinemet.process.isolation import read_all
from spinemet.progress import Progress, no_progress
from spinemet.reading import Screened, StudyReading, VertebraCall
from spinemet.screening.outcome import facts_series
from spinemet.training.crops import WHERE, WHOSE, Shard, crop_rows, whose
from spinemet.training.labels import consensus, label_columns, label_words, read_labels
from spinemet.training.matching import Matches, match_labels
from spinemet.training.preparing import may_have_labels
from spinemet.types import Completeness, SeriesHeader

MATCHED = "matched"
OVERRULED = "another label says the same vertebra more closely"
CUT = "the vertebra is cut by the field of view"
NOT_FOUND = "no vertebra of this level was found"
STRAY = "the slice is not in the study, or not in the vertebra"
NOT_READ = "the study could not be read: "
LEARNED_FROM = "the model was trained on this patient, who has another name in the labels"
NO_STUDY = "no such study, or nothing in it can be read"
_ORDER = (MATCHED, OVERRULED, CUT, STRAY, NOT_FOUND, NOT_READ, LEARNED_FROM, NO_STUDY)
"""A label that several studies could use keeps the first of these."""


@dataclass
class StudyPredictions:
    """A model's calls on labelled studies, added one study at a time by `add`.

    names, marks: tell in whose training the model has met, and under which pseudonyms patients and studies appear.
    fates: row of `labels` (from 0) -> MATCHED, or why no vertebra has this label. studies: read and with labels.
    unread: perhaps with labels, but not read. unlabelled: whole, named vertebrae of these studies without a label.
    """

    predictor: Predictor
    labels: pd.DataFrame
    names: Pseudonymizer
    marks: Marks
    fates: dict[int, str] = field(default_factory=dict)
    studies: int = 0
    unread: int = 0
    unlabelled: int = 0
    _seen: set[str] = field(default_factory=set)
    _slices: list[pd.DataFrame] = field(default_factory=list)
    _prob: list[Probabilities] = field(default_factory=list)
    _calls: list[VertebraCall] = field(default_factory=list)

    def __post_init__(self) -> None:
        said = self.labels[label_columns(self.labels)].notna().any(axis=1)
        self.fates = dict.fromkeys(np.flatnonzero(said).tolist(), NO_STUDY)

    def add(self, reading: StudyReading) -> None:
        """Classify the labelled vertebrae of `reading`. A study that comes again is left out."""
        about = facts_series(reading)
        rows = self._rows_of(about)
        if not isinstance(reading, Screened):
            self.unread += 1
            self._note(dict.fromkeys(rows, f"{NOT_READ}{reading.reason.meaning}"))
            return
        key = about.StudyInstanceUID or about.SeriesInstanceUID
        if not rows or key in self._seen:
            return
        self._seen.update({key} - {""})
        if self.marks.seen(self.names.patient_key(about.PatientID)):
            self._note(dict.fromkeys(rows, LEARNED_FROM))
            return
        self.studies += 1
        matches = match_labels(reading, self.labels)
        self._note({row: self._fate(row, reading, matches) for row in rows})
        named = [
            one for one in reading.spine.vertebrae if one.completeness is Completeness.WHOLE and one.level[0] != "?"
        ]
        self.unlabelled += len(named) - len(matches.vertebrae)
        if matches.vertebrae:
            self._classify(reading, matches)

    def _classify(self, reading: Screened, matches: Matches) -> None:
        table = crop_rows(reading, self.labels, matches).drop_columns(["hu"]).to_pandas()
        sizes = [len(reading.stacks[n].hu_NHW) for n in matches.vertebrae]
        before = sum(part["vertebra"].nunique() for part in self._slices)
        shard = Shard(name="", slices=0, vertebrae=0, **whose(reading, self.labels, matches)).under(self.names)
        table[list(WHOSE)] = [getattr(shard, name) for name in WHOSE]
        table["vertebra"] = before + np.repeat(np.arange(len(sizes)), sizes)
        hu_NHW = np.concatenate([reading.stacks[n].hu_NHW for n in matches.vertebrae])
        further = [name for name in table.columns if name not in WHERE]
        self._slices.append(table[[*WHERE, *further]].assign(**scan_groups(reading)))
        prob = self.predictor.predict_slices(hu_NHW)
        self._prob.append(prob)
        calls = self.predictor.calls(hu_NHW, prob, self.predictor.features(), sizes)
        others = (one for n, one in enumerate(reading.stacks) if n not in matches.vertebrae and len(one.hu_NHW))
        self._calls += in_context(calls, [bone_hu(np.asarray(one.hu_NHW, np.float64), one.pixel_mm) for one in others])

    def _rows_of(self, about: SeriesHeader) -> list[int]:
        """The rows of the labels that are of this study, or of its patient."""
        labels = self.labels
        of_study = (labels["study"] != "") & (labels["study"] == about.StudyInstanceUID)
        of_patient = (labels["study"] == "") & (labels["patient"] == about.PatientID)
        return [row for row in np.flatnonzero(of_study | of_patient).tolist() if row in self.fates]

    def _fate(self, row: int, reading: Screened, matches: Matches) -> str:
        if any(row == match.row or row in match.slice_rows for match in matches.vertebrae.values()):
            return MATCHED
        level = self.labels["level"].iloc[row]
        found = [n for n, one in enumerate(reading.spine.vertebrae) if one.level == level]
        if not found:
            return NOT_FOUND
        if any(n in matches.vertebrae for n in found):
            return STRAY if self.labels["slice"].iloc[row] else OVERRULED
        is_cut = all(reading.spine.vertebrae[n].completeness is Completeness.CUT for n in found)
        return CUT if is_cut else STRAY if self.labels["slice"].iloc[row] else OVERRULED

    def _note(self, fates: Mapping[int, str]) -> None:
        for row, fate in fates.items():
            if _rank(fate) < _rank(self.fates[row]):
                self.fates[row] = fate

    def tables(self) -> dict[str, pd.DataFrame]:
        """Unit -> its rows as `predictions` has them; vertebrae also have the columns GROUPS.

        Raises BadInput if no label has a vertebra.
        """
        if not self._slices:
            raise BadInput(f"expected studies with labelled vertebrae, found none: {_in_words(self.unmatched())}.")
        table = pd.concat(self._slices, ignore_index=True)
        names = [name for name in table.columns if name not in GROUPS]
        table[names] = table[names].astype(object).where(table[names].notna(), None)
        prob = {task: np.concatenate([part[task] for part in self._prob]) for task in self._prob[0]}
        tables = unit_tables(self.predictor.card, table, prob)
        groups = table[~table["vertebra"].duplicated()][list(GROUPS)].reset_index(drop=True)
        vertebrae = pd.concat([tables["vertebra"], groups], axis=1)
        return {**tables, "vertebra": vertebrae.assign(**certainty(self._calls))}

    def unmatched(self) -> pd.DataFrame:
        """Why labels have no vertebra: one row per `reason`, with its number of `labels`, the most frequent first."""
        counts = Counter(fate for fate in self.fates.values() if fate != MATCHED)
        return pd.DataFrame(counts.most_common(), columns=["reason", "labels"])

    def facts(self) -> dict[str, str | int]:
        """Counts for `Evaluation.facts`."""
        found = sum(fate == MATCHED for fate in self.fates.values())
        return {
            "labels": len(self.fates),
            "labels_matched": found,
            "studies_not_read": self.unread,
            "unlabelled": self.unlabelled,
        }


def _rank(fate: str) -> int:
    return next(n for n, one in enumerate(_ORDER) if fate.startswith(one))


def _in_words(unmatched: pd.DataFrame) -> str:
    return "; ".join(f"{count} labels, {reason}" for reason, count in unmatched.itertuples(index=False))


def run_external(
    model_uri: str,
    archive: str,
    labels_uri: str,
    out_uri: str,
    names: Pseudonymizer,
    split: Split = "all",
    config: StudyConfig | None = None,
    progress: Progress = no_progress,
) -> Evaluation:
    """Measure the model at `model_uri` on the labelled studies below `archive`, and write the evaluation to `out_uri`.

    names: the pseudonyms of the site; their key tells which patients the model has met. split, and what is refused: as
    in `evaluate.run_evaluate`; a patient of the training who has another name in the labels is left out and counted.
    config: how to read the studies; the model says how to cut slices. Raises BadInput also if archive or labels are
    missing or wrong, or no label has a vertebra.
    """
    predictor = Predictor.load(model_uri)
    labels = consensus(read_labels(labels_uri, label_words(predictor.card.spec.tasks)))
    marks = load_marks(model_uri, predictor.card, names.key_id)
    patients = labels[["patient"]].map(names.patient_key)
    labels = labels[chosen_patients(patients, marks, split)]
    settings = changed(config or StudyConfig(), slices=predictor.slices)
    unlisted: Counter[Unlisted] = Counter()
    readings = read_all(list_studies(archive, unlisted), settings, partial(may_have_labels, labels=labels))
    calls = called_studies(predictor, labels, readings, names, marks, progress)
    tables = calls.tables()
    facts = {
        "split": split,
        **unknown_patients(marks),
        **calls.facts(),
        **({"not_listed": describe(unlisted)} if unlisted else {}),
    }
    found = replace(
        measured(predictor, tables, facts),
        unmatched=calls.unmatched(),
    )
    write_evaluation(found, out_uri)
    return found


def called_studies(
    predictor: Predictor,
    labels: pd.DataFrame,
    readings: Iterable[StudyReading | None],
    names: Pseudonymizer,
    marks: Marks,
    progress: Progress = no_progress,
) -> StudyPredictions:
    """The calls of `predictor` on the labelled vertebrae of `readings`, in which None stands for a study left out.

    labels: from `training.labels.consensus`. names, marks: see StudyPredictions.
    """
    calls = StudyPredictions(predictor, labels, names, marks)
    for number, reading in enumerate(readings, start=1):
        if reading is not None:
            calls.add(reading)
        progress(number, 0, f"{calls.studies} with labels")
    return calls
