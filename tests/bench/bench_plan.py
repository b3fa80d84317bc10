"""Planning and committing at the size of a national archive: up to 10 million studies listed, half of them screened.

The listing is synthetic, because no store answers that fast. The ledger is a real Delta table in a folder: the files of
a compacted table, and one more for each wave committed since. Each size is planned in a process of its own, so that its
peak memory is that of planning alone.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from deltalake import write_deltalake

from spinemet.dicom.pseudonym import Pseudonymizer
from spinemet.reading import State
from spinemet.results.schemas import SCHEMAS
from spinemet.results.tables import Results, open_results
from spinemet.screening.plan import plan_studies
from spinemet.types import ObjectRef, StudyRef
from tests.bench.figures import Figures
from tests.results.test_tables import MADE_WITH, study_row, vertebra_row

LISTED = (1_000_000, 2_500_000, 5_000_000, 10_000_000)
ROWS_PER_FILE = 250_000
WAVE, WAVES = 32, 150
"""Studies per wave, and waves committed at each size: enough to include checkpoints of the table's log."""
SIZE = 150_000_000
"""Bytes of each study in listing and ledger: no study has grown."""
NAMES = Pseudonymizer(b"a key for the benchmark only", "year")
DIGESTS = {name: MADE_WITH[name] for name in ("model_digest", "config_digest")}


def run() -> Figures:
    """Seconds and memory of planning, and seconds per commit, by the number of studies in archive and ledger."""
    figures = Figures(
        "Planning and committing, half of the archive already screened",
        ("studies listed", "ledger rows", "plan s", "microseconds/study", "peak MB", "commit s", "last commits s"),
        f"commit: median of {WAVES} waves of {WAVE} studies with 12 vertebrae each, and of the last ten of them",
    )
    with tempfile.TemporaryDirectory() as place:
        results = open_results(place, create=True)
        rows = 0
        for listed in LISTED:
            for first in range(rows, listed // 2, ROWS_PER_FILE):
                append(place, first, min(first + ROWS_PER_FILE, listed // 2))
            rows = listed // 2
            planned = in_its_own_process(place, listed)
            assert planned["planned"] == listed - rows, f"expected {listed - rows} studies to do, found {planned}"
            seconds = commits(results)
            figures.add(
                f"{listed:,}",
                f"{rows:,}",
                planned["seconds"],
                planned["seconds"] / listed * 1e6,
                planned["peak_mb"],
                statistics.median(seconds),
                statistics.median(seconds[-10:]),
            )
    return figures


def listing(first: int, last: int) -> Iterator[StudyRef]:
    """Zipped studies of an archive, in the order of their keys."""
    for number in range(first, last):
        key = f"{number // 1000:05}/{number:08}.zip"
        yield StudyRef("s3://archive", key, "zip", (ObjectRef(key, SIZE, 1.7e9),))


def append(place: str, first: int, last: int) -> None:
    """Put the ledger rows of studies `first` to `last` of the listing into the ledger, as one file."""
    keys = [NAMES.source_key(ref.archive, ref.key) for ref in listing(first, last)]
    write_deltalake(
        f"{place}/studies", pa.table(_filled(SCHEMAS["studies"], keys), schema=SCHEMAS["studies"]), mode="append"
    )


def commits(results: Results) -> list[float]:
    """Seconds of each of WAVES commits of studies that are in no listing."""
    seconds = []
    for wave in range(WAVES):
        keys = [f"{time.time_ns():x}{wave:04}{number:02}" for number in range(WAVE)]
        rows = {
            "studies": [study_row(key) for key in keys],
            "vertebrae": [vertebra_row(key, number) for key in keys for number in range(12)],
        }
        start = time.perf_counter()
        results.commit_wave(f"bench-{wave}", rows)
        seconds.append(time.perf_counter() - start)
    return seconds


def in_its_own_process(place: str, listed: int) -> dict[str, Any]:
    """Seconds, peak MB and studies planned of one plan over the whole listing."""
    command = [sys.executable, "-m", "tests.bench.bench_plan", place, str(listed)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def _filled(schema: pa.Schema, keys: list[str]) -> list[pa.Array]:
    """One array per column: the keys, random numbers for floats, and one value for everything else."""
    rng, known = (
        np.random.default_rng(0),
        {**DIGESTS, "state": str(State.SCREENED), "wave": "bench", "size_bytes": SIZE},
    )
    arrays = []
    for field in schema:
        if field.name == "source_key":
            arrays.append(pa.array(keys))
        elif pa.types.is_floating(field.type):
            arrays.append(pa.array(rng.random(len(keys)), field.type))
        elif field.name in known or not field.nullable:
            value = known.get(field.name, _some(field.type))
            arrays.append(pa.repeat(pa.scalar(value, field.type), len(keys)))
        else:
            arrays.append(pa.nulls(len(keys), field.type))
    return arrays


def _some(kind: pa.DataType) -> Any:
    if pa.types.is_string(kind):
        return "word"
    return datetime(2026, 1, 1, tzinfo=UTC) if pa.types.is_timestamp(kind) else 1


def main() -> None:
    """Plan a listing (second argument: its studies) against the ledger at a place (first). Print figures as JSON."""
    place, listed = sys.argv[1], int(sys.argv[2])
    start = time.perf_counter()
    plan = plan_studies(listing(0, listed), open_results(place), NAMES, **DIGESTS)
    planned = sum(1 for _ in plan)
    seconds = time.perf_counter() - start
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(json.dumps({"seconds": seconds, "planned": planned, "peak_mb": int(peak.split()[1]) / 1024}))


if __name__ == "__main__":
    main()
