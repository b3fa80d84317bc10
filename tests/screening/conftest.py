"""The stub archive and the options of a night over it."""

from __future__ import annotations

from pathlib import Path

import pytest

from spinemet.screening.plan import ScreenOptions
from tests.screening.nights import KEY
from tests.screening.places import write_stub_place


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("night")
    write_stub_place(str(root))
    return root


@pytest.fixture
def options(place: Path, tmp_path: Path) -> ScreenOptions:
    return ScreenOptions(str(place / "archive"), str(tmp_path / "results"), str(place / "model"), KEY, slices=True)
