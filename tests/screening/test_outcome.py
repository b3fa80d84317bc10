import datetime as dt
import io
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from spinemet.dicom.pseudonym import Pseudonymizer
from spinemet.errors import Reason
from spinemet.model.marks import UNMARKED, Marks, Matching, mark
from spinemet.reading import Doubt, NotScreened, Screened, State, StudyReading, VertebraCall
from spinemet.results.schemas import PROBABILITY_COLUMNS, SCHEMAS, Row
from spinemet.screening.outcome import MadeWith, slimmed, study_rows, without_pixels
from tests.readings import CALLS, LEVELS, READING, REF, SECRETS, SERIES, stack

MADE_WITH = MadeWith("a" * 12, "b" * 12, "1.0", "run-1")
NAMES = Pseudonymizer(b"0123456789abcdef", "year")


def rows_of(
    study: StudyReading, calls: object = CALLS, marks: Marks = UNMARKED, **options: object
) -> dict[str, list[Row]]:
    return study_rows(REF, study, calls, MADE_WITH, NAMES, marks, **options)  # type: ignore[arg-type]


def test_rows_are_valid_against_the_schemas_and_name_only_their_columns() -> None:
    rows = rows_of(READING, slices=True, seconds_model=0.25)
    for name, table in rows.items():
        assert table, name
        for row in table:
            assert set(row) <= set(SCHEMAS[name].names)
        stamped = [{**row, "wave": "w", "committed_at": dt.datetime.now(dt.UTC)} for row in table]
        made = pa.Table.from_pylist(stamped, schema=SCHEMAS[name])
        for column in SCHEMAS[name]:
            assert column.nullable or made[column.name].null_count == 0, column.name


def test_rows_hold_no_identifier() -> None:
    text = repr(rows_of(READING, slices=True))
    for secret in SECRETS:
        assert secret not in text


def test_the_ledger_row_describes_the_study() -> None:
    (row,) = rows_of(READING, seconds_model=0.25)["studies"]
    expected = {
        "state": "screened", "reason": None, "layout": "prefix", "objects": 2, "size_bytes": 30, "series_count": 2,
        "slice_count": 120, "slice_spacing_mm": 1.5, "row_spacing_mm": 0.7, "column_spacing_mm": 0.8,
        "manufacturer": "ACME Medical", "manufacturer_model": "Ring 5", "kernel": "B60f", "kvp": 120.0,
        "contrast": True, "objects_left_out": 3, "age": 90, "sex": "F", "study_date": dt.date(2024, 1, 1),
        "localizer": "geometric", "levels_imaged": 4, "levels_evaluable": 3, "flags": ["deskewed", "lossy"],
        "seconds_headers": 0.5, "seconds_volume": 1.5, "seconds_model": 0.25, "model_digest": "a" * 12,
        "run_id": "run-1",
    }  # fmt: skip
    assert {name: row[name] for name in expected} == expected
    assert type(row["localizer"]) is type(row["state"]) is str  # plain words, no members of an enum
    assert row["source_key"] == NAMES.source_key(REF.archive, REF.key)
    assert row["patient_key"] == NAMES.patient_key("SECRET-PATIENT")


def test_the_ledger_row_says_whether_the_model_knows_the_patient() -> None:
    def seen(marks: Marks, study: StudyReading = READING) -> bool | None:
        (row,) = rows_of(study, marks=marks)["studies"]
        return row["seen_in_training"]

    key = NAMES.patient_key("SECRET-PATIENT")
    trained, kept = (Marks(Matching.MATCHED, "w", {mark(key, "w"): part}) for part in ("train", "test"))
    nobody = replace(READING, chosen=replace(READING.chosen, PatientID=""))
    assert [seen(trained), seen(kept), seen(UNMARKED), seen(trained, nobody)] == [True, False, None, None]


@pytest.mark.parametrize(
    ("header", "stored"),
    [("=cmd|' /C calc'!A0", "cmd|' /C calc'!A0"), ("@SUM(1)", "SUM(1)"), ("-+=GE", "GE"), ("=", None)],
)
def test_a_spreadsheet_takes_no_text_of_a_header_for_a_formula(header: str, stored: str | None) -> None:
    changed_header = replace(READING, chosen=replace(READING.chosen, Manufacturer=header))
    assert rows_of(changed_header)["studies"][0]["manufacturer"] == stored


