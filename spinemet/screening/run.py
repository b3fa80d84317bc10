"""What is counted of a screening run, and its commits: its row of `runs`, the summary at its end, its waves."""

import getpass
import json
import secrets
import time
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from spinemet.archive.listing import describe
from spinemet.dicom.pseudonym import Pseudonymizer
from spinemet.model.card import caution
from spinemet.model.marks import Marks
from spinemet.reading import State
from spinemet.results.schemas import Row, RunState
from spinemet.results.suppression import suppress
from spinemet.results.tables import Results
from spinemet.screening.answers import Answer
from spinemet.screening.drift import POSITIVE, Alarm, counted
from spinemet.screening.linkage import Linkage
from spinemet.screening.outcome import MadeWith, facts_series, study_rows
from spinemet.screening.plan import PlanCounts
from spinemet.screening.stopping import StopReason

RATED = 20
"""Studies from which on a run has a speed."""


@dataclass
class Run:
    """The facts and counts of one run.

    facts: the columns of `runs` that are known from the start (see results/schemas.toml). plan: the counts of its
    plan, which grow while studies are planned. sums: over the run's vertebrae, see `drift.counted`. alarms: rates out
    of control, see `drift.drift`. stopped: why the run ended early; None if it did not.
    """

    facts: Mapping[str, Any]
    run_id: str = field(default_factory=lambda: f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}")
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    states: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    vertebrae: int = 0
    waves: int = 0
    withheld: int = 0
    plan: PlanCounts = field(default_factory=PlanCounts)
    sums: Counter[str] = field(default_factory=Counter)
    alarms: Sequence[Alarm] = ()
    stopped: StopReason | None = None

    @property
    def studies(self) -> int:
        """Studies that this run has committed."""
        return self.states.total()

    @property
    def state(self) -> RunState:
        """The state of this run once it has ended without an error."""
        return RunState.STOPPED if self.stopped else RunState.DONE

    @property
    def seconds(self) -> float:
        """Wall-clock seconds since the start."""
        return (datetime.now(UTC) - self.started_at).total_seconds()

    @property
    def studies_per_hour(self) -> float | None:
        """Studies by wall-clock time; None if there are fewer than RATED, of which most time is the start."""
        return self.studies / self.seconds * 3600 if self.studies >= RATED else None

    @property
    def failed_share(self) -> float:
        """The share of this run's studies that failed; 0 if there are none."""
        return self.states[str(State.FAILED)] / self.studies if self.studies else 0.0

    def next_wave(self) -> str:
        """The name of the next wave: unique among all runs, in order within this one."""
        self.waves += 1
        return f"{self.run_id}-{self.waves:06d}"

    def count(self, rows: Mapping[str, Sequence[Row]]) -> None:
        """Add one study's committed rows to the counts."""
        for study in rows["studies"]:
            self.states[study["state"]] += 1
            if study["reason"] is not None:
                self.reasons[study["reason"]] += 1
        self.vertebrae += len(rows["vertebrae"])
        self.sums.update(counted(rows["vertebrae"]))

    def row(self, state: RunState) -> Row:
        """The `runs` row; without end and counts while `running`."""
        row: Row = {**self.facts, "run_id": self.run_id, "state": state, "started_at": self.started_at}
        if state is RunState.RUNNING:
            return row
        return row | {
            "finished_at": datetime.now(UTC),
            "listed": self.plan.listed,
            "planned": self.plan.planned,
            "waiting": self.plan.waiting,
            **{str(each): self.states[str(each)] for each in State},
            "vertebrae": self.vertebrae,
            **{name: self.sums[name] for name in ("evaluable", "unsure", *POSITIVE, "hu_vertebrae")},
            "mean_hu": self.sums["hu_sum"] / self.sums["hu_vertebrae"] if self.sums["hu_vertebrae"] else None,
            "reasons": json.dumps(dict(sorted(self.reasons.items()))),
            "drift": "; ".join(map(str, self.alarms)) or None,
            "studies_per_hour": self.studies_per_hour,
        }

    def __str__(self) -> str:
        """What the run did, in a few lines for a log."""
        plan = self.plan
        counts = f"{plan.listed} studies in the archive, {plan.planned} new: {in_words(self.states)}"
        lines = [f"run {self.run_id}: {counts}"]
        if self.stopped is not None:
            why = "a signal" if self.stopped is StopReason.SIGNAL else "its deadline"
            lines.append(f"stopped by {why}: the next run does the rest")
        if plan.waiting:
            lines.append(
                f"{plan.waiting} studies left for later: still being written, or their headers could not be read"
            )
        if plan.unlisted:
            lines.append(f"not listed: {describe(plan.unlisted)}")
        if self.withheld:
            lines.append(f"{self.withheld} studies of patients who were erased: nothing of them is stored")
        elif plan.planned and not self.studies and not self.stopped:
            lines.append("none of the planned studies was done: look for the cause before the next run")
        lines += [f"  {reason}: {count}" for reason, count in sorted(self.reasons.items())]
        if self.studies:
            speed = f", {self.studies_per_hour:.0f} studies per hour" if self.studies_per_hour else ""
            lines.append(f"{self.vertebrae} vertebrae in {self.seconds:.0f} s{speed}")
        lines += [f"out of control: {alarm}" for alarm in self.alarms]
        if notice := caution(self.facts.get("trained_on")):
            lines.append(notice)
        return "\n".join(lines)

    def summary(self) -> str:
        """The run as JSON: its final row without the configuration, and why it was stopped."""
        facts = self.row(self.state) | {
            "reasons": dict(sorted(self.reasons.items())),
            "unlisted": dict(sorted(self.plan.unlisted.items())),
            "stopped": self.stopped,
            "drift": [vars(alarm) for alarm in self.alarms],
            "seconds": round(self.seconds, 1),
        }
        facts.pop("config", None)
        return json.dumps(facts, indent=2, default=str) + "\n"

    def exit_code(self, max_failed_share: float | None) -> int:
        """0; 3 if more than this share of studies failed; 4 if all planned ones were left undone; 143 after SIGTERM."""
        if self.stopped is StopReason.SIGNAL:
            return 143
        if self.plan.planned and not (self.studies or self.withheld):
            return 4
        return 3 if max_failed_share is not None and self.failed_share > max_failed_share else 0


