"""Label tables: the usual ways of writing are accepted; errors name the row and column."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from spinemet.errors import BadInput
from spinemet.files import join, write_bytes
from spinemet.model.tasks import TASKS, Task
from spinemet.training.labels import (
    COLUMNS,
    LABEL_CLASSES,
    consensus,
    label_words,
    read_labels,
)

HEADER = "patient,study,series,level,bone_quality,posterolateral"
ROWS = ["p1,1.2,1.2.3,T12,normal,none", "p1,1.2,1.2.3, l1 ,Lytic,", "p2,,,L1,,bilateral"]


def write(folder: Path, *rows: str, header: str = HEADER) -> str:
    path = folder / "labels.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return str(path)


def test_read_labels_accepts_what_people_write(tmp_path: Path) -> None:
    table = read_labels(write(tmp_path, *ROWS))
    assert list(table.columns) == COLUMNS
    assert table["level"].tolist() == ["T12", "L1", "L1"]
    assert table["bone_quality"].tolist() == ["normal", "lytic", None]
    assert table["posterolateral"].tolist() == ["none", None, "bilateral"]
    assert table["study"].tolist() == ["1.2", "1.2", ""]
    assert table.index.tolist() == [2, 3, 4]  # as a spreadsheet counts them


@pytest.mark.parametrize(
    "text",
    [
        HEADER + "\n" + "\n".join(row + "," for row in ROWS) + "\n",  # a comma at the end of the rows only
        HEADER + ",\n" + "\n".join(row + "," for row in ROWS) + "\n",
        HEADER + ",,\n" + "\n".join(row + ",," for row in ROWS) + "\n,,,,,,,\n,,,,,,,\n\n",
        "\ufeff" + HEADER + "\r\n" + "\r\n".join(ROWS),
        HEADER.replace(",", " , ") + "\n" + "\n".join(f'"{cell}"'.replace(",", '","') for cell in ROWS) + "\n",
    ],
    ids=["rows", "all lines", "empty rows", "Windows", "quoted"],
)
def test_a_csv_means_the_same_with_commas_at_the_end_and_other_habits(tmp_path: Path, text: str) -> None:
    (tmp_path / "habits.csv").write_bytes(text.encode())
    pd.testing.assert_frame_equal(read_labels(str(tmp_path / "habits.csv")), read_labels(write(tmp_path, *ROWS)))


def test_rows_keep_their_numbers_after_a_blank_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="row 3, column patient"):
        read_labels(write(tmp_path, ROWS[0], "", ROWS[1]))


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (f"{HEADER}\n{ROWS[0]},more\n".encode(), "row 2: expected 6 cells, found 7"),
        (f"{HEADER}\n{ROWS[0]}\np1,1.2,1.2.3\n".encode(), "row 3: expected 6 cells, found 3"),
        (f"{HEADER}\n{ROWS[0]}\n".replace(",", ";").encode(), "semicolons"),
        (f"{HEADER}\n{ROWS[0]}\n".replace(",", "\t").encode(), "tabs"),
        (f"{HEADER}\n{ROWS[0]}\n".encode("utf-16"), "UTF-8"),
        (f"{HEADER}\nMüller,,,L1,normal,none\n".encode("latin-1"), "UTF-8"),
        (f'{HEADER}\n"p1,,,L1,normal,none\n'.encode(), "quotation marks"),
        (f"{HEADER},level\n{ROWS[0]},L1\n".encode(), "found one twice"),
        (f"{HEADER.replace('study', '')}\n{ROWS[0]}\n".encode(), "without one"),
        (b"PK\x03\x04", "Excel"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"PAR1 and no more", "broken"),
        (b"\n\n", "empty"),
    ],
)
def test_the_message_names_what_is_wrong_with_the_file(tmp_path: Path, content: bytes, cause: str) -> None:
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(BadInput, match=cause) as caught:
        read_labels(str(tmp_path / "labels.csv"))
    assert "Error" not in str(caught.value)


def test_parquet_and_s3_give_the_same_table(tmp_path: Path, s3_bucket: str) -> None:
    local = write(tmp_path, *ROWS)
    pd.read_csv(local, dtype=str, keep_default_na=False, na_values=[""]).to_parquet(tmp_path / "labels.parquet")
    write_bytes(join(s3_bucket, "labels.csv"), Path(local).read_bytes())
    expected = read_labels(local)
    parquet = read_labels(str(tmp_path / "labels.parquet"))
    assert parquet.index.tolist() == [1, 2, 3]
    pd.testing.assert_frame_equal(parquet.set_index(expected.index), expected)
    pd.testing.assert_frame_equal(read_labels(join(s3_bucket, "labels.csv")), expected)


def test_extra_columns_are_ignored_and_a_label_column_may_be_missing(tmp_path: Path) -> None:
    table = read_labels(write(tmp_path, "p1,L1,mixed,seen twice", header="patient,level,bone_quality,comment"))
    assert table["bone_quality"].tolist() == ["mixed"]
    assert table["posterolateral"].tolist() == [None]


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        (HEADER, ["p1,,,L1,sclerotic,"], r"row 2, column bone_quality: expected .*lytic, found another word"),
        (
            HEADER,
            ["p1,,,L1,lytic,", "p1,,,L9,lytic,"],
            r"row 3, column level: expected one of C1 … S1, found another",
        ),
        (HEADER, [",,,L1,lytic,"], r"row 2, column patient: expected a patient, found nothing"),
        (HEADER, ["p1,,,L1,lytic,", "p2,,,L1,normal,", "p1,,,l1,normal,"], r"row 4.*expected lytic as row 2.*normal"),
        (HEADER, ["p1,,,L1,lytic,", "p1,,,L1,lytic,"], r"row 3.*found it in row 2 too"),
        (HEADER, [], r"without rows"),
        ("patient,bone_quality", ["p1,lytic"], r"expected a column level, found patient, bone_quality"),
        ("patient,level", ["p1,L1"], r"expected a column bone_quality or posterolateral"),
        ("patient,level,bone_quality,posterolatral", ["p1,L1,lytic,none"], r"column posterolateral, found posterol"),
        ("patient,level,bone_quality", ["p1,L1,lytic,none,more,cells", "p1"], r"expected"),
    ],
)
def test_bad_tables_name_row_column_expected_and_found(
    tmp_path: Path, header: str, rows: list[str], message: str
) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        read_labels(write(tmp_path, *rows, header=header))
    assert "p1" not in str(caught.value).removeprefix(str(tmp_path))


SLICES = "patient,study,level,slice,bone_quality"


def test_a_row_may_label_one_slice(tmp_path: Path) -> None:
    rows = ["p1,1.2,L1,,lytic", "p1,1.2,L1,-12.50,normal", "p1,1.2,L1,+7,lytic", "p1,1.2,L1,1.2.840.1,mixed"]
    table = read_labels(write(tmp_path, *rows, header=SLICES))
    assert table["slice"].tolist() == ["", "-12.5", "7.0", "1.2.840.1"]
    agreed = consensus(table)
    assert len(agreed) == 4
    assert agreed.loc[3, "bone_quality"] == "normal"  # rows keep their numbers


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            ["p1,1.2,L1,slice 1.2.840.7,lytic"],
            "row 2, column slice: expected a SOPInstanceUID or a height in mm, found another",
        ),
        (["p1,1.2,L1,,lytic", "p1,,L1,7,lytic"], "row 3, column study: expected the study that .*, found nothing"),
        (["p1,1.2,L1,7,lytic", "p1,1.2,L1,7.0,normal"], "row 3.*expected lytic as row 2 says of the same slice"),
        (["p1,1.2,L1,7,lytic", "p1,1.2,L1,7.0,lytic"], "row 3, column slice: expected each slice once"),
    ],
)
def test_a_bad_slice_is_named(tmp_path: Path, rows: list[str], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        read_labels(write(tmp_path, *rows, header=SLICES))


def collapse(**changes: object) -> Task:
    return Task.model_validate({"name": "collapse", "column": "collapse", "positive": ("yes",), **changes})


def test_a_column_allows_the_words_of_all_its_tasks() -> None:
    assert label_words(TASKS) == LABEL_CLASSES
    severe = collapse(name="severe", positive=("crush",))
    assert label_words([*TASKS, collapse(positive=("wedge",)), severe])["collapse"] == ("no", "wedge", "crush")
    grade = Task(name="grade", column="collapse", classes=("none", "wedge", "crush"))
    assert label_words([severe, grade])["collapse"] == grade.classes
    any_lesion = collapse(column="bone_quality", positive=("blastic", "mixed", "lytic"))
    assert label_words([any_lesion]) == LABEL_CLASSES
    for column in ("level", "rater", "hu", "slice_bone_quality"):
        with pytest.raises(BadInput, match=f"task collapse: expected a column of its own, found {column}"):
            label_words([collapse(column=column)])


def test_a_further_column_is_read_and_checked_like_the_others(tmp_path: Path) -> None:
    words = label_words([collapse()])
    header = "patient,level,bone_quality,collapse"
    table = consensus(read_labels(write(tmp_path, "p1,L1,lytic,Yes", "p1,L2,normal,", header=header), words))
    assert table["collapse"].tolist() == ["yes", None]
    assert "collapse" not in read_labels(str(tmp_path / "labels.csv"))
    with pytest.raises(BadInput, match="row 2, column collapse: expected one of no, yes, found another word"):
        read_labels(write(tmp_path, "p1,L1,lytic,maybe", header=header), words)
    with pytest.raises(BadInput, match="expected a column collapse, found patient, study"):
        read_labels(write(tmp_path, *ROWS), words)


def test_a_file_that_is_not_a_table_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and nothing more")
    for name in ("broken.parquet", "missing.csv"):
        with pytest.raises(BadInput):
            read_labels(str(tmp_path / name))


def test_consensus_is_the_majority_and_a_tie_is_missing(tmp_path: Path) -> None:
    header = "patient,level,bone_quality,rater"
    rows = ["p1,L1,lytic,a", "p1,L1,lytic,b", "p1,L1,mixed,c", "p1,L2,lytic,a", "p1,L2,normal,b", "p1,L3,,a"]
    table = consensus(read_labels(write(tmp_path, *rows, header=header))).set_index("level")["bone_quality"]
    assert table["L1"] == "lytic"
    assert table["L2"] is None
    assert table["L3"] is None


def test_a_row_may_say_that_it_is_not_of_a_patient(tmp_path: Path) -> None:
    header = "patient,level,bone_quality,rater,origin"
    rows = ["p1,L1,lytic,a,Phantom", "p1,L1,lytic,b,phantom", "p2,L1,normal,a,"]
    agreed = consensus(read_labels(write(tmp_path, *rows, header=header)))
    assert agreed["origin"].tolist() == ["phantom", ""]
    assert consensus(read_labels(write(tmp_path, *ROWS)))["origin"].tolist() == [""] * 3
    with pytest.raises(BadInput, match="row 2, column origin: expected nothing or phantom or implant, found another"):
        read_labels(write(tmp_path, "p1,L1,lytic,a,doll", header=header))


def test_a_study_of_two_patients_is_refused_without_naming_them(tmp_path: Path) -> None:
    rows = ["case a,1.2,,L1,normal,", "case a,1.3,,L1,normal,", "case b,1.2,,L2,lytic,"]
    with pytest.raises(BadInput, match=r"row 4, column patient: .* row 2 names for the same study") as refused:
        read_labels(write(tmp_path, *rows))
    assert "case" not in str(refused.value)
    read_labels(write(tmp_path, *rows[:2], "case b,,,L2,lytic,"))


@pytest.mark.parametrize("column", ["level", "bone_quality", "posterolateral"])
def test_swapped_columns_print_no_patients_name(tmp_path: Path, column: str) -> None:
    names = {"patient": column, column: "patient"}
    header = ",".join(names.get(name, name) for name in HEADER.split(","))
    with pytest.raises(BadInput, match=r"row 2, column .*: expected .*, found another word") as refused:
        read_labels(write(tmp_path, "MEIER^ANNA,1.2,1.2.3,T12,normal,none", header=header))
    assert "MEIER" not in str(refused.value)
