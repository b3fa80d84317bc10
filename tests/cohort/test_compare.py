"""Two models on the same studies."""

from __future__ import annotations

from pathlib import Path

import pytest

from spinemet.cli import main
from spinemet.cohort.compare import compare
from spinemet.errors import BadInput
from tests.cohort.cases import MODEL, Study, write_results

OTHER = "fedcba987654"


@pytest.fixture
def place(tmp_path: Path) -> str:
    """OTHER has done two of the three studies."""
    first = ["T12=lytic L1 L2", "T12 L1=blastic L2=cut", "T12=mixed"]
    again = ["T12=blastic L1 L2=lytic", "T12 L1 L2"]
    uri = write_results(
        str(tmp_path), [Study(f"p{n}", levels=levels) for n, levels in enumerate(first)], wave="run-1/0"
    )
    return write_results(
        uri, [Study(f"p{n}", levels=levels) for n, levels in enumerate(again)], model=OTHER, wave="run-2/0"
    )


def test_only_vertebrae_that_both_classified_count(place: str) -> None:
    row = compare(place, MODEL, OTHER).set_index("task").loc["bone_quality"]
    assert (row["n_studies"], row["n_vertebrae"], row["n_same_class"]) == (
        2,
        5,
        2,
    )  # L1 of the first, T12 of the second
    assert [row[f"n_{name}"] for name in ("both_positive", "only_old", "only_new", "both_negative")] == [1, 1, 1, 2]
    assert (row["old_model"], row["new_model"]) == (MODEL, OTHER)
    back = compare(place, OTHER, MODEL).set_index("task").loc["bone_quality"]
    assert (back["n_only_old"], back["n_only_new"], back["n_same_class"]) == (1, 1, 2)


def test_the_command_prints_a_row_for_each_task(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tables", "compare", place, MODEL[:3], OTHER[:3]]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.startswith("task,n_studies,n_vertebrae,n_same_class")
    assert [line.split(",")[0] for line in lines] == ["blastic", "bone_quality", "lytic", "posterolateral"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [("77", OTHER, "first digits of one of the models"), (MODEL, MODEL, "expected two models"), ("", OTHER, "found")],
)
def test_models_that_cannot_be_compared_are_bad_input(place: str, old: str, new: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        compare(place, old, new)


def test_models_without_a_common_study_are_bad_input(tmp_path: Path) -> None:
    uri = write_results(str(tmp_path), [Study("p1", levels="L1")], wave="run-1/0")
    write_results(uri, [Study("p1", levels="L1")], model=OTHER, wave="run-2/1")
    with pytest.raises(BadInput, match="no vertebra in common"):
        compare(uri, MODEL, OTHER)
