from pathlib import Path

import pandas as pd
from rich.console import Console

from spinemet.cohort.incidence import incidence
from spinemet.cohort.survival import survival
from spinemet.cohort.views import open_cohort
from spinemet.display.over_time import render_over_time
from tests.cohort.cases import write_results
from tests.questions.test_follow_up import STUDIES


def _shown(table: pd.DataFrame) -> str:
    console = Console(width=100)
    with console.capture() as capture:
        console.print(render_over_time(table))
    return capture.get()


def test_a_value_and_its_interval_are_one_column(tmp_path: Path) -> None:
    shown = _shown(incidence(open_cohort(write_results(str(tmp_path), STUDIES)), ["sex"]))
    assert "100,000 years" in shown
    # One event in 366 days.
    assert "99,795 [2,527, 556,023]" in shown
    assert "Called by the model, not corrected." in shown
    assert "configuration" not in shown


def test_what_cannot_be_told_is_said(tmp_path: Path) -> None:
    shown = _shown(survival(open_cohort(write_results(str(tmp_path), STUDIES)), [100, 5000]))
    assert "100.0 (too few)" in shown
    assert "–" in shown
    assert len(_shown(survival(open_cohort(str(tmp_path)), [10]).iloc[:0])) > 0
