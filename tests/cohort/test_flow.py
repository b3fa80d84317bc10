from collections import Counter
from datetime import date
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spinemet.cohort.flow import STEPS, Count, StudyFlow, study_flow
from spinemet.cohort.population import Population
from spinemet.cohort.views import open_cohort, records
from spinemet.errors import Reason
from spinemet.results.tables import open_results
from tests.cohort.cases import Study, write_results


def _flow(tmp_path: Path, studies: list[Study], population: Population | None = None) -> StudyFlow:
    return study_flow(open_cohort(write_results(str(tmp_path), studies), None, population))


def _out(flow: StudyFlow) -> dict[str, tuple[int, int, int]]:
    """What left, without the steps at which nothing did."""
    found = {step: (one.studies, one.patients, one.vertebrae) for step, one in flow.left.items()}
    return {step: counts for step, counts in found.items() if any(counts)}


def test_every_study_and_every_vertebra_is_accounted_for(tmp_path: Path) -> None:
    studies = [
        Study("p1", levels="T12=cut L1=lytic L2=?"),
        Study("p2", levels="L1 L2=mixed", name="twice"),
        Study("p2", levels="L1 L2=mixed", name="twice"),
        Study("p3", state="excluded", reason="no_spine"),
        Study("p4", state="excluded", reason="not_axial"),
        Study("p5", state="excluded", reason="no_spine"),
        Study("p6", state="failed", reason="truncated"),
    ]
    flow = _flow(tmp_path, studies)
    assert flow.start == Count(9, 6, 7), "the archive holds two more"
    assert _out(flow) == {
        "no_outcome": (2, 0, 0),
        "copy": (1, 0, 2),
        "excluded": (3, 3, 0),
        "failed": (1, 1, 0),
        "cut": (0, 0, 1),
        "unclassified": (0, 0, 1),
    }
    assert dict(flow.excluded) == {Reason.NO_SPINE: 2, Reason.NOT_AXIAL: 1}
    assert dict(flow.failed) == {Reason.TRUNCATED: 1}
    assert flow.after["unclassified"] == Count(2, 2, 3)
    assert flow.positive == Count(2, 2, 2)


def test_each_kind_of_exit_has_its_step(tmp_path: Path) -> None:
    studies = [
        Study("p1", date(2020, 1, 1), "L1=lytic L2"),  # L1 counts from the later study
        Study("p1", date(2021, 1, 1), "L1 ?1=lytic"),  # ?1 may be L2
        Study("p2", date(2021, 1, 1), "L1=lytic!"),
        Study("p3", date(2010, 1, 1), "L1"),
        Study("p4", date(2021, 1, 1), "L1", sex="M"),
        Study("p5", None, "L1 L2"),
        Study(None, date(2021, 1, 1), "L1"),
        Study("p6", date(2021, 1, 1), ""),
        Study("p7", date(2021, 1, 1), "L1=lytic", seen=True),
    ]
    flow = _flow(tmp_path, studies, Population(since=date(2020, 1, 1), where="sex = 'F'"))
    assert _out(flow) == {
        "no_outcome": (2, 0, 0),
        "no_patient_key": (1, 0, 1),
        "trained_on": (1, 1, 1),
        "no_date": (1, 1, 2),
        "outside_period": (1, 1, 1),
        "not_selected": (1, 1, 1),
        "no_vertebra": (1, 1, 0),
        "follow_up": (0, 0, 1),
        "unnamed": (0, 0, 1),
        "unsure": (1, 1, 1),
    }
    assert flow.after["unclassified"] == Count(2, 1, 2)
    assert flow.positive == Count(0, 0, 0)


def test_the_table_has_one_row_per_step_and_adds_up(tmp_path: Path) -> None:
    table = _flow(tmp_path, [Study("p1", levels="L1 L2=cut"), Study("p1", levels="L1")]).table()
    assert table["step"].tolist() == ["in the archive", *STEPS.values()]
    for name in ("studies", "patients", "vertebrae"):
        assert (table[name].shift(1).dropna() == (table[name] + table[f"{name}_out"])[1:]).all()


