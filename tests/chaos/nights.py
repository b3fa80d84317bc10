"""Nights that are disturbed and started again until every study is accounted for."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

import duckdb
import numpy as np

from spinemet.results import tables
from spinemet.results.tables import SIDE_TABLES
from spinemet.screening.plan import RETRIED
from tests.chaos.kills import Kill, Victim
from tests.chaos.machines import LIMIT_S, NODES, Machines
from tests.screening.places import Tables, rows_in

STARTS = 12
"""Most nights to start for one plan of kills; with more, it will probably never finish."""


@dataclass
class Outcome:
    """Result of a plan of kills: kills that hit, nights that hung, exit code and log of each night, total seconds."""

    kills: Counter[Victim] = field(default_factory=Counter)
    codes: list[int] = field(default_factory=list)
    seconds: float = 0.0
    hung: int = 0
    logs: list[str] = field(default_factory=list)

    def in_words(self) -> str:
        """In one line, for a log."""
        kills = ", ".join(f"{count} {victim}" for victim, count in self.kills.items()) or "no kill"
        return f"{kills}; exit codes {self.codes}, {self.seconds:.0f} s"


def disturbed(machines: Machines, results: str, kills: list[Kill], seed: int) -> Outcome:
    """Run nights on `results` with the planned kills, until one exits with 0 and leaves no study to try again."""
    outcome, left, rng = Outcome(), list(kills), np.random.default_rng(seed)
    while len(machines.nodes) < NODES:  # an earlier plan may have lost one
        machines.add_node()
    began = time.monotonic()
    while len(outcome.codes) < STARTS:
        night = machines.night(results)
        started = since = time.monotonic()
        while night.process.poll() is None:
            time.sleep(0.05)
            if left and time.monotonic() - since >= left[0].after_s:
                if machines.kill(left[0].victim, rng, night, left[0].outage_s):
                    outcome.kills[left.pop(0).victim] += 1
                    since = time.monotonic()
            elif time.monotonic() - started > LIMIT_S:
                outcome.hung += 1
                night.process.kill()
        outcome.codes.append(night.ended())
        outcome.logs.append(night.said())
        if outcome.codes[-1] == 0 and not to_retry(results):
            break
    outcome.seconds = time.monotonic() - began
    return outcome


def to_retry(results: str) -> int:
    """The number of studies that the next night tries again."""
    reasons = ", ".join(f"'{reason}'" for reason in RETRIED)
    return _count(tables.connect(results), f"studies WHERE reason IN ({reasons})")


def differences(results: str, expected: Tables) -> int:
    """The number of rows that are missing, doubled or wrong, or that lie in a table without counting."""
    found, connection, count = rows_in(results), tables.connect(results), 0
    for name, rows in expected.items():
        ours, theirs = Counter(map(repr, found[name])), Counter(map(repr, rows))
        count += (ours - theirs).total() + (theirs - ours).total()
        if name in SIDE_TABLES:
            count += _count(connection, f"all_{name}") - len(found[name])
    return count


def _count(connection: duckdb.DuckDBPyConnection, rows: str) -> int:
    return int(connection.sql(f"SELECT count(*) FROM {rows}").fetchall()[0][0])