def test_vertebrae_are_listed_from_cranial_to_caudal_with_their_calls() -> None:
    rows = rows_of(READING)["vertebrae"]
    assert [row["level"] for row in rows] == list(LEVELS)
    assert [row["vertebra"] for row in rows] == [0, 1, 2, 3]
    assert [row["bone_quality"] for row in rows] == ["normal", "lytic", "mixed", "blastic"]
    assert [row["completeness"] for row in rows] == ["cut", "whole", "whole", "whole"]
    assert [row["evaluable"] for row in rows] == [False, True, True, True]
    assert [row["trabecular_hu"] for row in rows] == [None, 150.0, 150.0, 150.0]
    assert [row["flags"] for row in rows] == [["disc_unclear"], [], [], []]
    lytic = rows[1]
    assert lytic["p_only_lytic"] == pytest.approx(0.7)
    assert lytic["p_lytic"] == pytest.approx(0.8)
    assert lytic["p_blastic"] == pytest.approx(0.2)
    assert sum(lytic[f"p_{name}"] for name in ("normal", "only_blastic", "mixed", "only_lytic")) == pytest.approx(1)
    assert lytic["p_posterolateral_bilateral"] == pytest.approx(0.8)
    assert (lytic["center_x_mm"], lytic["center_y_mm"], lytic["center_z_mm"]) == (1.0, 2.0, -30.0)


def test_only_lesions_have_sins_points() -> None:
    rows = rows_of(READING)["vertebrae"]
    points = [
        [row[f"sins_{name}"] for name in ("location", "bone", "posterolateral", "partial", "min", "max")]
        for row in rows
    ]
    assert points == [[None] * 6, [3, 2, 3, 8, 8, 18], [3, 1, 1, 5, 5, 15], [None, 0, 0, None, 0, 13]]


def test_without_calls_vertebrae_are_imaged_but_not_evaluable() -> None:
    rows = rows_of(READING, calls=None)
    assert [row["evaluable"] for row in rows["vertebrae"]] == [False] * 4
    assert all(row["bone_quality"] is None and row["p_normal"] is None for row in rows["vertebrae"])
    assert rows["studies"][0]["levels_imaged"] == 4
    assert rows["studies"][0]["levels_evaluable"] == 0


def test_a_model_without_a_task_leaves_its_columns_empty() -> None:
    bare = VertebraCall({"bone_quality": CALLS[1].probabilities["bone_quality"]})
    row = rows_of(READING, calls=[bare] * 4)["vertebrae"][1]
    assert row["posterolateral"] is None
    assert row["p_blastic"] is None
    assert (row["sins_posterolateral"], row["sins_partial"], row["sins_min"], row["sins_max"]) == (None, None, 5, 18)


def test_calls_hold_every_class_of_every_task() -> None:
    rows = rows_of(READING, calls=[None, *CALLS[1:]])["calls"]
    assert len(rows) == 3 * (2 + 2 + 4 + 3)
    first = [row for row in rows if row["vertebra"] == 1]
    assert {row["level"] for row in first} == {"T12"}
    assert [(row["task"], row["class"], row["class_number"]) for row in first][-3:] == [
        ("posterolateral", "none", 0),
        ("posterolateral", "unilateral", 1),
        ("posterolateral", "bilateral", 2),
    ]


def test_wide_columns_repeat_the_calls() -> None:
    rows = rows_of(READING, calls=[None, *CALLS[1:]])
    calls = {(row["vertebra"], row["task"], row["class"]): row["probability"] for row in rows["calls"]}
    for row in rows["vertebrae"]:
        for column, (task, name) in PROBABILITY_COLUMNS.items():
            assert row[column] == calls.get((row["vertebra"], task, name)), column


def test_a_task_that_a_recipe_added_is_in_the_calls_under_its_name() -> None:
    grown = VertebraCall(CALLS[1].probabilities | {"collapse": {"no": np.float32(0.25), "yes": np.float32(0.75)}})
    rows = rows_of(READING, calls=[CALLS[0], grown, *CALLS[2:]])["calls"]
    assert [
        (row["vertebra"], row["class"], row["class_number"], row["probability"])
        for row in rows
        if row["task"] == "collapse"
    ] == [(1, "no", 0, 0.25), (1, "yes", 1, 0.75)]


