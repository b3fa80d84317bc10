from __future__ import annotations

import csv
import io
import stat
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from spinemet.adjudication.drawing import KEY_COLUMNS, Sample
from spinemet.adjudication.sample import key_of, write_sample
from spinemet.adjudication.sheets import read_key, read_sheet, read_sheets, read_sizes
from spinemet.cohort.views import open_cohort
from spinemet.errors import BadInput
from tests.adjudication.readers import cohort, sheet_text, studies
from tests.cohort.cases import write_results

Drawn = tuple[Sample, Path]


@pytest.fixture
def key(drawn: Drawn) -> pd.DataFrame:
    return read_key(str(key_of(drawn[1])))


def saved(folder: Path, text: str | bytes, name: str = "sheet.csv") -> str:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def with_separator(text: str, separator: str) -> str:
    stream = io.StringIO()
    csv.writer(stream, delimiter=separator).writerows(csv.reader(io.StringIO(text)))
    return stream.getvalue()


def test_the_key_comes_back_as_it_was_written_and_only_its_owner_can_read_it(drawn: Drawn) -> None:
    found, page = drawn
    key = read_key(str(key_of(page)))
    assert stat.S_IMODE(key_of(page).stat().st_mode) == 0o600
    assert tuple(key.columns) == KEY_COLUMNS
    assert key["item"].tolist() == found.key["item"].tolist()
    assert key["weight"].tolist() == found.key["weight"].tolist()
    assert key["p_normal"].tolist() == found.key["p_normal"].tolist()


def test_a_key_is_never_overwritten(drawn: Drawn) -> None:
    page = drawn[1]
    before = key_of(page).read_text(), page.read_text()
    with pytest.raises(BadInput, match="exists already, the key of an earlier sample"):
        write_sample(cohort(page.parent / "again", 2), page, 12, 1)
    assert (key_of(page).read_text(), page.read_text()) == before


