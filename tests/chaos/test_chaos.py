"""The short form of `make bench ONLY=chaos`: three nights on three nodes, with each kind of disturbance once."""

from __future__ import annotations

import re
import tempfile
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from spinemet.files import exists, join
from spinemet.results.lease import LEASE
from spinemet.results.tables import has_results, open_results
from tests.chaos.kills import Kill, Victim, plan_kills
from tests.chaos.machines import BUCKET, Machines, Night, machines
from tests.chaos.nights import Outcome, differences, disturbed
from tests.on_ray.places import rows_alone, write_place
from tests.screening.places import Tables, rows_in

pytestmark = [pytest.mark.job, pytest.mark.timeout(1200)]
RESULTS = join(BUCKET, "results")


@dataclass
class Story:
    """What happened: a night with another beside it, the first stopped by a signal, and nights that were disturbed."""

    beside: Night
    stopped: Night
    after_stop: Tables
    metrics: str
    disturbed: Outcome
    differences: int
    expected: Tables


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    # A short name: the paths of Ray's sockets must fit into 107 bytes.
    with tempfile.TemporaryDirectory(prefix="chaos") as folder:
        with machines(Path(folder), node_cpus=1) as everything:
            write_place(BUCKET, patients=2)
            story = _happened(everything)
        yield story


def _happened(everything: Machines) -> Story:
    first = everything.night(RESULTS)
    _wait(lambda: exists(join(RESULTS, LEASE)), first)
    beside = everything.night(RESULTS)
    beside.ended()
    _wait(lambda: _committed() > 0, first)
    first.process.terminate()
    first.ended()
    after_stop, metrics = rows_in(RESULTS), _scraped(everything)
    kills = [
        Kill(Victim.TASK_WORKER, 0.5),
        Kill(Victim.NODE, 0.5),
        Kill(Victim.STORE, 0.5, outage_s=1.0),
        Kill(Victim.DRIVER, 0.5),
        Kill(Victim.LOST_NODE, 0.5),  # one CPU is left
    ]
    outcome = disturbed(everything, RESULTS, kills, seed=1)
    expected = rows_alone(join(BUCKET, "archive"), join(BUCKET, "model"))
    return Story(beside, first, after_stop, metrics, outcome, differences(RESULTS, expected), expected)


def test_of_two_nights_one_runs_and_the_other_names_the_holder_of_the_lease(story: Story) -> None:
    assert story.beside.ended() == 2
    (said,) = (line for line in story.beside.said().splitlines() if line.startswith("screen: "))
    assert re.search(r"Another run is writing these results: \S+ on \S+ since 20\d\d-\d\d-\d\d \d\d:\d\d UTC", said)


def test_sigterm_commits_finished_studies_and_the_next_night_does_the_rest(story: Story) -> None:
    assert story.stopped.ended() == 143
    assert "stopped by a signal: the next run does the rest" in story.stopped.said()
    assert 0 < len(story.after_stop["studies"]) < len(story.expected["studies"])
    assert all(row in story.expected["studies"] for row in story.after_stop["studies"])


def test_no_kill_loses_or_doubles_a_row(story: Story) -> None:
    assert story.differences == 0
    assert story.disturbed.hung == 0
    assert story.disturbed.codes[-1] == 0
    assert [story.disturbed.kills[one] for one in (Victim.NODE, Victim.DRIVER, Victim.LOST_NODE)] == [1, 1, 1]


def test_prometheus_counts_committed_studies_and_holds_no_identifier(story: Story) -> None:
    counted: defaultdict[str, float] = defaultdict(float)
    for name, labels, value in re.findall(r"^ray_spinemet_(\w+)\{(.*)\} (\S+)$", story.metrics, re.MULTILINE):
        label = re.search(r'\b(?:state|bone_quality|stage)="(\w+)"', labels)
        counted[f"{name} {label.group(1) if label else ''}".strip()] += float(value)
    for state, count in Counter(row["state"] for row in story.after_stop["studies"]).items():
        assert counted[f"studies_total {state}"] == count
    assert counted["bytes_total"] == sum(row["size_bytes"] for row in story.after_stop["studies"])
    for found, count in Counter(row["bone_quality"] for row in story.after_stop["vertebrae"]).items():
        assert counted[f"vertebrae_total {found}"] == count
    assert (
        0 < counted["seconds_count headers"] <= len(story.after_stop["studies"])
    )  # studies that cannot be opened have no header time
    keys = {row[key] for row in story.after_stop["studies"] for key in ("source_key", "patient_key", "study_key")}
    assert not any(key in story.metrics for key in keys if key)
    assert "PH-" not in story.metrics


def test_a_seed_repeats_its_plan() -> None:
    assert plan_kills(7, 20.0) == plan_kills(7, 20.0) != plan_kills(8, 20.0)
    plans = [plan_kills(seed, 20.0) for seed in range(30)]
    assert {kill.victim for plan in plans for kill in plan} == set(Victim)
    assert all(2 <= len(plan) <= 4 and 0 <= kill.after_s <= 10 for plan in plans for kill in plan)


def _wait(ready: Callable[[], bool], night: Night) -> None:
    while not ready():
        assert night.process.poll() is None, night.said()
        time.sleep(0.1)


def _committed() -> int:
    return len(open_results(RESULTS).ledger()) if has_results(RESULTS) else 0


def _scraped(everything: Machines) -> str:
    """The metrics page of the node that the drivers run on."""
    head = everything.cluster.head_node
    with urllib.request.urlopen(
        f"http://{head.node_ip_address}:{head.metrics_export_port}/metrics", timeout=30
    ) as page:
        return str(page.read().decode())
