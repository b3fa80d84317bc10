"""Cohort questions at the size of a national archive: 24 million vertebrae of a million studies.

All questions are asked of one connection, in a process of its own so that its peak memory is theirs. In the same run,
and in turns with the prevalence by level, DuckDB alone answers that question from one Parquet file with nothing but the
columns that it needs. Time of the processor stands beside the time of the clock: on a machine with other work the clock
says little.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from spinemet.cohort.comparison import compare
from spinemet.cohort.density import density
from spinemet.cohort.flow import study_flow
from spinemet.cohort.prevalence import prevalence
from spinemet.cohort.table1 import table1
from spinemet.cohort.views import held, open_cohort
from spinemet.report.html import write_report
from tests.bench.figures import Figures
from tests.bench.national import PER_STUDY, make_results

ROUNDS = 3
STUDIES = int(os.environ.get("STUDIES", "1000000"))
"""A smaller number gives a quick look, with the same table."""
BARE = """
    with counted as (
        select * from read_parquet('{file}')
        qualify row_number() over (partition by person, level order by not evaluable, day desc, vertebra) = 1
    )
    select level, count(*), count(*) filter (cut), count(*) filter (evaluable),
        count(*) filter (evaluable and called <> 'normal') from counted group by level
"""
PROJECTED = """
    select (hash(patient_key) % 2147483647)::int as person, level, evaluable, study_date as day,
        vertebra::utinyint as vertebra, completeness = 'cut' as cut, bone_quality as called
    from vertebrae join (select source_key, study_date from studies where state = 'screened') using (source_key)
"""


def run() -> Figures:
    """Seconds of each question, and the peak memory of all."""
    with tempfile.TemporaryDirectory() as place:
        make_results(f"{place}/results", STUDIES)
        connection = open_cohort(f"{place}/results")
        # The tables' own connection writes no file.
        batches = connection.sql(PROJECTED).to_arrow_reader(1_000_000)
        with pq.ParquetWriter(f"{place}/projected.parquet", batches.schema) as out:
            for batch in batches:
                out.write_batch(batch)
        vertebrae = pq.read_metadata(f"{place}/projected.parquet").num_rows
        connection.close()
        done = subprocess.run(
            [sys.executable, "-m", "tests.bench.bench_cohort", place], check=True, stdout=subprocess.PIPE, text=True
        )
    measured = json.loads(done.stdout.splitlines()[-1])
    figures = Figures(
        f"Questions to {vertebrae:,} vertebrae of {STUDIES:,} studies",
        ("question", "s", "CPU s", "times bare DuckDB (CPU)", "peak MB so far"),
        f"medians of {ROUNDS} rounds, opening and first questions once; {PER_STUDY} vertebrae per study; "
        f"load of the machine before: {measured['load']:.1f}",
    )
    bare = measured["rows"]["bare DuckDB: prevalence by level"][1]
    for name, (clock, processor, peak) in measured["rows"].items():
        figures.add(name, clock, processor, processor / bare, round(peak))
    return figures


def asked_in_turn(place: str) -> dict[str, tuple[float, float, float]]:
    """Question -> seconds by the clock, of the processor, and the peak of memory in MB until then."""
    results, file = f"{place}/results", f"{place}/projected.parquet"
    found: dict[str, tuple[float, float, float]] = {}
    connection = duckdb.connect()

    def opened() -> None:
        nonlocal connection
        connection = open_cohort(results)

    found["opening the tables"] = _timed(opened)
    found["first question: which vertebra counts"] = _timed(lambda: held(connection, "seen"))
    by_level: list[tuple[float, float, float]] = []
    bare: list[tuple[float, float, float]] = []
    alone = duckdb.connect(config={"threads": 2})
    for _ in range(ROUNDS):
        by_level.append(_timed(lambda: prevalence(connection, ["level"])))
        bare.append(_timed(lambda: alone.execute(BARE.format(file=file)).fetchall()))
    alone.close()
    found["prevalence by level"] = _median(by_level)
    questions: dict[str, Callable[[], object]] = {
        "prevalence by sex and age, patients": lambda: prevalence(connection, ["sex", "age_group"], "patient"),
        "flow": lambda: study_flow(connection),
        "table1 by sex": lambda: table1(connection, "sex"),
        "density by sex": lambda: density(connection, ["sex"]),
        "compare sexes, patients": lambda: compare(connection, "sex", ["F", "M"]),
    }
    for name, question in questions.items():
        found[name] = _median([_timed(question) for _ in range(ROUNDS)])
    found["prevalence by year: first question"] = _timed(lambda: held(connection, "seen_in_year"))
    found["prevalence by year"] = _median([_timed(lambda: prevalence(connection, ["year"])) for _ in range(ROUNDS)])
    connection.close()
    found["report, with opening"] = _timed(lambda: write_report(results, Path(place) / "report.html"))
    found["bare DuckDB: prevalence by level"] = _median(bare)
    return found


def _timed(work: Callable[[], object]) -> tuple[float, float, float]:
    clock, processor = time.perf_counter(), time.process_time()
    work()
    seconds = time.perf_counter() - clock, time.process_time() - processor
    return *seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def _median(rounds: list[tuple[float, float, float]]) -> tuple[float, float, float]:
    clock, processor = (statistics.median(one[n] for one in rounds) for n in (0, 1))
    return clock, processor, rounds[-1][2]


if __name__ == "__main__":
    load = os.getloadavg()[0]
    print(json.dumps({"load": load, "rows": asked_in_turn(sys.argv[1])}))
