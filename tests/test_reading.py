from __future__ import annotations

from dataclasses import fields

from spinemet.errors import Reason
from spinemet.reading import NotScreened, State, VertebraCall
from tests.readings import READING


def test_a_call_names_its_most_probable_class() -> None:
    call = VertebraCall({"blastic": {"no": 0.2, "yes": 0.8}})
    assert call.label("blastic") == "yes"


def test_a_study_that_fails_later_keeps_every_fact_of_its_reading() -> None:
    failed = READING.failed(Reason.INTERNAL, "unexpected error in the model.")
    assert (failed.state, failed.reason, failed.detail) == (
        State.FAILED,
        Reason.INTERNAL,
        "unexpected error in the model.",
    )
    facts = {field.name for field in fields(NotScreened)} - {"state", "reason", "detail"}
    assert {name: getattr(failed, name) for name in facts} == {name: getattr(READING, name) for name in facts}
