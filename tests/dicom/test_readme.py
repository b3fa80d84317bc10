"""README.md lists every reason and every flag with the meaning that the code gives them."""

from __future__ import annotations

from pathlib import Path

import pytest

import spinemet.dicom
from spinemet.errors import Explained, Reason
from spinemet.types import Flag

README = (Path(spinemet.dicom.__file__).parent / "README.md").read_text()


@pytest.mark.parametrize(("name", "words"), [("reason", Reason), ("flag", Flag)], ids=["reasons", "flags"])
def test_the_table_is_the_enum(name: str, words: type[Explained]) -> None:
    rows = "".join(f"| `{word}` | {word.meaning} |\n" for word in words)
    table = f"| {name} | meaning |\n| --- | --- |\n{rows}\n"
    assert table in README, f"replace the table of {name}s in spinemet/dicom/README.md with:\n{table}"
