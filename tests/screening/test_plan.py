"""Which studies a run screens, which wait, and which places and keys are refused."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from spinemet.dicom.pseudonym import Pseudonymizer
from spinemet.errors import BadInput, Reason
from spinemet.results.tables import connect, open_results
from spinemet.screening.plan import (
    Plan,
    PlanCounts,
    Rescreen,
    Selection,
    check_apart,
    check_continues,
    find_studies,
    first_checked,
    plan_studies,
)
from spinemet.types import ObjectRef, StudyRef
from tests.results.test_tables import study_row

NAMES = Pseudonymizer(b"0123456789abcdef", "year")
REFS = [StudyRef("/archive", f"study-{n}", "zip", ()) for n in range(5)]


def key(n: int) -> str:
    return NAMES.source_key("/archive", f"study-{n}")


def keys(plan: Plan) -> list[str]:
    return [study.ref.key for study in plan]


def replaced(plan: Plan) -> dict[str, bool]:
    """Key -> whether the study's new rows replace those of the ledger."""
    return {study.ref.key: study.replaces for study in plan}


def test_the_plan_is_the_archive_minus_the_ledger_of_this_model_and_configuration(tmp_path: Path) -> None:
    results = open_results(str(tmp_path), create=True)
    rows = [study_row(key(0)), study_row(key(1), Reason.CRASHED), study_row(key(2), Reason.UNREACHABLE)]
    rows.append({**study_row(key(3)), "model_digest": "c" * 12})
    results.commit_wave("run-1-1", {"studies": rows[:3]})
    results.commit_wave("run-1-2", {"studies": rows[3:]})
    plan = plan_studies(REFS, results, NAMES, "a" * 12, "b" * 12)
    assert replaced(plan) == {"study-2": True, "study-3": False, "study-4": False}
    assert (plan.counts.listed, plan.counts.planned) == (5, 3)
    other = plan_studies(REFS, results, NAMES, "a" * 12, "d" * 12)
    assert len(list(other)) == 5


def test_a_limit_counts_new_studies_only_and_stops_the_listing() -> None:
    def endless() -> Iterator[StudyRef]:
        n = 0
        while True:
            yield StudyRef("/archive", f"study-{n}", "zip", ())
            n += 1

    plan = Plan(endless(), NAMES, done={key(0): 9, key(1): 9}, selection=Selection(limit=2))
    assert keys(plan) == ["study-2", "study-3"]
    assert plan.counts.planned == 2


def test_studies_in_the_ledger_are_screened_again_only_on_request(tmp_path: Path) -> None:
    results = open_results(str(tmp_path), create=True)
    mine = [study_row(key(0)), study_row(key(1), Reason.CRASHED), study_row(key(2), Reason.UNREACHABLE)]
    others = [{**study_row(key(n)), "model_digest": "c" * 12} for n in (0, 3)]
    results.commit_wave("run-1-1", {"studies": mine})
    results.commit_wave("run-1-2", {"studies": others})

    def planned(rescreen: Rescreen | None) -> dict[str, bool]:
        plan = plan_studies(REFS, results, NAMES, "a" * 12, "b" * 12, Selection(rescreen=rescreen))
        return {name.removeprefix("study-"): replaces for name, replaces in replaced(plan).items()}

    assert planned(None) == {"2": True, "3": False, "4": False}
    assert planned("failed") == {"1": True, "2": True}
    assert planned("stale") == {"3": False}
    assert planned("all") == {"0": True, "1": True, "2": True, "3": False, "4": False}
    first = plan_studies(REFS, None, NAMES, "a" * 12, "b" * 12)
    assert len(list(first)) == 5


def sized(n: int, *sizes: int, written: float = 0.0) -> StudyRef:
    objects = tuple(ObjectRef(f"study-{n}/{m}", size, written) for m, size in enumerate(sizes))
    return StudyRef("/archive", f"study-{n}", "prefix", objects)