def test_a_vertebra_without_slices_has_a_row_and_no_call() -> None:
    stacks = (stack("T11", 0), *(stack(level) for level in LEVELS[1:]))
    rows = rows_of(replace(READING, stacks=stacks), calls=[None, *CALLS[1:]])["vertebrae"]
    assert rows[0]["slices"] == 0
    assert rows[0]["bone_quality"] is None


def test_calls_that_do_not_match_the_vertebrae_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        rows_of(READING, calls=CALLS[:3])


@pytest.mark.parametrize("state", [State.EXCLUDED, State.FAILED])
def test_a_study_that_was_not_screened_has_only_its_ledger_row(state: State) -> None:
    study = NotScreened(state, Reason.TOO_THICK, "one sentence.", series_seen=((SERIES, Reason.TOO_THICK),))
    rows = rows_of(study, calls=())
    assert {name: len(table) for name, table in rows.items()} == {
        "studies": 1, "vertebrae": 0, "calls": 0, "slices": 0, "pictures": 0,
    }  # fmt: skip
    (row,) = rows["studies"]
    assert (row["state"], row["reason"], row["detail"]) == (str(state), "too_thick", "one sentence.")
    assert row["patient_key"] == NAMES.patient_key("SECRET-PATIENT")  # known although no series was chosen
    assert row.get("series_key") is None
    assert row["levels_imaged"] is None
    assert row["levels_evaluable"] is None


def test_a_study_without_any_header_still_has_its_place() -> None:
    (row,) = rows_of(NotScreened(State.FAILED, Reason.BROKEN_ARCHIVE, "broken."), calls=None)["studies"]
    assert row["source_key"] == NAMES.source_key(REF.archive, REF.key)
    assert (row["study_key"], row["patient_key"], row["age"], row["sex"], row["study_date"]) == (None,) * 5


def test_slices_are_rows_only_on_request() -> None:
    assert rows_of(READING)["slices"] == []
    rows = rows_of(READING, slices=True)["slices"]
    assert len(rows) == 4 * 3 * 3  # vertebrae x slices x classes of the one task with slices
    assert rows[0]["offset_mm"] == 3.0
    assert {row["class"] for row in rows} == {"none", "unilateral", "bilateral"}


def test_pictures_are_grey_pngs_of_the_views() -> None:
    (row,) = rows_of(READING)["pictures"]
    image = Image.open(io.BytesIO(row["coronal_png"]))
    assert (image.mode, image.size) == ("L", (121, 140))
    assert np.all(np.asarray(image) == 7)
    assert row["canal_column"] == 80
    assert rows_of(replace(READING, views=None))["pictures"] == []


def test_slimming_and_dropping_pixels_change_no_row() -> None:
    slim = slimmed(READING)
    assert isinstance(slim, Screened)
    small = without_pixels(slim)
    assert small.chosen.instances == ()
    assert small.stacks[0].hu_NHW.nbytes == 0
    assert rows_of(small, slices=True) == rows_of(READING, slices=True)


def test_an_unsure_vertebra_keeps_its_calls_and_leaves_the_denominator() -> None:
    unsure, sure, silent = (
        replace(CALLS[1], doubt=Doubt.SMOOTH, is_judged=True, plausible={"bone_quality": ("normal", "lytic")}),
        replace(CALLS[2], is_judged=True),
        CALLS[3],
    )
    rows = rows_of(READING, (None, unsure, sure, silent))
    assert [row["unsure"] for row in rows["vertebrae"]] == [None, "smooth", "", None]
    assert [row["evaluable"] for row in rows["vertebrae"]] == [False, False, True, True]
    assert [row["sins_bone"] for row in rows["vertebrae"]] == [None, None, 1, 0]
    assert rows["vertebrae"][1]["bone_quality"] == "lytic"
    assert rows["studies"][0]["levels_evaluable"] == 2
    sets = {(row["task"], row["class"]): row["in_set"] for row in rows["calls"] if row["vertebra"] == 1}
    assert sets["bone_quality", "lytic"]
    assert sets["bone_quality", "blastic"] is False
    assert sets["posterolateral", "none"] is None
