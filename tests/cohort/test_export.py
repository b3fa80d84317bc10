from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from spinemet.cli import main
from spinemet.cohort.export import TABLES, columns_of, export_tables
from spinemet.cohort.population import Population
from spinemet.cohort.prevalence import prevalence
from spinemet.cohort.views import open_cohort
from spinemet.errors import BadInput
from spinemet.results.maintenance import compact
from tests.cohort.cases import Study, write_results

ROOT = Path(__file__).resolve().parents[2]
FIRST = [
    Study("p1", levels="T11 T12=lytic L1=cut L2=?", name="a"),
    Study(
        "p2", levels="T11 T12=mixed! L1=blastic ?1=lytic", sex="M", age=None, name="b", more={"flags": ["lossy", "x"]}
    ),
    Study("p3", state="failed", reason="truncated", name="c"),
]
KEYS = {
    "studies": ["source_key"],
    "vertebrae": ["source_key", "vertebra"],
    "calls": ["source_key", "vertebra", "task", "class"],
}


@pytest.fixture
def results(tmp_path: Path) -> str:
    """Two waves in two files each; then the files are merged, and the old ones lie beside the new."""
    place = write_results(str(tmp_path / "results"), FIRST)
    write_results(place, [Study("p1", levels="T11=lytic T12=lytic", name="d")], wave="run-2/1")
    compact(place)
    return place


@pytest.fixture
def out(results: str, tmp_path: Path) -> Path:
    export_tables(open_cohort(results), str(tmp_path / "out"))
    return tmp_path / "out"


def test_other_readers_find_each_row_once(results: str, out: Path) -> None:
    """In the folder that Delta keeps, every row stands twice after `tables compact`."""
    assert len(pd.read_parquet(f"{results}/vertebrae")) == 2 * 10
    for name, key in KEYS.items():
        file = out / f"{name}.parquet"
        rows = pd.read_parquet(file)
        assert not rows.duplicated(key).any()
        counts = {
            "pandas": len(rows),
            "pandas, csv": len(pd.read_csv(out / f"{name}.csv")),
            "pyarrow": pads.dataset(file).count_rows(),
            "duckdb": duckdb.sql(f"select count(*) from '{out}/{name}*.parquet'").fetchall()[0][0],
        }
        assert set(counts.values()) == {{"studies": 3, "vertebrae": 10, "calls": 8 * 11}[name]}


def test_an_export_counts_like_the_product(results: str, out: Path) -> None:
    vertebrae = pd.read_parquet(out / "vertebrae.parquet")
    counted = vertebrae[vertebrae["is_counted"] & vertebrae["evaluable"]]
    (said,) = prevalence(open_cohort(results), []).query("finding == 'any'").to_dict("records")
    assert (len(counted), (counted["called"] != "normal").sum()) == (said["n_evaluable"], said["n_positive"]) == (5, 4)


def test_every_column_stands_in_the_codebook_with_its_type_and_meaning(out: Path) -> None:
    with open(out / "codebook.csv", newline="") as file:
        book = list(csv.DictReader(file))
    for name in TABLES:
        schema = pq.read_schema(out / f"{name}.parquet")
        said = [row for row in book if row["table"] == name]
        assert [row["column"] for row in said] == schema.names == list(pd.read_csv(out / f"{name}.csv").columns)
        for row in said:
            kind = str(schema.field(row["column"]).type)
            assert row["type"].removesuffix(", or null") == re.sub(r"list<.*: string>", "list of string", kind)
            assert row["meaning"].endswith(".")
        assert [tuple(list(row.values())[1:]) for row in said] == list(columns_of(name))


def test_about_says_what_the_rows_are(results: str, tmp_path: Path) -> None:
    women = Population(where="sex = 'F'", rule=0.3)
    export_tables(open_cohort(results, population=women), str(tmp_path / "women"))
    about = json.loads((tmp_path / "women" / "about.json").read_text())
    assert about["rows"] == {"studies": 2, "vertebrae": 6, "calls": 4 * 11}
    assert (about["rule"], about["ledger_version"]) == ("p(lesion) >= 0.3", 3)
    assert "sex = 'F'" in about["definition"]
    assert any("version 3 of the ledger" in sentence for sentence in about["notes"])
    assert set(pd.read_parquet(tmp_path / "women" / "studies.parquet")["sex"]) == {"F"}


def test_lists_are_words_in_csv_and_dates_are_dates(out: Path) -> None:
    studies = pd.read_csv(out / "studies.csv").set_index("study_key")
    assert studies.loc["b", "flags"] == "lossy x"
    assert studies.loc["b", "study_date"] == "2024-05-02"
    assert pd.isna(studies.loc["b", "age"])
    assert list(pd.read_parquet(out / "studies.parquet").set_index("study_key").loc["b", "flags"]) == ["lossy", "x"]


def test_a_population_without_studies_gives_empty_tables(results: str, tmp_path: Path) -> None:
    about = export_tables(open_cohort(results, population=Population(where="age > 99")), str(tmp_path / "none"))
    assert about["rows"] == {"studies": 0, "vertebrae": 0, "calls": 0}
    assert len(pd.read_csv(tmp_path / "none" / "vertebrae.csv")) == 0


def test_an_export_goes_to_s3(results: str, s3_bucket: str) -> None:
    export_tables(open_cohort(results), f"{s3_bucket}/out")
    with pytest.raises(BadInput, match="expected a new or empty folder"):
        export_tables(open_cohort(results), f"{s3_bucket}/out")


def test_a_folder_with_something_is_refused(results: str, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in out.iterdir()}
    assert main(["export", "tables", results, str(out)]) == 2
    assert "expected a new or empty folder for the export, found files at" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    assert main(["export", "tables", results, str(out / "studies.csv")]) == 2
    assert main(["export", "tables", results, str(out / "new")]) == 0
    assert "wrote 3 studies, 10 vertebrae, 88 calls" in capsys.readouterr().err


def recipes() -> dict[str, str]:
    """The recipes of results/README.md by the word in their first comment, such as `pandas`."""
    blocks = re.findall(r"```python\n# (\w+)\n(.*?)```", (ROOT / "spinemet/results/README.md").read_text(), re.DOTALL)
    return dict(blocks)


@pytest.mark.parametrize("name", ["pandas", "DuckDB", "Polars", "Spark"])
def test_a_recipe_gives_the_numbers_of_the_product(name: str, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip({"DuckDB": "duckdb", "Spark": "pyspark"}.get(name, name.lower()))
    monkeypatch.chdir(out.parent)
    said: dict[str, Any] = {}
    exec(recipes()[name], said)
    table = said["shares"]
    if name in {"Polars", "Spark"}:
        table = (table.to_pandas if name == "Polars" else table.toPandas)()
    found = table.reset_index().set_index("level")["positive"].to_dict()
    assert found == {"T11": 0.5, "T12": 1.0, "?1": 1.0, "L1": 1.0}