def test_a_study_that_has_grown_is_screened_again_and_replaced(tmp_path: Path) -> None:
    results = open_results(str(tmp_path), create=True)
    broken = study_row(key(2), Reason.TRUNCATED)
    results.commit_wave("run-1-1", {"studies": [study_row(key(0)), study_row(key(1)), broken]})  # of 9 bytes each
    grown = [sized(0, 9), sized(1, 9, 1), sized(2, 4, 4, 4), sized(3, 9)]
    plan = plan_studies(grown, results, NAMES, "a" * 12, "b" * 12)
    assert replaced(plan) == {"study-1": True, "study-2": True, "study-3": False}
    again = [{**study_row(key(n)), "size_bytes": grown[n].size} for n in (1, 2, 3)]
    results.commit_wave("run-2-1", {"studies": again}, replace=True)
    assert list(plan_studies(grown, results, NAMES, "a" * 12, "b" * 12)) == []
    assert list(plan_studies([sized(1, 9)], results, NAMES, "a" * 12, "b" * 12)) == []  # smaller than before


def test_studies_written_since_a_day_can_be_screened_again_if_their_objects_were_overwritten(
    tmp_path: Path,
) -> None:
    results = open_results(str(tmp_path), create=True)
    results.commit_wave("run-1-1", {"studies": [study_row(key(n)) for n in (0, 1)]})
    refs = [sized(0, 9, written=86400.0), sized(1, 9, written=2 * 86400.0), sized(2, 9, written=3 * 86400.0)]
    selection = Selection(since=2 * 86400.0, rescreen="all")
    plan = plan_studies(refs, results, NAMES, "a" * 12, "b" * 12, selection)
    assert replaced(plan) == {"study-1": True, "study-2": False}
    results.commit_wave("run-2-1", {"studies": [study_row(key(n)) for n in (1, 2)]}, replace=True)
    rows = connect(str(tmp_path)).sql("SELECT source_key, wave FROM studies").fetchall()
    assert sorted(rows) == sorted([(key(0), "run-1-1"), (key(1), "run-2-1"), (key(2), "run-2-1")])


def test_studies_dated_before_1970_are_planned_like_any_other() -> None:
    refs = [StudyRef("/archive", str(n), "zip", (ObjectRef(str(n), 5, n * 86400.0),)) for n in (-20000, -1, 0, 1)]
    assert keys(Plan(refs, NAMES, done={})) == ["-20000", "-1", "0", "1"]
    assert keys(Plan(refs, NAMES, done={}, selection=Selection(quiet_s=1800))) == ["-20000", "-1", "0", "1"]
    assert keys(Plan(refs, NAMES, done={}, selection=Selection(since=0.0))) == ["0", "1"]
    assert keys(Plan(refs, NAMES, done={}, selection=Selection(since=-86400.0))) == ["-1", "0", "1"]


def test_only_studies_written_since_a_day_are_planned() -> None:
    refs = [StudyRef("/archive", str(n), "zip", (ObjectRef(str(n), 5, n * 86400.0),)) for n in range(4)]
    plan = Plan(refs, NAMES, done={}, selection=Selection(since=2 * 86400.0))
    assert keys(plan) == ["2", "3"]
    assert plan.counts == PlanCounts(listed=4, planned=2, planned_bytes=10)


def test_single_studies_are_found_by_key_or_pseudonym_and_a_missing_one_is_reported() -> None:
    found = find_studies(REFS, NAMES, frozenset({"study-3", key(1)}))
    assert [ref.key for ref in found] == ["study-1", "study-3"]
    with pytest.raises(BadInput, match="expected 2 studies of the archive, found 1 of them") as error:
        find_studies(REFS, NAMES, frozenset({"study-3", "PATIENT^NAME"}))
    assert "PATIENT" not in str(error.value)


def test_an_archive_that_cannot_be_listed_is_reported_before_any_work() -> None:
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
    last = {"pseudonym_key_id": NAMES.key_id, "date_policy": "year"}
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
        return StudyRef("/archive", name, "prefix", objects, settled)

    refs = [ref("old", 9000, 8000), ref("growing", 9000, 60), ref("ahead", -60), ref("misdated", -9000)]
    refs.append(ref("several studies", 9000, settled=False))
    results = open_results(str(tmp_path), create=True)
    plan = plan_studies(refs, results, NAMES, "a" * 12, "b" * 12, Selection(quiet_s=1800))
    assert keys(plan) == ["old", "misdated"]
    assert plan.counts == PlanCounts(listed=5, planned=2, waiting=3, planned_bytes=3)
    later = plan_studies(refs, results, NAMES, "a" * 12, "b" * 12)
    assert keys(later) == ["old", "growing", "ahead", "misdated"]
