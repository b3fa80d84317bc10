"""One screening run as it is counted: its row of the `runs` table, and the summary at its end."""

from __future__ import annotations

import getpass
import json
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from spinemet.results.schemas import Row, RunState
from spinemet.screening.drift import POSITIVE, Signal, counted
from spinemet.types import State


@dataclass
class Run:
    """What a run was asked for and what it has done so far.

    asked: the columns of `runs` that are known from the start (see results.schemas.RUNS).
    """

    asked: Mapping[str, Any]
    run_id: str = field(default_factory=lambda: f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}")
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    states: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    vertebrae: int = 0
    waves: int = 0
    listed: int = 0
    planned: int = 0
    waiting: int = 0
    sums: Counter[str] = field(default_factory=Counter)
    """Over the run's vertebrae, see drift.counted."""
    signals: Sequence[Signal] = ()
    """What of the run is out of control, see drift.drift."""
    stopped: str = ""
    """Why it ended before its work did: `signal`, `deadline`, or empty."""

    @property
    def studies(self) -> int:
        """Studies that this run has committed."""
        return self.states.total()

    @property
    def state(self) -> RunState:
        """The state of this run once it has ended in order."""
        return RunState.STOPPED if self.stopped else RunState.DONE

    @property
    def seconds(self) -> float:
        """Wall-clock seconds since the start."""
        return (datetime.now(UTC) - self.started_at).total_seconds()

    @property
    def studies_per_hour(self) -> float | None:
        """Studies by wall-clock time; None where there were none."""
        return self.studies / self.seconds * 3600 if self.studies else None

    @property
    def failed_share(self) -> float:
        """Failed studies by all of this run; 0 where there were none."""
        return self.states[str(State.FAILED)] / self.studies if self.studies else 0.0

    def next_wave(self) -> str:
        """The name of the next wave: unique among all runs, in order within this one."""
        self.waves += 1
        return f"{self.run_id}-{self.waves:06d}"

    def count(self, rows: Mapping[str, Sequence[Row]]) -> None:
        """Take one study's committed rows into the counts."""
        for study in rows["studies"]:
            self.states[study["state"]] += 1
            if study["reason"] is not None:
                self.reasons[study["reason"]] += 1
        self.vertebrae += len(rows["vertebrae"])
        self.sums.update(counted(rows["vertebrae"]))

    def row(self, state: RunState) -> Row:
        """The `runs` row, `running` without an end and without counts."""
        row: Row = {**self.asked, "run_id": self.run_id, "state": state, "started_at": self.started_at}
        if state is RunState.RUNNING:
            return row
        return row | {
            "finished_at": datetime.now(UTC),
            "listed": self.listed,
            "planned": self.planned,
            "waiting": self.waiting,
            **{str(each): self.states[str(each)] for each in State},
            "vertebrae": self.vertebrae,
            **{name: self.sums[name] for name in ("evaluable", *POSITIVE, "hu_vertebrae")},
            "mean_hu": self.sums["hu_sum"] / self.sums["hu_vertebrae"] if self.sums["hu_vertebrae"] else None,
            "reasons": json.dumps(dict(sorted(self.reasons.items()))),
            "drift": "; ".join(map(str, self.signals)) or None,
            "studies_per_hour": self.studies_per_hour,
        }

    def __str__(self) -> str:
        """What the run did, in a few lines for a log."""
        lines = [
            f"run {self.run_id}: {self.listed} studies in the archive, {self.planned} new: {in_words(self.states)}"
        ]
        if self.stopped:
            why = "was told to stop" if self.stopped == "signal" else "reached its hour"
            lines.append(f"the run {why}: the next one does the rest")
        if self.waiting:
            lines.append(f"{self.waiting} studies are still being written or cannot be told apart yet: left for later")
        lines += [f"  {reason}: {count}" for reason, count in sorted(self.reasons.items())]
        if self.studies:
            speed = f"{self.studies_per_hour:.0f} studies per hour"
            lines.append(f"{self.vertebrae} vertebrae in {self.seconds:.0f} s, {speed}")
        lines += [f"out of control: {signal}" for signal in self.signals]
        return "\n".join(lines)

    def summary(self) -> str:
        """The run as JSON: its final row without the configuration, and why it was stopped."""
        row = {name: value for name, value in self.row(self.state).items() if name != "config"}
        facts = {**row, "reasons": dict(sorted(self.reasons.items())), "stopped": self.stopped or None}
        facts["drift"] = [vars(signal) for signal in self.signals]
        return json.dumps(facts | {"seconds": round(self.seconds, 1)}, indent=2, default=str) + "\n"

    def exit_code(self, max_failed_share: float | None) -> int:
        """0; 3 where more than this share of the run's studies failed; 143 where a SIGTERM ended it."""
        if self.stopped == "signal":
            return 143
        return 3 if max_failed_share is not None and self.failed_share > max_failed_share else 0


def in_words(states: Mapping[str, int]) -> str:
    """The counts by state in a few words: `12 screened, 1 failed`, or `nothing new`."""
    return ", ".join(f"{states[state]} {state}" for state in map(str, State) if states.get(state)) or "nothing new"


def account() -> str:
    """The account that runs this process, `unknown` where the system has no name for it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's numeric user has no entry; Python 3.13 raises OSError
        return "unknown"