def test_a_page_that_cannot_be_written_leaves_no_key(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(BadInput, match="cannot write"):
        write_sample(connection, tmp_path / "folder.html", 50, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.html"]
    write_sample(connection, tmp_path / "new" / "page.html", 50, 0)
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"page.html", "page.key.csv"}


@pytest.mark.parametrize("change", [(",normal,", ",lytic,"), ("a row", ""), (",1.0,", ",4.0,"), (",L1,", ",L2,")])
def test_a_changed_key_is_refused(drawn: Drawn, tmp_path: Path, change: tuple[str, str]) -> None:
    text = key_of(drawn[1]).read_text()
    lines = text.splitlines(keepends=True)
    changed = "".join([lines[0], *lines[2:]]) if change[0] == "a row" else text.replace(*change, 1)
    assert changed != text
    with pytest.raises(BadInput, match=r"was changed: its content does not fit"):
        read_key(saved(tmp_path, changed))


def test_a_file_that_is_no_key_is_refused(key: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"expected the key of a sample at .*found no column repeats"):
        read_key(saved(tmp_path, sheet_text(key, "AB")))
    with pytest.raises(BadInput, match="expected a file at"):
        read_key(str(tmp_path / "none.csv"))


def test_a_sheet_is_read_as_it_was_saved(key: pd.DataFrame, tmp_path: Path) -> None:
    found = read_sheet(saved(tmp_path, sheet_text(key, "AB")), key)
    assert found.reader == "AB"
    assert found.answers.index.tolist() == key["item"].tolist()
    assert found.answers["bone_quality"].tolist() == key["bone_quality"].tolist()


@pytest.mark.parametrize("through", ["semicolons", "tabs", "mark", "order", "capitals", "blank rows", "comment"])
def test_what_a_spreadsheet_does_to_a_sheet_is_accepted(key: pd.DataFrame, tmp_path: Path, through: str) -> None:
    text = sheet_text(key, "AB")
    lines = text.splitlines(keepends=True)
    changed: str | bytes = {
        "semicolons": with_separator(text, ";"),
        "tabs": with_separator(text, "\t"),
        "mark": b"\xef\xbb\xbf" + text.encode(),
        "order": "".join([lines[0], *reversed(lines[1:])]),
        "capitals": text.replace(",normal,", ", Normal ,").replace("item", "Item"),
        "blank rows": text + ",,,,,\r\n\r\n",
        "comment": text.replace("none,\r\n", 'none,"two lines;\nand, a comma"\r\n', 1),
    }[through]
    found = read_sheet(saved(tmp_path, changed), key)
    assert found.answers["bone_quality"].tolist() == key["bone_quality"].tolist()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("cannot judge", ""), r"row 2 \(item \w{6}\), column bone_quality: .*found no answer.*choose cannot judge"),
        (("cannot judge", "sclerotic"), r"row 2 .*, column bone_quality: expected one of normal, .*found sclerotic\."),
        (("AB", "CD"), "expected the answers of one reader in .*, found AB, CD"),
        (("reader", "name"), "found no column reader"),
        (("SAMPLE", "s00000000000"), r"expected answers to sample s\w{11} in .*, found sample s00000000000"),
        (("ITEM", "bcdfgh"), "row 2: expected an item of the sample, found bcdfgh"),
        (("ITEM", "SECOND"), r"row 3: item \w{6} stands in row 2 too"),
        (("ROW", ""), r"1 of 55 items have no row, such as \w{6}: save the sheet again"),
        (("posterolateral", "bone_quality"), "expected each column once"),
        (("none,\r\n", "none,,,x\r\n"), "row 2: expected 6 cells, found 8"),
        (("none,\r\n", 'none,"open\r\n'), "quotation marks that do not match"),
    ],
)
def test_a_sheet_that_would_make_a_result_wrong_is_refused(
    key: pd.DataFrame, tmp_path: Path, change: tuple[str, str], words: str
) -> None:
    items, sample = key["item"].tolist(), key["sample"][0]
    text = sheet_text(key, "AB", lambda row: "cannot judge" if row["item"] == items[0] else "normal")
    row = text.splitlines(keepends=True)[1]
    old, new = {"SAMPLE": sample, "ITEM": items[0], "ROW": row}.get(change[0], change[0]), change[1]
    changed = text.replace(old, items[1] if new == "SECOND" else new, 1)
    assert changed != text
    with pytest.raises(BadInput, match=words):
        read_sheet(saved(tmp_path, changed), key)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "found an empty file"), (b"\xff\xfes\x00", "in UTF-8 .*save it as CSV UTF-8"), (b"PK\x03\x04", "no column")],
)
def test_a_file_that_is_no_sheet_is_refused(key: pd.DataFrame, tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        read_sheet(saved(tmp_path, content), key)


def test_two_sheets_of_one_reader_are_refused(key: pd.DataFrame, tmp_path: Path) -> None:
    places = [saved(tmp_path, sheet_text(key, name), f"{n}.csv") for n, name in enumerate(["AB", "CD", "ab"])]
    assert [sheet.reader for sheet in read_sheets(places[:2], key)] == ["AB", "CD"]
    with pytest.raises(BadInput, match="one sheet of each reader, found several of ab"):
        read_sheets(places, key)


def test_sizes_are_read_from_the_table_that_sample_prints(drawn: Drawn, tmp_path: Path) -> None:
    strata = drawn[0].strata
    assert read_sizes(saved(tmp_path, strata.to_csv(index=False))) == dict(
        zip(strata["stratum"], strata["drawn"], strict=True)
    )
    for text, words in (("stratum,size\na,1\n", "columns stratum and drawn"), ("stratum,drawn\na,1.5\n", "found 1.5")):
        with pytest.raises(BadInput, match=words):
            read_sizes(saved(tmp_path, text))


def test_a_model_without_posterolateral_involvement_has_a_key_too(tmp_path: Path) -> None:
    tasks = ["blastic", "lytic", "bone_quality"]
    results = write_results(str(tmp_path / "results"), studies(3), pictures=True, only=tasks)
    found = write_sample(open_cohort(results), tmp_path / "page.html", 18, 0)
    key = read_key(str(tmp_path / "page.key.csv"))
    assert key["sample"][0] == found.digest
    assert set(key["posterolateral"]) == {""}
    assert key["p_posterolateral_none"].isna().all()
