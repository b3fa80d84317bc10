"""The screening job on a real local Ray cluster, with the archive and the results on an S3 server over HTTP."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import boto3
import obstore
import pytest

from spinemet.archive.listing import list_studies
from spinemet.dicom.pseudonym import Pseudonymizer
from spinemet.errors import BadInput, Reason
from spinemet.files import join, open_store
from spinemet.on_ray.cluster import connect
from spinemet.on_ray.screen import run_screen
from spinemet.reading import State
from spinemet.results.tables import Results
from spinemet.screening.plan import ScreenOptions
from tests.on_ray.places import KEY, rows_alone, write_place
from tests.screening.places import rows_in

pytestmark = pytest.mark.job


@pytest.fixture(scope="module")
def place(s3_server: str) -> Iterator[str]:
    """`archive/` with a phantom patient, the phantom's unusable studies and a broken zip; `model/`; and a cluster."""
    import ray

    boto3.client("s3", endpoint_url=s3_server).create_bucket(Bucket="screening")
    uri = "s3://screening"
    write_place(uri, patients=1)
    obstore.put(open_store(uri), "archive/PH-9999/broken.zip", b"PK\3\4 and nothing that a zip needs")
    connect()  # after the S3 server: workers inherit the environment that Ray was started in
    yield uri
    ray.shutdown()


@pytest.fixture(scope="module")
def first(place: str) -> ScreenOptions:
    """The options of a run that has been done once."""
    options = ScreenOptions(join(place, "archive"), join(place, "results"), join(place, "model"), KEY, slices=True)
    run_screen(options)
    return options


def test_the_ledger_accounts_for_every_study_of_the_archive(first: ScreenOptions) -> None:
    names = Pseudonymizer(KEY, first.dates)
    refs = list(list_studies(first.archive))
    ledger = rows_in(first.results)["studies"]
    assert sorted(row["source_key"] for row in ledger) == sorted(names.source_key(r.archive, r.key) for r in refs)
    states = Counter(row["state"] for row in ledger)
    assert states[State.SCREENED] == len(refs) - 4  # three studies of the phantom are unusable, and the zip is broken
    reasons = {row["reason"] for row in ledger if row["state"] == State.FAILED}
    assert {Reason.BROKEN_ARCHIVE, Reason.NOT_DICOM} <= reasons
    run = Results(first.results).last_run()
    assert run is not None
    assert (run["state"], run["listed"], run["planned"]) == ("done", len(refs), len(refs))
    assert [run[state] for state in map(str, State)] == [states[state] for state in State]


def test_rows_are_those_of_reading_the_study_without_ray(first: ScreenOptions) -> None:
    by_ray = rows_in(first.results)
    for name, rows in rows_alone(first.archive, first.model).items():
        assert rows, name
        assert by_ray[name] == rows, name


def test_too_many_workers_are_refused(first: ScreenOptions, tmp_path: Path) -> None:
    greedy = ScreenOptions(first.archive, str(tmp_path), first.model, KEY, workers=99)
    with pytest.raises(BadInput, match="expected a cluster with at least 99 CPUs"):
        run_screen(greedy)
