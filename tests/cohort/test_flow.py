from pathlib import Path

from spinemet.cohort.flow import study_flow
from spinemet.cohort.views import open_cohort
from spinemet.errors import Reason
from tests.cohort.cases import Study, write_results


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
    flow = study_flow(open_cohort(write_results(str(tmp_path), studies)))
    assert (flow.waiting, flow.seen, flow.duplicates) == (2, 6, 1)
    assert dict(flow.excluded) == {Reason.NO_SPINE: 2, Reason.NOT_AXIAL: 1}
    assert dict(flow.failed) == {Reason.TRUNCATED: 1}
    assert flow.seen == flow.screened + sum(flow.excluded.values()) + sum(flow.failed.values())
    assert (flow.imaged, flow.cut, flow.unclassified, flow.evaluable) == (5, 1, 1, 3)
    assert (flow.positive, flow.positive_patients, flow.patients) == (2, 2, 2)


def test_every_reason_has_words() -> None:
    assert all(reason.meaning for reason in Reason)


def test_unsure_vertebrae_are_a_step_of_their_own(tmp_path: Path) -> None:
    flow = study_flow(open_cohort(write_results(str(tmp_path), [Study("p1", levels="T12=cut L1=lytic! L2=? L3")])))
    assert (flow.imaged, flow.cut, flow.unsure, flow.unclassified, flow.evaluable) == (4, 1, 1, 1, 1)
    assert flow.positive == 0
