"""Answered studies on their way into the tables; a wave of them makes one commit."""

import time
from dataclasses import dataclass, field

from spinemet.dicom.pseudonym import Pseudonymizer
from spinemet.results.schemas import Row
from spinemet.results.tables import Results
from spinemet.screening.answers import Answer
from spinemet.screening.linkage import Linkage
from spinemet.screening.outcome import MadeWith, study_rows
from spinemet.screening.run import Run

MAX_WAIT_S = 300.0
"""A study waits at most this long for its commit, however slowly others arrive."""


@dataclass
class Wave:
    """The studies since the last commit. It is due at `size` studies, or once the first has waited for MAX_WAIT_S.

    slices: also write a row per slice, task and class.
    """

    results: Results
    run: Run
    names: Pseudonymizer
    linkage: Linkage
    made_with: MadeWith
    size: int
    slices: bool = False
    studies: list[dict[str, list[Row]]] = field(default_factory=list)
    replaces: bool = False
    begun: float = 0.0

    def add(self, answer: Answer) -> None:
        """Add one study, as rows."""
        if not self.studies:
            self.begun, self.replaces = time.monotonic(), False
        ref = answer.study.ref
        self.studies.append(
            study_rows(
                ref,
                answer.reading,
                answer.calls,
                self.made_with,
                self.names,
                seconds_model=answer.seconds_model,
                slices=self.slices,
            )
        )
        self.replaces |= answer.study.replaces
        self.linkage.add(ref, answer.reading)

    def is_due(self) -> bool:
        """Whether it is time to commit."""
        return len(self.studies) >= self.size or (bool(self.studies) and time.monotonic() - self.begun > MAX_WAIT_S)

    def commit(self) -> dict[str, list[Row]]:
        """Commit the studies and count them in the run; gives their rows by table, none if the wave is empty."""
        if not self.studies:
            return {}
        rows = {name: [row for study in self.studies for row in study[name]] for name in self.studies[0]}
        name = self.run.next_wave()
        self.linkage.write(name)  # first: every study in the ledger can be traced back
        self.results.commit_wave(name, rows, replace=self.replaces)
        for study in self.studies:
            self.run.count(study)
        self.studies = []
        return rows
