"""The object store fails during a reading, a listing and a night; over HTTP, with the retries of the jobs."""

from __future__ import annotations

import uuid
import zipfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import boto3
import obstore
import pytest

from spinemet import files
from spinemet.archive.listing import list_studies, study_at
from spinemet.config import SelectConfig, StudyConfig, config_digest
from spinemet.dicom.pseudonym import Pseudonymizer
from spinemet.errors import BadInput, Reason
from spinemet.model.marks import UNMARKED
from spinemet.reading import NotScreened, State
from spinemet.results.tables import Results, connect, open_results
from spinemet.screening.outcome import MadeWith, study_rows
from spinemet.screening.plan import plan_studies
from spinemet.study import read_study
from spinemet.types import StudyRef
from tests.dicom.writer import write_series
from tests.faults.proxy import Fault, Proxy, proxy_of

CONFIG = StudyConfig(select=SelectConfig(min_slices=3, min_coverage_mm=3.0))
NAMES = Pseudonymizer(b"a key for the tests only", "shifted")
SLICES = 4


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_series(tmp_path_factory.mktemp("series"), count=SLICES, shape=(64, 64))


@pytest.fixture
def proxy(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with proxy_of(s3_server) as one:
        monkeypatch.setenv("AWS_ENDPOINT_URL", one.endpoint)
        monkeypatch.setattr(files, "RETRIES", 3)
        monkeypatch.setattr(files, "READ_TIMEOUT", timedelta(seconds=1))
        yield one


@pytest.fixture
def archive(s3_bucket: str, proxy: Proxy, series: list[Path]) -> str:
    """Two studies of one series each."""
    store = files.open_store(s3_bucket)
    for study in ("A/1", "B/2"):
        for path in series:
            obstore.put(store, f"{study}/S/{path.name}", path.read_bytes())
    return s3_bucket


def read(ref: StudyRef) -> NotScreened:
    """The reading of a study of `archive`; none of them shows a spine."""
    reading = read_study(ref, CONFIG)
    assert isinstance(reading, NotScreened)
    return reading


@pytest.mark.parametrize("fault", Fault)
def test_a_short_fault_changes_nothing(fault: Fault, archive: str, proxy: Proxy) -> None:
    ref = next(iter(list_studies(archive)))
    healthy = read(ref)
    assert (healthy.state, healthy.reason, healthy.slice_count) == (State.EXCLUDED, Reason.NO_SPINE, SLICES)
    proxy.break_requests(fault, r"\.dcm", times=2)
    again = read(ref)
    assert proxy.times == 0
    assert (again.state, again.reason, again.slice_count) == (healthy.state, healthy.reason, healthy.slice_count)


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.SLOW])
def test_a_lasting_fault_makes_the_study_unreachable(fault: Fault, archive: str, proxy: Proxy) -> None:
    first, second = list_studies(archive)
    proxy.break_requests(fault, f"/{first.key}/S/", times=-1)
    lost = read(first)
    assert (lost.state, lost.reason) == (State.FAILED, Reason.UNREACHABLE)
    assert not any(part in lost.detail for part in (first.key, "dcm", proxy.endpoint))
    assert len(proxy.seen) > files.RETRIES
    assert read(second).reason is Reason.NO_SPINE


def test_an_unreachable_study_is_tried_again_the_next_night(archive: str, proxy: Proxy, tmp_path: Path) -> None:
    results = open_results(str(tmp_path / "results"), create=True)
    proxy.break_requests(Fault.UNAVAILABLE, "/A/1/", times=-1)
    assert night(archive, results) == [Reason.UNREACHABLE, Reason.NO_SPINE]
    assert night(archive, results) == [Reason.UNREACHABLE]
    proxy.mend()
    assert night(archive, results) == [Reason.NO_SPINE]
    assert night(archive, results) == []
    states = connect(results.uri).sql("SELECT state, count(*) FROM studies GROUP BY state").fetchall()
    assert states == [(State.EXCLUDED, 2)]


def test_a_study_that_arrives_in_two_parts_is_screened_again_when_complete(
    archive: str, series: list[Path], tmp_path: Path
) -> None:
    results, store = open_results(str(tmp_path / "results"), create=True), files.open_store(archive)
    late = [f"A/1/S/{path.name}" for path in series[2:]]
    obstore.delete(store, late)
    assert night(archive, results) == [Reason.TOO_FEW_SLICES, Reason.NO_SPINE]
    assert night(archive, results) == []
    for key, path in zip(late, series[2:], strict=True):
        obstore.put(store, key, path.read_bytes())
    assert night(archive, results) == [Reason.NO_SPINE]
    assert night(archive, results) == []
    reasons = connect(results.uri).sql("SELECT reason, count(*) FROM studies GROUP BY reason").fetchall()
    assert reasons == [(Reason.NO_SPINE, 2)]


def night(archive: str, results: Results) -> list[Reason]:
    """What a run does with plan and ledger, without its cluster; gives the reasons of the planned studies."""
    made_with = MadeWith("model", config_digest(CONFIG), "1", "run")
    plan = plan_studies(list_studies(archive), results, NAMES, "model", made_with.config_digest)
    reasons = []
    for study in plan:
        reading = read(study.ref)
        reasons.append(reading.reason)
        rows = study_rows(study.ref, reading, (), made_with, NAMES, UNMARKED)
        results.commit_wave(uuid.uuid4().hex, rows, replace=study.replaces)
    return reasons


def test_objects_that_vanish_or_appear_while_the_archive_is_listed(
    archive: str, proxy: Proxy, series: list[Path], s3_server: str
) -> None:
    client = boto3.client("s3", endpoint_url=s3_server)
    bucket = archive.removeprefix("s3://")
    studies = iter(list_studies(archive))
    first = next(studies)
    client.delete_object(Bucket=bucket, Key=first.objects[0].key)
    client.put_object(Bucket=bucket, Key="C/3/S/new.dcm", Body=series[0].read_bytes())
    assert read(first).reason is Reason.UNREACHABLE
    assert [ref.key for ref in studies][:1] == ["B/2"]
    # The next night takes the changed study and the new one.
    assert [(ref.key, len(ref.objects)) for ref in list_studies(archive)] == [
        ("A/1", SLICES - 1), ("B/2", SLICES), ("C/3", 1),
    ]  # fmt: skip


def test_a_listing_is_retried_and_fails_as_a_sentence(archive: str, proxy: Proxy) -> None:
    proxy.break_requests(Fault.UNAVAILABLE, "list-type=2", times=2)
    assert len(list(list_studies(archive))) == 2
    proxy.break_requests(Fault.RESET, "list-type=2", times=-1)
    with pytest.raises(BadInput, match="cannot be listed"):
        list(list_studies(archive))


def test_a_zip_whose_transfer_is_cut_off_is_fetched_again(
    s3_bucket: str, proxy: Proxy, series: list[Path], tmp_path: Path
) -> None:
    packed = tmp_path / "study.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for path in series:
            archive.write(path, path.name)
    obstore.put(files.open_store(s3_bucket), "study.zip", packed.read_bytes())
    proxy.break_requests(Fault.TRUNCATED, r"\.zip", times=1)
    assert read(study_at(f"{s3_bucket}/study.zip")).reason is Reason.NO_SPINE
    proxy.break_requests(Fault.TRUNCATED, r"\.zip", times=-1)
    assert read(next(iter(list_studies(s3_bucket)))).reason is Reason.UNREACHABLE
