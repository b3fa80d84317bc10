"""README.md lists every reason and every flag with the meaning that the code gives them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

import spinemet.dicom
from spinemet.cohort.flow import REASON_WORDS
from spinemet.types import Flag

README = (Path(spinemet.dicom.__file__).parent / "README.md").read_text()


@pytest.mark.parametrize(
    ("name", "meanings"),
    [("reason", REASON_WORDS), ("flag", {flag: flag.meaning for flag in Flag})],
    ids=["reasons", "flags"],
)
def test_the_table_is_the_enum(name: str, meanings: Mapping[str, str]) -> None:
    rows = "".join(f"| `{value}` | {meaning} |\n" for value, meaning in meanings.items())
    table = f"| {name} | meaning |\n| --- | --- |\n{rows}\n"
    assert table in README, f"replace the table of {name}s in spinemet/dicom/README.md with:\n{table}"