def in_words(states: Mapping[str, int]) -> str:
    """The counts by state in a few words: `12 screened, 1 failed`, or `nothing new`."""
    return ", ".join(f"{states[state]} {state}" for state in map(str, State) if states.get(state)) or "nothing new"


def account() -> str:
    """The account that runs this process, `unknown` if the system has no name for it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's numeric user has no entry; Python 3.13 raises OSError
        return "unknown"


MAX_WAIT_S = 300.0
"""A study waits at most this long for its commit, however slowly others arrive."""


@dataclass
class Wave:
    """The studies since the last commit. It is due at `size` studies, or once the first has waited for MAX_WAIT_S.

    slices: also write a row per slice, task and class. erased: patient keys of which nothing is stored; withheld: the
    source keys of their studies, which the commit suppresses.
    """

    results: Results
    run: Run
    names: Pseudonymizer
    marks: Marks
    linkage: Linkage
    made_with: MadeWith
    size: int
    slices: bool = False
    erased: Set[str] = frozenset()
    withheld: list[str] = field(default_factory=list)
    studies: list[dict[str, list[Row]]] = field(default_factory=list)
    replaces: bool = False
    begun: float = 0.0

    def add(self, answer: Answer) -> None:
        """Add one study, as rows; nothing of a patient who was erased."""
        ref, patient = answer.study.ref, facts_series(answer.reading).PatientID
        if self.names.patient_key(patient) in self.erased:
            self.withheld.append(self.names.source_key(ref.archive, ref.key))
            self.run.withheld += 1
            return
        if not self.studies:
            self.begun, self.replaces = time.monotonic(), False
        self.studies.append(
            study_rows(
                ref,
                answer.reading,
                answer.calls,
                self.made_with,
                self.names,
                self.marks,
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
        if self.withheld:
            self.results.guard()
            suppress(self.results.uri, (), self.withheld)
            self.withheld = []
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
