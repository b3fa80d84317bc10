"""Answered studies on their way into the tables: some tens of them make one commit."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from spinemet.dicom.pseudonym import Pseudonymizer
from spinemet.results.schemas import Row
from spinemet.results.tables import Results
from spinemet.screening.linkage import Linkage
from spinemet.screening.outcome import MadeWith, study_rows
from spinemet.screening.run import Run
from spinemet.types import StudyReading, StudyRef, VertebraCall

MAX_WAIT_S = 300.0
"""A study waits at most so long for its commit, however slowly others come."""


@dataclass(frozen=True)
class Answer:
    """One study after reading and model: the reading without pixels, and a call per vertebra."""

    ref: StudyRef
    reading: StudyReading
    calls: tuple[VertebraCall | None, ...] = ()
    seconds_model: float | None = None


@dataclass
class Wave:
    """The studies since the last commit; `size` of them are due, and fewer when the first has waited for MAX_WAIT_S.

    retried: source keys of studies whose ledger rows have to be replaced.
    """

    linkage: Linkage
    results: Results
    run: Run
    retried: set[str]
    size: int
    studies: list[dict[str, list[Row]]] = field(default_factory=list)
    begun: float = 0.0

    def add(self, answer: Answer, made_with: MadeWith, names: Pseudonymizer, *, slices: bool) -> None:
        """Take one study in, as rows; slices: also a row per slice, task and class."""
        if not self.studies:
            self.begun = time.monotonic()
        self.studies.append(
            study_rows(
                answer.ref,
                answer.reading,
                answer.calls,
                made_with,
                names,
                seconds_model=answer.seconds_model,
                slices=slices,
            )
        )
        self.linkage.add(answer.ref, answer.reading)

    def is_due(self) -> bool:
        """Whether it is time to commit."""
        return len(self.studies) >= self.size or (bool(self.studies) and time.monotonic() - self.begun > MAX_WAIT_S)

    def commit(self) -> dict[str, list[Row]]:
        """Make the studies count, and count them; gives their rows by table, none where there are none."""
        if not self.studies:
            return {}
        rows = {name: [row for study in self.studies for row in study[name]] for name in self.studies[0]}
        name = self.run.next_wave()
        self.linkage.write(name)  # first: a study that counts can be found again
        again = any(row["source_key"] in self.retried for row in rows["studies"])
        self.results.commit_wave(name, rows, replace=again)
        for study in self.studies:
            self.run.count(study)
        self.studies = []
        return rows
