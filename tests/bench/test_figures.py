"""A benchmark's table reaches the page that has a place for it, and nothing else there changes."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

import tests.bench.__main__ as command
from tests.bench import bench_model
from tests.bench.__main__ import names
from tests.bench.figures import PAGES, Figures, update_pages

ROOT = Path(__file__).parents[2]
PLACE = re.compile(r"<!-- figures: (\w+) -->\n(.*?)<!-- end of figures -->", re.DOTALL)
PAGE = """# Made up

<!-- figures: speed -->
an older table
<!-- end of figures -->

Between.

<!-- figures: memory -->
<!-- end of figures -->
"""


def made_up() -> Figures:
    figures = Figures("Speed", ("what", "s", "times"), "medians of three")
    figures.add(r"ours, \1", 0.123456, 3)
    figures.add("theirs", 12.3456, 1)
    return figures


def test_a_table_replaces_the_older_one_in_every_page_that_has_its_place(tmp_path: Path) -> None:
    pages = [tmp_path / "tests" / "bench" / "README.md", tmp_path / "spinemet" / "dicom" / "README.md"]
    for page in pages:
        page.parent.mkdir(parents=True)
        page.write_text(PAGE)
    other = tmp_path / "spinemet" / "spine" / "README.md"
    other.parent.mkdir()
    other.write_text("# Without a place\n")
    assert sorted(update_pages(tmp_path, "speed", made_up().section("Measured today."))) == sorted(pages)
    text = pages[0].read_text()
    assert pages[1].read_text() == text
    assert other.read_text() == "# Without a place\n"
    table = "| what | s | times |\n| --- | --- | --- |\n| ours, \\1 | 0.123 | 3 |\n| theirs | 12.3 | 1 |\n"
    section = f"**Speed**\n\n{table}\nMedians of three.\n\nMeasured today.\n"
    assert text == PAGE.replace("an older table\n", section)
    update_pages(tmp_path, "speed", made_up().section("Measured today."))
    assert pages[0].read_text() == text


def test_a_benchmark_without_a_place_changes_nothing(tmp_path: Path) -> None:
    page = tmp_path / "tests" / "bench" / "README.md"
    page.parent.mkdir(parents=True)
    page.write_text(PAGE)
    assert update_pages(tmp_path, "spee", "x") == []
    assert page.read_text() == PAGE


def test_make_bench_writes_the_table_with_commit_and_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "tests" / "bench" / "README.md"
    page.parent.mkdir(parents=True)
    page.write_text(PAGE.replace("speed", "model"))
    monkeypatch.setattr(bench_model, "run", made_up)
    monkeypatch.setattr(command, "ROOT", tmp_path)
    monkeypatch.setattr(command, "STORE", tmp_path / "bench")
    monkeypatch.setattr(sys, "argv", ["bench", "model"])
    assert command.main() == 0
    assert "updated tests/bench/README.md" in capsys.readouterr().out
    assert "| theirs | 12.3 | 1 |" in page.read_text()
    assert re.search(r"^Measured at commit .+ on \d{4}-\d\d-\d\d: .+ cores, Python 3", page.read_text(), re.MULTILINE)
    stored = json.loads((tmp_path / "bench" / "model.json").read_text())
    assert stored["rows"][1] == {"what": "theirs", "s": 12.3456, "times": 1}


def test_every_place_is_that_of_a_benchmark_and_says_when_it_was_measured() -> None:
    found = [place for pattern in PAGES for page in ROOT.glob(pattern) for place in PLACE.findall(page.read_text())]
    assert {name for name, _ in found} <= set(names())
    assert all("Measured " in section for _, section in found)


def test_the_readme_tells_of_every_benchmark() -> None:
    readme = (ROOT / "tests" / "bench" / "README.md").read_text()
    assert [name for name in names() if f"`{name}`" not in readme] == []
