from __future__ import annotations

import pandas as pd
import pytest

from spinemet.adjudication.consensus import consensus
from spinemet.adjudication.sheets import Sheet


def reader(name: str, word: str) -> Sheet:
    return Sheet(name, pd.DataFrame({"bone_quality": [word], "posterolateral": ["none"]}, index=["bcdfgh"]))


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("lytic", "lytic"),
        ("lytic lytic normal", "lytic"),
        ("lytic normal", "cannot judge"),
        ("lytic normal mixed", "cannot judge"),
        ("lytic lytic normal mixed", "lytic"),
        ("lytic lytic normal normal", "cannot judge"),
        ("lytic cannot_judge cannot_judge", "cannot judge"),
        ("lytic lytic cannot_judge", "lytic"),
        ("lytic cannot_judge", "cannot judge"),
    ],
)
def test_the_answer_of_most_readers_counts_and_ties_go_to_cannot_judge(said: str, expected: str) -> None:
    sheets = [reader(str(n), word.replace("_", " ")) for n, word in enumerate(said.split())]
    found = consensus(sheets)
    assert found.loc["bcdfgh"].tolist() == [expected, "none"]


def test_an_adjudicator_decides_ties_and_nothing_else() -> None:
    last = reader("Z", "mixed")
    assert consensus([reader("A", "lytic"), reader("B", "normal")], last).loc["bcdfgh", "bone_quality"] == "mixed"
    assert consensus([reader("A", "lytic"), reader("B", "lytic")], last).loc["bcdfgh", "bone_quality"] == "lytic"
