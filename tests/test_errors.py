from __future__ import annotations

import pickle

import pytest

from spinemet.errors import Reason, StudyExcluded, StudyFailed, StudyProblem, plain_cause


@pytest.mark.parametrize("kind", [StudyExcluded, StudyFailed])
def test_a_problem_keeps_its_reason_across_processes(kind: type[StudyProblem]) -> None:
    back = pickle.loads(pickle.dumps(kind(Reason.TRUNCATED, "expected 10 bytes, found 3.")))
    assert type(back) is kind
    assert (back.reason, str(back)) == (Reason.TRUNCATED, "expected 10 bytes, found 3.")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (IsADirectoryError, "it is a folder"),
        (FileExistsError, "a file of that name exists"),
        (FileNotFoundError, "it does not exist"),
        (PermissionError, "access is denied"),
        (ConnectionError, "no answer"),
        (OSError, "the access failed"),
    ],
)
def test_a_cause_is_in_plain_words(error: type[OSError], words: str) -> None:
    assert plain_cause(error("/secret")) == words
