"""Reads mutants in the same kind of child process as a nightly job reads studies, many per call."""

from __future__ import annotations

import io
import shutil
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from spinemet.archive.grouping import PROBE_BYTES, identity_in
from spinemet.archive.listing import study_at
from spinemet.config import SelectConfig, StudyConfig
from spinemet.errors import Reason, StudyFailed
from spinemet.process.isolation import IsolatedReader
from spinemet.reading import NotScreened, State
from spinemet.study import read_study
from tests.fuzz.mutators import MUTATORS, flip_bits, truncate

CONFIG = StudyConfig(select=SelectConfig(min_slices=3, min_coverage_mm=3.0, max_spacing_mm=50.0))
"""Small studies qualify, so that mutants reach the decoders."""
BATCH = 50
MEMORY_LIMIT_BYTES = 4 << 30
TIME_LIMIT_S = 120.0
"""For a batch on a loaded machine, and for a mutant that is read alone."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of one mutant: `what` is a state, a reason, or `raised`."""

    seed: int
    study: str
    what: str
    detail: str = ""
    seconds: float = 0.0


@dataclass
class Tally:
    """Counts of all outcomes, the defects with their seeds, and the slowest mutant's seconds."""

    counts: Counter[str] = field(default_factory=Counter)
    defects: list[Outcome] = field(default_factory=list)
    crashed: list[Outcome] = field(default_factory=list)
    slowest: float = 0.0

    def take(self, outcome: Outcome) -> None:
        """Count one."""
        self.counts[outcome.what] += 1
        self.slowest = max(self.slowest, outcome.seconds)
        if outcome.what in {Reason.CRASHED, Reason.TIME_LIMIT}:
            self.crashed.append(outcome)
        elif outcome.what not in {*Reason, State.SCREENED} or outcome.what == Reason.INTERNAL:
            self.defects.append(outcome)


def fuzz(studies: Sequence[Path], seeds: range, work: Path, budget_s: float = float("inf")) -> Tally:
    """The outcomes of the mutants with these seeds. No batch starts later than `budget_s` after the first one ended."""
    tally = Tally()
    end = None
    with IsolatedReader(time_limit_s=TIME_LIMIT_S, memory_limit_bytes=MEMORY_LIMIT_BYTES) as reader:
        for first in range(seeds.start, seeds.stop, BATCH):
            if end is not None and time.monotonic() > end:
                break
            for outcome in _batch(reader, studies, range(first, min(first + BATCH, seeds.stop)), work):
                tally.take(outcome)
            end = end or time.monotonic() + budget_s
    return tally


def _batch(reader: IsolatedReader, studies: Sequence[Path], seeds: range, work: Path) -> list[Outcome]:
    try:
        return reader.run(read_mutants, studies, seeds, work)
    except StudyFailed as problem:
        if len(seeds) == 1:
            seed = seeds.start
            return [Outcome(seed, studies[seed % len(studies)].name, str(problem.reason), problem.detail)]
        # One of them ended the child. Reading each alone shows which.
        return [outcome for seed in seeds for outcome in _batch(reader, studies, range(seed, seed + 1), work)]


def read_mutants(studies: Sequence[Path], seeds: range, work: Path) -> list[Outcome]:
    """The outcome of each mutant, in the order of the seeds."""
    outcomes = []
    for seed in seeds:
        with tempfile.TemporaryDirectory(dir=work) as folder:
            place = mutant(studies[seed % len(studies)], seed, Path(folder))
            start = time.perf_counter()
            try:
                _plan(place)
                reading = read_study(study_at(place), CONFIG)
                if isinstance(reading, NotScreened):
                    what, detail = str(reading.reason), reading.detail
                else:
                    what, detail = str(reading.state), ""
            except Exception as error:  # a defect: read_study must not raise, whatever the study holds
                what, detail = "raised", f"{type(error).__name__}: {error}"
            spent = time.perf_counter() - start
        outcomes.append(Outcome(seed, studies[seed % len(studies)].name, what, detail, spent))
    return outcomes


def _plan(place: Path) -> None:
    """Read what planning reads of a study. In a job the driver does this, without a child process."""
    for path in sorted(place.iterdir()) if place.is_dir() else [place]:
        identity_in(path.read_bytes()[: PROBE_BYTES[0]])


def mutant(study: Path, seed: int, folder: Path) -> Path:
    """A damaged copy of `study` in `folder`, always the same for a seed."""
    rng = Random(seed)
    place = Path((shutil.copytree if study.is_dir() else shutil.copy)(study, folder / study.name))
    if place.name == "study.zip" and rng.random() < 0.6:
        _damage_member(place, rng)
    elif place.is_file():
        # Archives and NIfTI: damage to the structure of the file itself.
        place.write_bytes(rng.choice((*MUTATORS[:6], flip_bits, truncate))(place.read_bytes(), rng))
    elif (files := sorted(place.iterdir())) and rng.random() < 0.08:
        _damage_folder(files, rng)
    else:
        for path in files if rng.random() < 0.1 else [rng.choice(files)]:
            path.write_bytes(rng.choice(MUTATORS)(path.read_bytes(), rng))
    return place


def _damage_folder(files: list[Path], rng: Random) -> None:
    one, other = rng.choice(files), rng.choice(files)
    kind = rng.randrange(4)
    if kind == 0 and len(files) > 1:
        one.unlink()
    elif kind == 1:
        (one.parent / "copy.dcm").write_bytes(one.read_bytes())
    elif kind == 2:
        one.write_bytes(b"")
    else:
        one.write_bytes(other.read_bytes()[: rng.randrange(2000)] + one.read_bytes())


def _damage_member(place: Path, rng: Random) -> None:
    """A sound zip with a broken object, a zip in the zip, a bomb, or a name that leaves the folder."""
    with zipfile.ZipFile(place) as packed:
        members = {name: packed.read(name) for name in packed.namelist()}
    name = rng.choice(sorted(members))
    kind = rng.randrange(6)
    if kind == 0:
        members[f"../../{name}"] = members.pop(name)
    elif kind == 1:
        members["inner.zip"] = place.read_bytes()
    elif kind == 2:
        members["bomb.dcm"] = bytes(128) + b"DICM" + bytes(4 << 20)
    else:
        members[name] = rng.choice(MUTATORS)(members[name], rng)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED))) as packed:
        for key, value in members.items():
            packed.writestr(key, value)
    place.write_bytes(content.getvalue())
