import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from spinemet.dicom.pseudonym import Pseudonymizer
from spinemet.errors import BadInput, Reason
from spinemet.screening.plan import (
    Plan,
    check_apart,
    check_continues,
    first_checked,
    key_id,
    plan_studies,
)
from spinemet.storage.tables import open_results
from spinemet.types import Layout, ObjectRef, StudyRef
from tests.storage.test_tables import study_row

NAMES = Pseudonymizer(b"0123456789abcdef", "year")
REFS = [StudyRef("/archive", f"study-{n}", Layout.ZIP, ()) for n in range(5)]


def key(n: int) -> str:
    return NAMES.source_key("/archive", f"study-{n}")


def test_the_plan_is_the_archive_minus_the_ledger_of_this_model_and_configuration(tmp_path: Path) -> None:
    results = open_results(str(tmp_path), create=True)
    rows = [study_row(key(0)), study_row(key(1), Reason.CRASHED), study_row(key(2), Reason.UNREACHABLE)]
    rows.append({**study_row(key(3)), "model_digest": "c" * 12})
    results.commit_wave("run-1-1", {"studies": rows[:3]})
    results.commit_wave("run-1-2", {"studies": rows[3:]})
    plan = plan_studies(REFS, results, NAMES, "a" * 12, "b" * 12)
    assert [ref.key for ref in plan] == ["study-2", "study-3", "study-4"]
    assert plan.retried == {key(2)}
    assert (plan.listed, plan.planned) == (5, 3)
    other = plan_studies(REFS, results, NAMES, "a" * 12, "d" * 12)
    assert len(list(other)) == 5


def test_a_limit_counts_new_studies_only_and_stops_the_listing() -> None:
    def endless() -> Iterator[StudyRef]:
        n = 0
        while True:
            yield StudyRef("/archive", f"study-{n}", Layout.ZIP, ())
            n += 1

    plan = Plan(endless(), NAMES, done={key(0), key(1)}, limit=2)
    assert [ref.key for ref in plan] == ["study-2", "study-3"]
    assert plan.planned == 2


def test_an_archive_that_cannot_be_listed_is_told_before_any_work() -> None:
    def broken() -> Iterator[StudyRef]:
        raise BadInput("expected studies, found none.")
        yield REFS[0]

    with pytest.raises(BadInput, match="found none"):
        first_checked(broken())
    assert list(first_checked(iter(REFS))) == REFS


def test_results_inside_the_archive_are_refused() -> None:
    for archive, results in (("s3://b/ct", "s3://b/ct/results"), ("/data/ct/", "/data/ct"), ("s3://b", "s3://b/r")):
        with pytest.raises(BadInput, match="outside the archive"):
            check_apart(archive, results)
    check_apart("s3://b/ct", "s3://b/ct-results")
    check_apart("/data/ct", "/data/results")


def test_results_continue_only_under_their_own_key_and_dates() -> None:
    last = {"pseudonym_key_id": key_id(NAMES), "date_policy": "year"}
    check_continues(None, NAMES, "exact")
    check_continues(last, NAMES, "year")
    with pytest.raises(BadInput, match="date policy"):
        check_continues(last, NAMES, "exact")
    with pytest.raises(BadInput, match="pseudonym key"):
        check_continues(last, Pseudonymizer(b"another key of 16", "year"), "year")


def test_a_study_that_is_still_being_written_waits(tmp_path: Path) -> None:
    now = time.time()

    def ref(name: str, *ages_s: float, settled: bool = True) -> StudyRef:
        objects = tuple(ObjectRef(f"{name}/{n}", 1, now - age) for n, age in enumerate(ages_s))
        return StudyRef("/archive", name, Layout.PREFIX, objects, settled)

    refs = [ref("old", 9000, 8000), ref("growing", 9000, 60), ref("ahead", -60), ref("misdated", -9000)]
    refs.append(ref("not told apart", 9000, settled=False))
    results = open_results(str(tmp_path), create=True)
    plan = plan_studies(refs, results, NAMES, "a" * 12, "b" * 12, quiet_s=1800)
    assert [each.key for each in plan] == ["old", "misdated"]
    assert (plan.listed, plan.planned, plan.waiting) == (5, 2, 3)
    later = plan_studies(refs, results, NAMES, "a" * 12, "b" * 12)
    assert [each.key for each in later] == ["old", "growing", "ahead", "misdated"]
