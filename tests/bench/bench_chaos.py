"""Kill workers, nodes, the driver and the object store of a night at random, until all studies are accounted for."""

from __future__ import annotations

import os
import tempfile
import time
from collections import Counter
from pathlib import Path

from spinemet.files import join
from tests.bench.figures import Figures
from tests.chaos.kills import Victim, plan_kills
from tests.chaos.machines import BUCKET, machines
from tests.chaos.nights import Outcome, differences, disturbed
from tests.on_ray.places import write_place
from tests.screening.places import rows_in

RUNS = int(os.environ.get("SPINEMET_CHAOS_RUNS", "30"))
FIRST_SEED = int(os.environ.get("SPINEMET_CHAOS_SEED", "1"))
PATIENTS = 3


def run() -> Figures:
    """Kills survived by victim, and the rows by which the tables differ from those of an undisturbed night."""
    outcomes: list[Outcome] = []
    wrong = 0
    # A short prefix: the paths of Ray's sockets must fit into 107 bytes.
    with tempfile.TemporaryDirectory(prefix="chaos") as folder, machines(Path(folder)) as cluster:
        write_place(BUCKET, PATIENTS)
        calm = join(BUCKET, "calm")
        start = time.monotonic()
        night = cluster.night(calm)
        if code := night.ended():
            raise AssertionError(f"an undisturbed night ended with {code}:\n{night.said()}")
        horizon_s, expected = time.monotonic() - start, rows_in(calm)
        for seed in range(FIRST_SEED, FIRST_SEED + RUNS):
            results = join(BUCKET, f"seed-{seed}")
            outcomes.append(disturbed(cluster, results, plan_kills(seed, horizon_s), seed))
            count = differences(results, expected)
            wrong += count
            print(f"seed {seed}: {outcomes[-1].in_words()}, {count} differences", flush=True)
            if count or outcomes[-1].hung or outcomes[-1].codes[-1]:
                print(*outcomes[-1].logs, sep="\n")
    return _figures(outcomes, wrong, horizon_s, {name: len(rows) for name, rows in expected.items()})


def _figures(outcomes: list[Outcome], wrong: int, horizon_s: float, rows: dict[str, int]) -> Figures:
    kills = sum((each.kills for each in outcomes), Counter[Victim]())
    codes = Counter(code for each in outcomes for code in each.codes)
    tables = ", ".join(f"{count} {name}" for name, count in rows.items())
    figures = Figures(
        f"{len(outcomes)} nights of {rows['studies']} studies on 3 nodes, killed at random, restarted until done",
        ("what", "times"),
        f"compared row for row with an undisturbed night of {horizon_s:.0f} s: {tables}; "
        f"{sum(each.seconds for each in outcomes):.0f} s in all",
    )
    for victim in Victim:
        figures.add(f"{victim} killed", kills[victim])
    figures.add("kills in all", kills.total())
    for code, count in sorted(codes.items()):
        figures.add(f"nights that ended with {code}" + (" (killed)" if code == -9 else ""), count)
    figures.add("nights that hung", sum(each.hung for each in outcomes))
    figures.add("nights that did not finish in the end", sum(each.codes[-1] != 0 for each in outcomes))
    figures.add("rows lost, doubled or different", wrong)
    return figures
