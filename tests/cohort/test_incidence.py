from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from spinemet.cohort import follow_up
from spinemet.cohort.incidence import incidence
from spinemet.cohort.population import Population
from spinemet.cohort.views import open_cohort
from spinemet.errors import BadInput
from spinemet.results.tables import open_results
from spinemet.statistics.hidden_lesions import CallErrors
from spinemet.statistics.rates import rate_interval
from tests.cohort.cases import Study, write_results
from tests.statistics.followed import visits

ERRORS = CallErrors(0.9, 0.9, 200, 200)
START = date(2020, 1, 1)


def _day(days: int) -> date:
    return START + timedelta(days=days)


def _seen(patient: str, *calls: tuple[int, str], **more: Any) -> list[Study]:
    return [Study(patient, _day(days), levels, **more) for days, levels in calls]


def _cohort(tmp_path: Path, *studies: list[Study]) -> duckdb.DuckDBPyConnection:
    return open_cohort(write_results(str(tmp_path), [one for some in studies for one in some]))


SOME = [
    _seen("p1", (0, "L1 L2"), (100, "L1"), (250, "L1=lytic"), (400, "L1=lytic")),  # event on day 250
    _seen("p2", (0, "L1=lytic"), (300, "L1 L2")),  # never at risk
    _seen("p3", (0, "L1"), (50, "L1 L2"), sex="M"),  # 50 days
    _seen("p4", (0, "L1")),  # not followed
]


def test_events_and_time_at_risk(tmp_path: Path) -> None:
    row = incidence(_cohort(tmp_path, *SOME)).iloc[0]
    assert row[["n_patients", "n_events", "person_days", "n_newly_in_view"]].tolist() == [2, 1, 300, 0]
    assert row["person_years"] == pytest.approx(300 / 365.25)
    assert row["incidence"] == pytest.approx(1e5 / row["person_years"])
    assert (row["ci_low"], row["ci_high"]) == pytest.approx(tuple(map(float, rate_interval(1, row["person_years"]))))
    assert row["events"] == "called by the model, not corrected"


def test_two_studies_of_one_day_are_one_visit_and_a_cut_vertebra_none(tmp_path: Path) -> None:
    cohort = _cohort(
        tmp_path, _seen("p1", (0, "L1"), (0, "T1"), (40, "L1=cut"), (90, "L1"), (90, "T1=lytic"), (120, "L1"))
    )
    assert incidence(cohort).iloc[0][["n_events", "person_days"]].tolist() == [1, 90]


def test_an_event_at_a_level_never_seen_before_is_told(tmp_path: Path) -> None:
    cohort = _cohort(
        tmp_path,
        _seen("p1", (0, "C3"), (100, "C3 L1=lytic")),
        _seen("p2", (0, "C3 L1"), (100, "C3 L1=lytic")),
        _seen("p3", (0, "C3 L1"), (100, "?1=lytic")),
    )
    assert incidence(cohort).iloc[0][["n_events", "n_newly_in_view"]].tolist() == [3, 1]


def test_a_washout_lets_a_patient_back_and_only_a_study_without_a_lesion_does(tmp_path: Path) -> None:
    course = _seen(
        "p1", (0, "L1=lytic"), (100, "L1"), (200, "L1"), (230, "L1=lytic"), (500, "L1=lytic"), (600, "L1"),
        (700, "L1=lytic"),
    )  # fmt: skip
    cohort = _cohort(tmp_path, course)
    assert incidence(cohort).iloc[0]["n_patients"] == 0
    first = incidence(cohort, washout=150).iloc[0]
    assert first[["n_events", "person_days"]].tolist() == [1, 30]
    every = incidence(cohort, washout=100, repeated=True).iloc[0]
    assert every[["n_patients", "n_events", "person_days"]].tolist() == [1, 2, 100 + 30 + 100]
    with pytest.raises(BadInput, match="--washout DAYS"):
        incidence(cohort, repeated=True)


def test_groups_and_years_share_the_time_out_to_the_day(tmp_path: Path) -> None:
    cohort = _cohort(tmp_path, *SOME, _seen("p5", (300, "L1"), (800, "L1=lytic"), sex="M"))
    by_sex = incidence(cohort, ["sex"]).set_index("sex")
    assert by_sex.loc["F", ["n_events", "person_days"]].tolist() == [1, 250]
    assert by_sex.loc["M", ["n_events", "person_days"]].tolist() == [1, 550]
    by_year = incidence(cohort, ["year"]).set_index("year")
    # Day 365 is 31 December 2020, a leap year; p5 is seen from day 300 on.
    assert by_year["person_days"].to_dict() == {"2020": 300 + 65, "2021": 365, "2022": 70}
    assert by_year["n_events"].to_dict() == {"2020": 1, "2021": 0, "2022": 1}
    assert incidence(cohort, ["age_group", "sex"])["person_days"].sum() == 800


