"""What the commands that ask the tables share."""

from __future__ import annotations

import pytest

from spinemet.questions.options import _without_counts


@pytest.mark.parametrize(
    ("note", "shown"),
    [
        ("34 patients are not counted: the model knows them.", "Some patients are not counted: the model knows them."),
        ("2 patients have two visits, 1 of them with a lesion; 12 have one.",
         "Some patients have two visits, some of them with a lesion; some have one."),
        ("15 times a vertebra of 2 patients was followed.", "Some times a vertebra of some patients was followed."),
        ("Model 4e3abd, version 3 of the ledger.", "Model 4e3abd, version 3 of the ledger."),
    ],
)  # fmt: skip
def test_a_note_beside_hidden_counts_gives_none(note: str, shown: str) -> None:
    assert _without_counts(note) == shown
