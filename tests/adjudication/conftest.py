from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from spinemet.adjudication.drawing import Sample
from spinemet.adjudication.sample import write_sample
from tests.adjudication.readers import cohort


@pytest.fixture(scope="session")
def connection(tmp_path_factory: pytest.TempPathFactory) -> duckdb.DuckDBPyConnection:
    """The opened tables of twelve patients with six evaluable vertebrae each."""
    return cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="session")
def drawn(connection: duckdb.DuckDBPyConnection, tmp_path_factory: pytest.TempPathFactory) -> tuple[Sample, Path]:
    """A sample of 50 of these, 5 of them twice, and its page."""
    out = tmp_path_factory.mktemp("sample") / "page.html"
    return write_sample(connection, out, 50, 0), out