@pytest.mark.parametrize(
    ("change", "waiting", "whole"),
    [
        ({}, 2, True),
        ({"study_limit": 20}, 0, False),
        ({"chosen": True}, 0, False),
        ({"state": "stopped"}, 0, False),
        ({"listed": None}, 0, False),
    ],
)
def test_only_a_listing_of_the_whole_archive_tells_what_waits(
    tmp_path: Path, change: dict[str, object], waiting: int, whole: bool
) -> None:
    place = open_results(write_results(str(tmp_path), [Study("p1", levels="L1")]))
    place.write_run(place.runs()[0] | change)
    flow = study_flow(open_cohort(place.uri))
    assert (flow.left["no_outcome"].studies, flow.listed_whole) == (waiting, whole)


def test_a_later_limited_run_keeps_the_size_of_the_archive(tmp_path: Path) -> None:
    place = open_results(write_results(str(tmp_path), [Study("p1", levels="L1")]))
    run = place.runs()[0]
    later = {"run_id": "later", "study_limit": 1, "listed": 1, "started_at": run["finished_at"]}
    place.write_run(run | {"listed": 69})
    place.write_run(run | later)
    assert study_flow(open_cohort(place.uri)).start.studies == 69


def test_a_patient_of_whom_only_a_copy_is_left_leaves_with_it(tmp_path: Path) -> None:
    flow = _flow(tmp_path, [Study("p1", levels="L1 L2", name="one"), Study("p2", levels="L1", name="one")])
    assert (flow.start.patients, flow.left["copy"]) == (2, Count(1, 1, 1))


def test_every_reason_has_words() -> None:
    assert all(reason.meaning for reason in Reason)


PARTS = st.sampled_from(["L1", "L2=lytic", "L3=cut", "L4=?", "L5=blastic!", "?1", "?2=lytic", "?3=cut"])
STUDIES = st.lists(
    st.builds(
        Study,
        patient=st.sampled_from(["p1", "p2", "p3", None]),
        when=st.sampled_from([date(2019, 5, 1), date(2020, 5, 1), date(2020, 5, 1), None]),
        levels=st.lists(PARTS, unique=True, max_size=5).map(" ".join),
        name=st.sampled_from(["", "", "one", "two"]),
        sex=st.sampled_from(["F", "M", None]),
        seen=st.sampled_from([False, False, None, True]),
    ),
    min_size=1,
    max_size=6,
)


@given(
    studies=STUDIES, population=st.sampled_from([Population(), Population(since=date(2020, 1, 1), where="sex = 'F'")])
)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_box_is_the_next_one_plus_its_exits(
    tmp_path_factory: pytest.TempPathFactory, studies: list[Study], population: Population
) -> None:
    cohort = open_cohort(write_results(str(tmp_path_factory.mktemp("flow")), studies), None, population)
    flow = study_flow(cohort)
    rest = flow.start
    for step in STEPS:
        assert rest - flow.left[step] == flow.after[step]
        rest = flow.after[step]
        assert min(vars(rest).values()) >= 0
    # The boxes counted again, without the steps: from the views that answers use, and from the studies as written.
    assert flow.start.vertebrae == sum(len(study.levels.split()) for study in studies)
    assert flow.start.studies == len(studies) + 2
    assert flow.start.patients == len({study.patient for study in studies} - {None})
    for step, view, only in (
        ("not_selected", "current_vertebrae", ""),
        ("unnamed", "imaged", ""),
        ("unclassified", "evaluable", ""),
    ):
        query = f"select distinct source_key, patient, vertebra from {view} {only}"
        rows = pd.DataFrame(records(cohort, query), columns=["source_key", "patient", "vertebra"])
        expected = Count(rows["source_key"].nunique(), rows["patient"].nunique(), len(rows))
        if step == "not_selected":  # studies without a vertebra leave at the next step
            assert flow.after["no_vertebra"] == expected
            assert flow.after[step].vertebrae == expected.vertebrae
        else:
            assert flow.after[step] == expected
    left = Counter(row["left_as"] for row in records(cohort, "select left_as from accounted"))
    for step in ("copy", "no_patient_key", "trained_on", "no_date", "outside_period", "not_selected"):
        assert flow.left[step].studies == left[step]
