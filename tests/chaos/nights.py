"""Nights that are disturbed, and started again until every study is accounted for."""

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
from tests.chaos.machines import LIMIT_S, Machines
from tests.on_ray.places import Tables, rows_in

STARTS = 12
"""Nights that are started for one plan of kills; more, and it does not come to its end."""


@dataclass
class Outcome:
    """What a plan of kills came to: kills that hit; exit codes of the nights, and what each said; seconds in all."""

    kills: Counter[Victim] = field(default_factory=Counter)
    codes: list[int] = field(default_factory=list)
    seconds: float = 0.0
    hung: int = 0
    logs: list[str] = field(default_factory=list)

    def in_words(self) -> str:
        """For a line of a log."""
        kills = ", ".join(f"{count} {victim}" for victim, count in self.kills.items()) or "no kill"
        return f"{kills}; exit codes {self.codes}, {self.seconds:.0f} s"


def disturbed(machines: Machines, results: str, kills: list[Kill], seed: int) -> Outcome:
    """Run nights on `results`, killing as planned, until one ends with 0 and no study is left that is tried again."""
    outcome, left, rng = Outcome(), list(kills), np.random.default_rng(seed)
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
        if outcome.codes[-1] == 0 and not left_for_later(results):
            break
    outcome.seconds = time.monotonic() - began
    return outcome


def left_for_later(results: str) -> int:
    """Studies that the next night tries again."""
    reasons = ", ".join(f"'{reason}'" for reason in RETRIED)
    return _count(tables.connect(results), f"studies WHERE reason IN ({reasons})")


def differences(results: str, expected: Tables) -> int:
    """Rows that are lost, doubled or other than expected, and rows that do not count but lie there."""
    found, connection, count = rows_in(results), tables.connect(results), 0
    for name, rows in expected.items():
        ours, theirs = Counter(map(repr, found[name])), Counter(map(repr, rows))
        count += (ours - theirs).total() + (theirs - ours).total()
        if name in SIDE_TABLES:
            count += _count(connection, f"all_{name}") - len(found[name])
    return count


def _count(connection: duckdb.DuckDBPyConnection, rows: str) -> int:
    return int(connection.sql(f"SELECT count(*) FROM {rows}").fetchall()[0][0])
