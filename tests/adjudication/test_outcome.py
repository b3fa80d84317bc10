from __future__ import annotations

import json
import stat
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spinemet.adjudication.drawing import Sample
from spinemet.adjudication.outcome import write_evaluation, write_labels
from spinemet.adjudication.scoring import Score, score
from spinemet.cohort.views import open_cohort
from spinemet.errors import BadInput
from spinemet.report.html import write_report
from spinemet.screening.linkage import COLUMNS
from spinemet.training.labels import read_labels
from tests.adjudication.readers import sheet
from tests.cohort.cases import write_results


@pytest.fixture
def found(drawn: tuple[Sample, Path]) -> Score:
    """A reader who cannot judge the first vertebra, and sees involvement on one side of each lytic one."""
    key = drawn[0].key
    first = key["item"][0]
    bone = sheet(key, "AB", lambda row: "cannot judge" if row["item"] == first else row["bone_quality"])
    sides = sheet(key, "AB", sides=lambda row: "unilateral" if row["bone_quality"] == "lytic" else "none").answers
    bone.answers["posterolateral"] = sides["posterolateral"]
    return score(key, [bone])


def linkage(folder: Path, sources: list[str]) -> str:
    """A linkage table as screening writes it."""
    folder.mkdir()
    rows = [{name: f"{name} of {source}" for name in COLUMNS} | {"source_key": source} for source in sources]
    schema = pa.schema([(name, pa.string()) for name in COLUMNS])
    pq.write_table(pa.Table.from_pylist(rows, schema), folder / "linkage-run-1-0.parquet")
    return str(folder)


def test_the_evaluation_has_the_tables_and_facts_of_one(found: Score, tmp_path: Path) -> None:
    write_evaluation(found, str(tmp_path / "evaluation"))
    content = json.loads((tmp_path / "evaluation/evaluation.json").read_text())
    assert content["facts"]["split"] == "adjudicated"
    assert content["facts"]["rule"] == "argmax"
    assert {row["unit"] for row in content["measures"]} == {"vertebra"}
    measures = pd.read_parquet(tmp_path / "evaluation/measures.parquet")
    assert list(measures) == ["task", "unit", "measure", "label", "value", "low", "high", "n", "patients"]
    vertebrae = pd.read_parquet(tmp_path / "evaluation/vertebrae.parquet")
    assert vertebrae["weight"].sum() == pytest.approx(72)
    assert vertebrae["bone_quality_true"].isna().sum() == 1
    assert {f"bone_quality_p_{name}" for name in ("normal", "blastic", "mixed", "lytic")} <= set(vertebrae)
    with pytest.raises(BadInput, match="holds an evaluation already"):
        write_evaluation(found, str(tmp_path / "evaluation"))


def test_the_report_shows_it(found: Score, tmp_path: Path) -> None:
    write_evaluation(found, str(tmp_path / "evaluation"))
    results = write_results(str(tmp_path / "results"), [])
    assert open_cohort(results)
    write_report(results, tmp_path / "report.html", evaluation=str(tmp_path / "evaluation"))
    page = (tmp_path / "report.html").read_text()
    assert "that readers judged. Each counts as often as the population has vertebrae like it" in page


def test_label_rows_are_what_training_reads(found: Score, tmp_path: Path) -> None:
    sources = sorted(found.vertebrae["source_key"].unique())
    out = tmp_path / "labels.csv"
    written, left = write_labels(found, linkage(tmp_path / "linkage", sources[1:]), out)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    named = found.vertebrae[~found.vertebrae["level"].str.startswith("?")]
    assert written == (named["source_key"] != sources[0]).sum()
    assert written + left == len(found.vertebrae)
    table = read_labels(str(out))
    assert len(table) == written
    row = table.iloc[0]
    source = row["patient"].removeprefix("PatientID of ")
    (truth,) = found.vertebrae[
        (found.vertebrae["source_key"] == source) & (found.vertebrae["level"] == row["level"])
    ].to_dict("records")
    assert row["study"] == f"StudyInstanceUID of {source}"
    assert (row["bone_quality"], row["posterolateral"]) == (truth["bone_quality_true"], truth["posterolateral_true"])
    assert table["bone_quality"].isna().sum() <= 1


def test_labels_without_the_linkage_of_these_results_are_refused(found: Score, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"linkage table of the screening \(jobs/screen.py --linkage\)"):
        write_labels(found, str(tmp_path / "none"), tmp_path / "labels.csv")
    with pytest.raises(BadInput, match="knows none of the sample's studies"):
        write_labels(found, linkage(tmp_path / "linkage", ["other"]), tmp_path / "labels.csv")
    assert not (tmp_path / "labels.csv").exists()
