"""A small share of the fuzzing. `make bench ONLY=fuzz` does all of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from spinemet.archive.listing import study_at
from spinemet.errors import Reason
from spinemet.reading import NotScreened
from spinemet.study import read_study
from tests.conftest import REALCT
from tests.fuzz.corpus import write_corpus
from tests.fuzz.driver import CONFIG, fuzz, mutant

SHARE = 1000
BUDGET_S = 20.0
"""A busy machine reads fewer mutants, so that the suite is not held up."""


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_corpus(tmp_path_factory.mktemp("corpus"), REALCT if REALCT.is_dir() else None)


def test_every_mutant_is_screened_or_has_a_reason(studies: list[Path], tmp_path: Path) -> None:
    tally = fuzz(studies, range(SHARE), tmp_path, BUDGET_S)
    assert tally.defects == []
    # Mutants get past the headers: some damage has no effect, and some only decoders notice.
    assert {"screened", Reason.NO_SPINE, Reason.UNDECODABLE, Reason.BROKEN_ARCHIVE} <= set(tally.counts)


def test_the_corpus_itself_is_read(studies: list[Path]) -> None:
    odd = {"odd.tar.gz", "real-CTIma"}
    readings = {path.name: read_study(study_at(path), CONFIG) for path in studies if path.name not in odd}
    reasons = {name: one.reason for name, one in readings.items() if isinstance(one, NotScreened)}
    assert readings.keys() - reasons.keys() == {"segmentation"}
    assert reasons == dict.fromkeys(reasons, Reason.NO_SPINE)


def test_a_seed_gives_the_same_mutant(studies: list[Path], tmp_path: Path) -> None:
    for seed, study in enumerate(studies):
        places = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            places.append(mutant(study, seed, tmp_path / name))
        one, two = (
            [p.read_bytes() for p in sorted(place.rglob("*") if place.is_dir() else [place])] for place in places
        )
        assert one == two
        for name in ("one", "two"):
            shutil.rmtree(tmp_path / name)
