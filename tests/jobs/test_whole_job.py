"""The whole job on an S3 server over HTTP: phantom, prepare, train, evaluate, screen, ask, report."""

from __future__ import annotations

import importlib
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from spinemet.cohort.population import Population
from spinemet.cohort.prevalence import prevalence
from spinemet.cohort.views import open_cohort, run_sql
from spinemet.dicom.pseudonym import Pseudonymizer, load_key
from spinemet.files import exists, join, read_bytes
from spinemet.model.card import load_card
from spinemet.model.marks import load_marks
from spinemet.phantom.archive import ArchiveSummary, write_archive
from spinemet.report.html import write_report
from tests.screening.places import PROVENANCE_COLUMNS

pytestmark = [pytest.mark.job, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def bucket(s3_server: str) -> str:
    import boto3

    boto3.client("s3", endpoint_url=s3_server).create_bucket(Bucket="whole-job")
    return "s3://whole-job"


@pytest.fixture(scope="module")
def archive(bucket: str) -> ArchiveSummary:
    return write_archive(join(bucket, "phantom"), patients=4, seed=2, matrix=96)


@pytest.fixture(scope="module", autouse=True)
def key() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPINEMET_PSEUDONYM_KEY", "a key for tests, thirty-two long")
        yield


def run(job: str, **options: str) -> int:
    """jobs/JOB.py as `ray job submit` starts it, in this process."""
    arguments = [text for name, value in options.items() for text in (f"--{name}", value)]
    return importlib.import_module(f"jobs.{job}").main(arguments)


@pytest.fixture(scope="module")
def model(bucket: str, archive: ArchiveSummary) -> str:
    phantom, crops = join(bucket, "phantom"), join(bucket, "crops")
    labels = join(phantom, "labels.csv")
    assert run("prepare", archive=join(phantom, "archive"), labels=labels, out=crops, recipe="demo") == 0
    assert run("train", crops=crops, out=join(bucket, "runs"), name="one", recipe="demo", workers="1") == 0
    return join(bucket, "runs/one/model")


def test_the_model_is_measured_on_patients_it_never_saw(bucket: str, model: str) -> None:
    assert run("evaluate", model=model, crops=join(bucket, "crops"), out=join(bucket, "evaluation")) == 0
    card, names = load_card(model), Pseudonymizer(load_key(), "exact")
    measured = pd.read_parquet(_local(bucket, "evaluation/vertebrae.parquet"))
    marks = load_marks(model, card, names.key_id)
    part_of = {number: marks.part(names.patient_key(f"PH-{number:04d}")) for number in range(1, 5)}
    assert Counter(part_of.values()) == card.patients
    test = {names.patient_key(f"PH-{number:04d}") for number, part in part_of.items() if part == "test"}
    assert set(measured["patient"]) == set(measured["archive_patient"]) == test


def test_the_archive_screened_twice_has_identical_tables(
    bucket: str, model: str, archive: ArchiveSummary, tmp_path: Path
) -> None:
    studies = join(bucket, "phantom/archive")
    results, again = join(bucket, "results"), join(bucket, "again")
    assert run("screen", archive=studies, results=results, model=model) == 0
    before = {name: _rows(results, name) for name in ("studies", "vertebrae", "calls", "pictures")}
    assert len(before["studies"]) == archive.studies + archive.unusable
    assert before["studies"].groupby("state").size()["screened"] == archive.studies

    assert run("screen", archive=studies, results=results, model=model) == 0
    assert run("screen", archive=studies, results=again, model=model) == 0
    for name, rows in before.items():
        pd.testing.assert_frame_equal(_rows(results, name), rows)
        pd.testing.assert_frame_equal(
            _rows(again, name).drop(columns=list(PROVENANCE_COLUMNS), errors="ignore"),
            rows.drop(columns=list(PROVENANCE_COLUMNS), errors="ignore"),
        )

    known = run_sql(results, "select count(distinct patient_key) as n from studies where seen_in_training")["n"].sum()
    patients = load_card(model).patients
    assert known == patients["train"] + patients["validation"] > 0
    for which, expected in (("left out", archive.patients - known), ("counted", archive.patients)):
        cohort = open_cohort(results, population=Population(training_patients=which))
        asked = prevalence(cohort, ["sex"], unit="patient")
        assert asked[asked["finding"] == "any"]["n_imaged"].sum() == expected
    report = join(bucket, "report.html")
    write_report(results, report)
    assert exists(report)
    assert b"PH-000" not in read_bytes(report)


def _rows(results: str, name: str) -> pd.DataFrame:
    order = {"vertebrae": "source_key, vertebra", "calls": "source_key, vertebra, task, class_number"}
    return run_sql(results, f"select * from {name} order by {order.get(name, 'source_key')}")


def _local(bucket: str, name: str) -> Path:
    import tempfile

    path = Path(tempfile.mkdtemp()) / "table.parquet"
    path.write_bytes(read_bytes(join(bucket, name)))
    return path
