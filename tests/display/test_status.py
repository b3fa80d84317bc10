"""The status of a results place on one page."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from spinemet.display.status import render_status
from spinemet.results.published import publish
from spinemet.results.status import status
from tests.cohort.cases import MODEL, Study, write_results
from tests.results.test_status import another_run


def page(place: str, max_age_h: float | None = None) -> str:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(render_status(status(place), max_age_h))
    return console.export_text()


def test_the_page_fits_100_columns_and_30_lines(tmp_path: Path) -> None:
    place = write_results(str(tmp_path), [Study("p1", levels="L1"), Study("p2", state="failed", reason="truncated")])
    for number in range(2, 6):
        another_run(place, f"run-{number}", studies_per_hour=15701.0, waiting=1203, planned=104033, screened=98765)
    another_run(place, "run-9", drift="failed: 12.0%, expected 0.0% to 7.0% after the last 8 runs")
    publish(place, MODEL)
    shown = page(place)
    assert "…" not in shown
    assert len(shown.splitlines()) < 30
    for words in ("104,033", "15,701", f"model {MODEL}, since", "nobody holds it", "out of control in the run of"):
        assert words in shown
    assert "1  truncated  truncated objects" in shown


def test_a_place_that_no_run_finished_says_so(tmp_path: Path) -> None:
    place = write_results(str(tmp_path), [Study("p1", levels="L1")])
    another_run(place, "run-1", state="failed")
    assert "never" in page(place)
    assert "failed studies" not in page(place)
