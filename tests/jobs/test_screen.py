"""The screening job's arguments, messages and exit codes, on an S3 server over HTTP and without Ray."""

from __future__ import annotations

from pathlib import Path

import boto3
import pytest

from jobs.screen import main
from spinemet.dicom.pseudonym import KEY_VARIABLE
from spinemet.files import exists, join
from spinemet.results.lease import LEASE, hold_lease
from spinemet.screening.night import run_night
from spinemet.screening.plan import ScreenOptions
from tests.screening.nights import KEY, answers, rows, runs
from tests.screening.places import STUDIES, write_stub_place

PLACE = "s3://screening-job"


@pytest.fixture(scope="module")
def first(s3_server: str) -> ScreenOptions:
    """The options of a night that was done, on S3."""
    boto3.client("s3", endpoint_url=s3_server).create_bucket(Bucket=PLACE.removeprefix("s3://"))
    write_stub_place(PLACE)
    options = ScreenOptions(*(join(PLACE, name) for name in ("archive", "results", "model")), KEY, slices=True)
    run_night(options, answers)
    return options


@pytest.fixture(autouse=True)
def _without_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY.decode())
    monkeypatch.setattr("spinemet.on_ray.screen.connect", lambda: pytest.fail("this needs no cluster"))


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(
    first: ScreenOptions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--archive", first.archive, "--model", first.model, "--dry-run", "--results"]
    for results, more, planned in (
        (first.results, [], 0),
        (first.results, ["--rescreen", "all"], STUDIES),
        (str(tmp_path / "none"), [], STUDIES),
    ):
        before = rows(first)
        assert main([*given, results, *more]) == 0
        assert f"{STUDIES} studies listed, {planned} to be screened" in capsys.readouterr().out
        assert rows(first) == before
    assert list(tmp_path.iterdir()) == []


def test_a_night_without_new_studies_needs_no_cluster(first: ScreenOptions, tmp_path: Path) -> None:
    summary = tmp_path / "summary.json"
    given = ["--archive", first.archive, "--results", first.results, "--model", first.model]
    before = len(runs(first))
    assert main([*given, "--summary", str(summary)]) == 0
    assert '"planned": 0' in summary.read_text()
    assert len(runs(first)) == before + 1


BAD = {
    "--archive": (f"{PLACE}/nothing", "no study was found"),
    "--model": (f"{PLACE}/archive", "expected a model"),
    "--results": (f"{PLACE}/archive/results", "outside the archive"),
    "--limit": ("0", "limit of at least 1"),
    "--config": ("nowhere.toml", "configuration file"),
    "--dates": ("exact", "date policy"),
    "--linkage": (f"{PLACE}/results/linkage", "apart from the results"),
}


@pytest.mark.parametrize("argument", BAD)
def test_bad_input_is_one_sentence_and_exit_code_2(
    argument: str, first: ScreenOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    value, sentence = BAD[argument]
    given = {"--archive": first.archive, "--results": first.results, "--model": first.model} | {argument: value}
    before = rows(first)
    assert main([word for pair in given.items() for word in pair]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("screen: ")]
    assert len(said) == 1
    assert sentence in said[0]
    assert rows(first) == before
    assert not exists(f"{PLACE}/archive/results/studies/_delta_log/00000000000000000000.json")


def test_a_run_beside_another_leaves_and_changes_nothing(
    first: ScreenOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    before = runs(first)
    with hold_lease(first.results, "20260101T200000-abcdef"):
        assert main(["--archive", first.archive, "--results", first.results, "--model", first.model]) == 2
        assert "Another run is writing these results: 20260101T200000-abcdef on " in capsys.readouterr().err
    assert runs(first) == before
    assert not exists(join(first.results, LEASE))
