from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

from spinemet.cohort.survival import _windows, survival
from spinemet.cohort.views import open_cohort
from spinemet.errors import BadInput
from spinemet.statistics.hidden_lesions import CallErrors
from spinemet.statistics.survival import Windows, kaplan_meier
from tests.cohort.cases import Study, write_results

ERRORS = CallErrors(0.9, 0.9, 200, 200)
START = date(2020, 1, 1)


def _seen(patient: str, *calls: tuple[int, str], sex: str = "F") -> list[Study]:
    return [Study(patient, START + timedelta(days=days), levels, sex=sex) for days, levels in calls]


SOME = [
    *_seen("p1", (0, "L1"), (100, "L1"), (250, "L1=lytic"), (400, "L1")),  # (100, 250]
    *_seen("p2", (0, "L1=lytic"), (300, "L1")),  # has one at the first visit
    *_seen("p3", (7, "L1"), (57, "L1"), sex="M"),  # free for 50 days
    *_seen("p4", (0, "L1")),  # came once
    *_seen("p5", (0, "L1"), (120, "L1=mixed"), sex="M"),  # (0, 120]
    *_seen("p6", (0, "L1"), (300, "L1")),
]


def test_patients_free_at_the_first_visit_are_followed(tmp_path: Path) -> None:
    table = survival(open_cohort(write_results(str(tmp_path), SOME)))
    followed = table[table["estimate"] == "kaplan_meier"].set_index("day")
    expected = kaplan_meier([50, 120, 250, 300], [0, 1, 1, 0], [1, 0, 0, 1]).at([120, 250])
    assert followed.index.tolist() == [120, 250]
    assert followed["free"].tolist() == pytest.approx(expected.free_T.tolist())
    assert followed["n_at_risk"].tolist() == [3, 2]
    assert followed["n_events"].tolist() == [1, 2]
    between = table[table["estimate"] == "turnbull"]
    fit = Windows.of([100, 50, 0, 300], [250, np.inf, 120, np.inf]).fit(np.ones(4))
    assert between["free"].tolist() == pytest.approx(fit.free_after([120, 250]).tolist(), abs=1e-6)
    assert between["ci_low"].isna().all()  # two events tell nothing of its width
    assert set(table["events"]) == {"called by the model, not corrected"}


def test_groups_and_days_are_as_asked(tmp_path: Path) -> None:
    table = survival(open_cohort(write_results(str(tmp_path), SOME)), [0, 60, 5000], ["sex"])
    assert table.groupby(["sex", "estimate"]).size().to_dict() == {
        (sex, name): 3 for sex in "FM" for name in ("kaplan_meier", "turnbull")
    }
    rows = table.set_index(["sex", "estimate", "day"])["free"]
    assert rows[("M", "kaplan_meier", 60)] == 1
    assert np.isnan(rows[("M", "turnbull", 5000)])
    with pytest.raises(BadInput, match="sex, age_group"):
        survival(open_cohort(str(tmp_path)), by=["year"])


def test_nobody_followed_gives_an_empty_answer_with_its_columns(tmp_path: Path) -> None:
    table = survival(open_cohort(write_results(str(tmp_path), SOME[4:6])), [100], errors=ERRORS)
    assert len(table) == 0
    assert list(table.columns[:3]) == ["estimate", "day", "n_at_risk"]


def test_without_a_lesion_the_last_day_is_shown(tmp_path: Path) -> None:
    cohort = open_cohort(write_results(str(tmp_path), [*SOME[6:8], *SOME[-2:]]))
    rows = survival(cohort).set_index("estimate")
    assert rows.loc["kaplan_meier", ["day", "n_at_risk", "n_events", "free"]].tolist() == [300, 1, 0, 1]
    assert rows.loc["turnbull", "free"] == 1


def test_windows_weigh_every_place_of_the_lesion_by_the_calls(tmp_path: Path) -> None:
    """Called free on day 0, ill on day 90: before both, between them, or after."""
    import pandas as pd

    rows = pd.DataFrame({"patient": [1, 1, 2], "day": [0, 90, 0], "has_lesion": [False, True, True]})
    found = _windows(rows, CallErrors(0.9, 0.8, 10, 10))
    seen = sorted(
        zip(found.patient_W.tolist(), found.after_W.tolist(), found.until_W.tolist(), found.weight_W, strict=True)
    )
    expected = [
        (0, -np.inf, 0, 0.1 * 0.9), (0, 0, 90, 0.8 * 0.9), (0, 90, np.inf, 0.8 * 0.2),
        (1, -np.inf, 0, 0.9), (1, 0, np.inf, 0.2),
    ]  # fmt: skip
    assert [one[:3] for one in seen] == [one[:3] for one in expected]
    assert [one[3] for one in seen] == pytest.approx([one[3] for one in expected])


def test_the_corrected_share_is_right_and_the_called_one_is_not(tmp_path: Path) -> None:
    """300 patients, a fifth with a lesion before; of the others 1 in 3 gets one in 500 days; calls err 1 in 10."""
    rng, studies = np.random.default_rng(3), []
    for n in range(300):
        onset = -1 if rng.random() < 0.2 else rng.exponential(1233)
        days = np.cumsum([0, *rng.integers(60, 240, 4)]).tolist()
        calls = ["L1=lytic" if (rng.random() < 0.9) == (onset <= day) else "L1" for day in days]
        studies += _seen(f"p{n}", *zip(days, calls, strict=True))
    table = survival(open_cohort(write_results(str(tmp_path), studies)), [500], errors=ERRORS).set_index("estimate")
    assert table.loc["kaplan_meier", "free"] < 0.64
    assert table.loc["kaplan_meier", "ci_high"] < 0.7
    assert table.loc["turnbull_corrected", "free"] == pytest.approx(2 / 3, abs=0.08)
    assert table.loc["turnbull_corrected", "ci_low"] < 2 / 3 < table.loc["turnbull_corrected", "ci_high"]
    assert 20 < table.loc["turnbull", "n_by_error"] < 150
