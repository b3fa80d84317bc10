from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from spinemet.cli import app
from spinemet.results import schemas
from spinemet.results.schemas import (
    KEY_COLUMNS,
    LABEL_COLUMNS,
    PROBABILITY_COLUMNS,
    SCHEMAS,
    describe,
    dictionary,
)
from spinemet.screening.drift import POSITIVE
from spinemet.types import MEASURES
from tests.screening.places import PROVENANCE_COLUMNS


@pytest.mark.parametrize("table", SCHEMAS)
def test_every_column_has_a_one_line_description(table: str) -> None:
    for name, kind, description in describe(table):
        assert kind
        assert description.endswith("."), name
        assert "\n" not in description


@pytest.mark.parametrize("table", SCHEMAS)
def test_no_column_is_named_like_an_identifier(table: str) -> None:
    forbidden = {"patientid", "patientname", "studyinstanceuid", "seriesinstanceuid", "accessionnumber", "key", "uri"}
    assert not {name.lower() for name in SCHEMAS[table].names} & forbidden


@pytest.mark.parametrize("table", ["studies", "vertebrae", "calls", "slices", "pictures"])
def test_result_tables_share_their_keys_and_provenance(table: str) -> None:
    names = SCHEMAS[table].names
    assert set(KEY_COLUMNS) <= set(names)
    assert {"run_id", "wave", "committed_at"} <= set(names)
    assert [name for name in names if name.startswith("seconds_")] == [
        name for name in PROVENANCE_COLUMNS if name.startswith("seconds_") and table == "studies"
    ]
    assert SCHEMAS[table].field("committed_at").type == pa.timestamp("us", tz="UTC")


def test_the_readme_holds_the_data_dictionary_that_the_command_writes() -> None:
    shown = CliRunner().invoke(app, ["tables", "dictionary"])
    assert shown.exit_code == 0
    readme = Path(schemas.__file__).with_name("README.md").read_text()
    assert readme.endswith(shown.stdout), "renew the section with: spinemet tables dictionary"


def test_the_data_dictionary_names_every_column_once() -> None:
    rows = [line for line in dictionary().splitlines() if line.startswith("| `")]
    assert len(rows) == sum(len(schema) for schema in SCHEMAS.values())
    assert "| `flags` | list of string | What to know about this vertebra; an empty list for nothing. |" in rows
    assert all(any(f"| `{measure.name}` |" in row for row in rows) for measure in MEASURES)


def test_every_wide_probability_is_a_column() -> None:
    assert set(PROBABILITY_COLUMNS) <= set(SCHEMAS["vertebrae"].names)
    assert set(LABEL_COLUMNS) <= set(SCHEMAS["vertebrae"].names)


def test_every_class_that_a_run_counts_is_a_column() -> None:
    assert set(POSITIVE) <= set(SCHEMAS["runs"].names)
