import pyarrow as pa
import pytest

from spinemet.results.schemas import KEY_COLUMNS, PROVENANCE_COLUMNS, SCHEMAS, describe


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


@pytest.mark.parametrize("table", ["studies", "vertebrae", "slices", "pictures"])
def test_result_tables_share_their_keys_and_provenance(table: str) -> None:
    names = SCHEMAS[table].names
    assert set(KEY_COLUMNS) <= set(names)
    assert {"run_id", "wave", "committed_at"} <= set(names)
    assert [name for name in names if name.startswith("seconds_")] == [
        name for name in PROVENANCE_COLUMNS if name.startswith("seconds_") and table == "studies"
    ]
    assert SCHEMAS[table].field("committed_at").type == pa.timestamp("us", tz="UTC")
