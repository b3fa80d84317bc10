from __future__ import annotations

import pickle

import pytest

from spinemet.errors import Reason, StudyExcluded, StudyFailed, StudyProblem


@pytest.mark.parametrize("kind", [StudyExcluded, StudyFailed])
def test_a_problem_keeps_its_reason_across_processes(kind: type[StudyProblem]) -> None:
    back = pickle.loads(pickle.dumps(kind(Reason.TRUNCATED, "expected 10 bytes, found 3.")))
    assert type(back) is kind
    assert (back.reason, str(back)) == (Reason.TRUNCATED, "expected 10 bytes, found 3.")
