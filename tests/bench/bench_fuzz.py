"""Read thousands of damaged studies and archives in the child process of a nightly job."""

from __future__ import annotations

import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.bench.figures import Figures
from tests.conftest import REALCT
from tests.fuzz.corpus import write_corpus
from tests.fuzz.driver import BATCH, Tally, fuzz

MUTANTS = int(os.environ.get("SPINEMET_FUZZ_MUTANTS", "20000"))
FIRST_SEED = 100_000
"""Other seeds than those of `make test`."""


def run() -> Figures:
    """Count the outcomes of MUTANTS mutants, read on all cores."""
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(cores) as pool:
        corpus, work = Path(folder, "corpus"), Path(folder, "work")
        corpus.mkdir()
        work.mkdir()
        studies = write_corpus(corpus, REALCT if REALCT.is_dir() else None)
        share = -(-MUTANTS // cores // BATCH) * BATCH
        start = time.perf_counter()
        tallies = list(
            pool.map(lambda n: fuzz(studies, range(FIRST_SEED + n * share, FIRST_SEED + (n + 1) * share), work),
                     range(cores))
        )  # fmt: skip
        seconds = time.perf_counter() - start
    return _figures(tallies, len(studies), seconds)


def _figures(tallies: list[Tally], studies: int, seconds: float) -> Figures:
    whole = Tally()
    for tally in tallies:
        whole.counts += tally.counts
        whole.slowest = max(whole.slowest, tally.slowest)
        whole.defects += tally.defects
        whole.crashed += tally.crashed
    total = whole.counts.total()
    figures = Figures(
        f"{total} mutants of {studies} studies", ("outcome", "mutants", "share"),
        f"{seconds:.0f} s, slowest mutant {whole.slowest:.1f} s; defects: {len(whole.defects)}",
    )  # fmt: skip
    for outcome, count in whole.counts.most_common():
        figures.add(outcome, count, count / total)
    for each in (*whole.defects, *whole.crashed):
        figures.add(f"seed {each.seed}, {each.study}: {each.what}, {each.detail}", 1, 1 / total)
    return figures
