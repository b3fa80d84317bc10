from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from spinemet.adjudication.sheets import read_key
from spinemet.cli import main
from tests.adjudication.readers import sheet_text, studies
from tests.cohort.cases import write_results

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Exit code, output and messages of `spinemet adjudicate`."""

    def command(*words: str | Path) -> tuple[int, str, str]:
        code = main(["adjudicate", *map(str, words)])
        return code, *capsys.readouterr()

    return command


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_results(str(tmp_path_factory.mktemp("results")), studies(), pictures=True)


def test_a_sample_is_drawn_answered_and_scored(run: Run, results: str, tmp_path: Path) -> None:
    code, out, said = run("sample", results, tmp_path / "a.html", "--size", "50", "--seed", "4")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0
    assert sum(int(row["drawn"]) for row in rows) == 50
    assert "rule argmax" in said
    assert f"wrote {tmp_path / 'a.key.csv'}, which readers must not see" in said
    key = read_key(str(tmp_path / "a.key.csv"))
    sheets = [tmp_path / f"{name}.csv" for name in ("AB", "CD", "EF")]
    words = ("normal", "lytic", "mixed")
    for path, word in zip(sheets, words, strict=True):
        path.write_text(sheet_text(key, path.stem, lambda row, word=word: word))
    code, out, said = run("score", tmp_path / "a.key.csv", *sheets[:2], "--adjudicator", sheets[2], "--json")
    answer = json.loads(out)
    assert code == 0
    assert answer["about"]["sample"] == key["sample"][0]
    rows = [row for row in answer["rows"] if (row["task"], row["measure"]) == ("bone_quality", "sensitivity")]
    found = {row["of"]: row for row in rows}
    assert found["mixed"]["n"] == 50  # the first two never agree, and the adjudicator says mixed of all
    code, out, _ = run("score", tmp_path / "a.key.csv", sheets[0], "--out", tmp_path / "evaluation")
    assert code == 0
    assert {row["rule"] for row in csv.DictReader(io.StringIO(out))} == {"argmax"}
    assert json.loads((tmp_path / "evaluation/evaluation.json").read_text())["facts"]["readers"] == 1


def test_a_score_corrects_a_prevalence_of_vertebrae_and_of_nothing_else(
    run: Run, results: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("sample", results, tmp_path / "a.html", "--size", "60", "--repeat", "0")
    key = read_key(str(tmp_path / "a.key.csv"))
    # Of what the model calls normal, the readers call every third vertebra lytic.
    missed = set(key[key["bone_quality"] == "normal"]["item"].iloc[::3])
    text = sheet_text(key, "AB", lambda row: "lytic" if row["item"] in missed else row["bone_quality"])
    (tmp_path / "AB.csv").write_text(text)
    run("score", tmp_path / "a.key.csv", tmp_path / "AB.csv", "--out", tmp_path / "checked")
    asked = ["cohort", "prevalence", results, "--by", "", "--correct", str(tmp_path / "checked")]
    assert main(asked) == 0
    row = next(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    weights = key.set_index("item")["weight"]
    true = 0.5 + weights[list(missed)].sum() / 72  # 36 of 72 are called any lesion, and every one is
    assert (row["finding"], float(row["prevalence"])) == ("any", 0.5)
    assert float(row["corrected"]) == pytest.approx(true, abs=1e-6)
    assert main([*asked, "--task", "posterolateral"]) == 2
    assert "only 0 evaluated patients are not none" in capsys.readouterr().err
    assert main([*asked, "--unit", "patient"]) == 2
    assert "a sample of vertebrae" in capsys.readouterr().err


def test_the_table_that_sample_prints_says_how_many_to_draw_when_given_back(
    run: Run, results: str, tmp_path: Path
) -> None:
    _, out, _ = run("sample", results, tmp_path / "a.html", "--size", "50")
    rows = list(csv.DictReader(io.StringIO(out)))
    (tmp_path / "sizes.csv").write_text("stratum,drawn\n" + "".join(f"{row['stratum']},2\n" for row in rows))
    code, out, _ = run("sample", results, tmp_path / "b.html", "--sizes", tmp_path / "sizes.csv")
    assert code == 0
    assert {row["drawn"] for row in csv.DictReader(io.StringIO(out))} == {"2"}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["sample", "RESULTS", "a.html", "--size", "3"], "expected a sample of at least 42 vertebrae"),
        (["sample", "NONE", "a.html"], "There are no screening results at"),
        (
            ["sample", "RESULTS", "a.html", "--model", "fff"],
            "expected a model and configuration that these",
        ),
        (["score", "none.key.csv", "a.csv"], "expected a file at"),
        (["score", "none.key.csv", "a.csv", "--labels", "l.csv"], "--labels and --linkage need each other"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_exit_code_2(
    run: Run, results: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, said = run(*({"RESULTS": results, "NONE": str(tmp_path / "none")}.get(word, word) for word in words))
    assert (code, out) == (2, "")
    assert sentence in said
    assert len(said.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