def test_nobody_at_risk_has_no_rate(tmp_path: Path) -> None:
    row = incidence(_cohort(tmp_path, SOME[1])).iloc[0]
    assert (row["n_events"], row["person_days"]) == (0, 0)
    assert np.isnan(row["incidence"])
    alone = _cohort(tmp_path / "b", SOME[3])
    assert len(incidence(alone, ["sex"])) == 0
    assert len(incidence(alone, ["sex"], errors=ERRORS)) == 0
    assert np.isnan(incidence(alone, errors=ERRORS).iloc[0]["corrected_low"])


def test_dates_decide_what_can_be_asked(tmp_path: Path) -> None:
    place = open_results(write_results(str(tmp_path), [one for some in SOME for one in some]))
    exact = incidence(open_cohort(place.uri)).iloc[0]
    place.write_run(place.runs()[0] | {"date_policy": "shifted"})
    shifted = open_cohort(place.uri)
    assert incidence(shifted).iloc[0]["person_days"] == exact["person_days"]
    with pytest.raises(BadInput, match="policy `shifted`"):
        incidence(shifted, ["year"])
    place.write_run(place.runs()[0] | {"date_policy": "year"})
    with pytest.raises(BadInput, match=r"time between two studies is not known.*--dates shifted"):
        incidence(open_cohort(place.uri))
    with pytest.raises(BadInput, match="sex, age_group, year"):
        incidence(shifted, ["scanner"])


def test_500_patients_come_out_as_counted_one_by_one(tmp_path: Path) -> None:
    day, came, onset = visits(patients=500)
    studies = [
        Study(f"p{n}", _day(int(day[n, k])), "L1=lytic" if onset[n] <= day[n, k] else "L1")
        for n in range(len(day))
        for k in np.flatnonzero(came[n])
    ]
    events = days = 0
    for n in range(len(day)):
        own = day[n][came[n]]
        ill = np.flatnonzero(onset[n] <= own)
        end = ill[0] if len(ill) else len(own) - 1
        events += bool(len(ill))
        days += own[end]
    row = incidence(open_cohort(write_results(str(tmp_path), studies))).iloc[0]
    assert row[["n_events", "person_days"]].tolist() == [events, days]
    assert row["incidence"] == pytest.approx(1e5 * events / (days / 365.25), rel=1e-9)


# ---- errors of the model ----------------------------------------------------------------------------------------


def test_calls_of_patients_who_never_change_are_all_by_error(tmp_path: Path) -> None:
    """600 patients free of lesions, called with a specificity of 0.9 at three visits."""
    rng = np.random.default_rng(1)
    studies = [
        _seen(f"p{n}", *((100 * k, "L1=lytic" if rng.random() < 0.1 else "L1") for k in range(3))) for n in range(600)
    ]
    row = incidence(_cohort(tmp_path, *studies), errors=ERRORS).iloc[0]
    assert row["n_events"] > 80
    assert row["n_by_error"] == pytest.approx(row["n_events"], rel=0.25)
    assert row["corrected"] < 0.1 * row["incidence"]
    assert row["events"] == "called by the model, corrected beside"


def test_true_events_are_found_behind_the_errors(tmp_path: Path) -> None:
    """A true rate of 4e-4 a day; as called it would be half as much again."""
    rng, studies = np.random.default_rng(2), []
    for n in range(600):
        onset, sex = (-1 if rng.random() < 0.2 else rng.exponential(2500)), "FM"[n % 2]
        for day in np.cumsum([0, *rng.integers(60, 200, 3)]):
            has = (rng.random() < 0.9) == (onset <= day)
            studies.append(Study(f"p{n}", _day(int(day)), "L1=lytic" if has else "L1", sex=sex))
    cohort, true = _cohort(tmp_path, studies), 4e-4 * 365.25 * 1e5
    row = incidence(cohort, errors=ERRORS).iloc[0]
    assert row["corrected_low"] < true < row["corrected_high"]
    assert row["incidence"] > 1.5 * true
    assert 0 < row["n_by_error"] < row["n_events"]
    for by, told in ((["sex"], 2), (["year"], 1)):  # little time of 2021 is left to tell its rate
        table = incidence(cohort, by, errors=ERRORS)
        assert table["n_by_error"].sum() == pytest.approx(row["n_by_error"])
        table = table.dropna()
        assert len(table) == told
        assert ((table["corrected_low"] < 1.2 * true) & (table["corrected_high"] > true / 1.2)).all()


def test_a_corrected_incidence_is_of_the_first_lesion(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="--uncorrected"):
        incidence(_cohort(tmp_path, *SOME), washout=90, errors=ERRORS)


def test_notes_count_who_is_followed_and_say_what_events_are(tmp_path: Path) -> None:
    cohort = _cohort(tmp_path, *SOME)
    incidence(cohort)
    first, last = follow_up.notes(cohort, None)
    assert first.startswith("3 patients have at least two visits, 1 of them with a lesion at the first; 1 have one")
    assert "called by the model, not corrected" in last
    assert "sensitivity of 0.900" in follow_up.notes(cohort, ERRORS)[1]


def test_only_studies_of_the_population_count(tmp_path: Path) -> None:
    place = write_results(str(tmp_path), SOME[0])
    early = open_cohort(place, None, Population(until=_day(200)))
    assert incidence(early).iloc[0][["n_events", "person_days"]].tolist() == [0, 100]
