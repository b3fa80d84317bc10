"""The screening job on a real local Ray cluster, with the archive and the results on an S3 server over HTTP."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import obstore
import pytest

from jobs.screen import main
from spinemet.archive.listing import list_studies
from spinemet.dicom.pseudonym import KEY_VARIABLE, Pseudonymizer
from spinemet.errors import BadInput, JobFailed, Reason
from spinemet.files import exists, join, open_store
from spinemet.on_ray import screen
from spinemet.on_ray.cluster import connect, model_pool
from spinemet.on_ray.screen import ScreenOptions, classify, run_screen
from spinemet.results import tables
from spinemet.results.lease import LEASE, hold_lease
from spinemet.results.tables import Results
from spinemet.screening.drift import MIN_RUNS
from spinemet.screening.wave import Answer
from spinemet.types import NotScreened, SliceStack, State, VertebraCall
from tests.on_ray.places import KEY, rows_alone, rows_in, write_place
from tests.screening.readings import CALLS, LEVELS, REF, SERIES, reading, stack

pytestmark = pytest.mark.job


@pytest.fixture(scope="module")
def place(s3_server: str) -> Iterator[str]:
    """`archive/` with a phantom patient, the phantom's unusable studies and a broken zip; `model/`; and a cluster."""
    import ray

    boto3.client("s3", endpoint_url=s3_server).create_bucket(Bucket="screening")
    uri = "s3://screening"
    write_place(uri, patients=1)
    obstore.put(open_store(uri), "archive/PH-9999/broken.zip", b"PK\3\4 and nothing that a zip needs")
    connect()  # workers have the environment that Ray was started in: the S3 server has to be there before
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
    assert states[State.SCREENED] == len(refs) - 4  # three studies of the phantom cannot be used, and the broken zip
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


def test_a_second_run_does_nothing(first: ScreenOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    before = rows_in(first.results)
    monkeypatch.setattr(screen, "connect", lambda: pytest.fail("nothing to do needs no cluster"))
    run = run_screen(first)
    assert (run.planned, run.studies, run.waves) == (0, 0, 0)
    assert rows_in(first.results) == before
    counts = tables.connect(first.results).sql("SELECT count(*), count(DISTINCT run_id) FROM runs").fetchall()
    assert counts == [(2, 2)]


def test_a_run_that_dies_between_two_commits_is_taken_up_without_loss_or_double(
    first: ScreenOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ScreenOptions(first.archive, str(tmp_path / "results"), first.model, KEY, slices=True, workers=2)
    monkeypatch.setattr(screen, "WAVE", 2)
    write, ledger_writes = Results._write, []

    def dying(self: Results, name: str, rows: Any, replaced: str | None) -> None:
        if name == tables.LEDGER:
            ledger_writes.append(rows)
            if len(ledger_writes) == 2:
                raise OSError("the store went away")
        write(self, name, rows, replaced)

    monkeypatch.setattr(Results, "_write", dying)
    with pytest.raises(
        JobFailed, match="expected to read and write the stores until the end, found: the store went away"
    ):
        run_screen(options)
    assert len(rows_in(options.results)["studies"]) == 2
    last = Results(options.results).last_run()
    assert last is not None
    assert (last["state"], sum(last[state] for state in map(str, State))) == ("failed", 2)
    monkeypatch.setattr(Results, "_write", write)
    for night in range(MIN_RUNS):  # in which nothing failed; tonight something does
        usual = {"state": "done", "screened": 9999, "excluded": 1, "failed": 0, "run_id": f"usual-{night}"}
        Results(options.results).write_run(last | usual)
    run = run_screen(options)
    assert "failed" in [signal.name for signal in run.signals]
    last = Results(options.results).last_run()
    assert last is not None
    assert str(run.signals[0]) in last["drift"]
    assert rows_in(options.results) == rows_in(first.results)


def test_a_run_that_reaches_its_hour_stops_in_order(first: ScreenOptions, tmp_path: Path) -> None:
    options = ScreenOptions(first.archive, str(tmp_path / "results"), first.model, KEY, max_hours=1e-9)
    run = run_screen(options)
    assert run.stopped == "deadline"
    last = Results(options.results).last_run()
    assert last is not None
    assert (last["state"], sum(last[state] for state in map(str, State))) == ("stopped", run.studies)
    assert len(rows_in(options.results)["studies"]) == run.studies < run.planned


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(
    first: ScreenOptions, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY.decode())
    monkeypatch.setattr(screen, "connect", lambda: pytest.fail("a plan needs no cluster"))
    everything = len(list(list_studies(first.archive)))
    given = ["--archive", first.archive, "--model", first.model, "--dry-run", "--results"]
    for results, more, planned in (
        (first.results, [], 0),
        (first.results, ["--rescreen", "all"], everything),
        (str(tmp_path / "none"), [], everything),
    ):
        before = rows_in(first.results)
        assert main([*given, results, *more]) == 0
        assert f"{everything} studies listed, {planned} to be screened" in capsys.readouterr().out
        assert rows_in(first.results) == before
    assert list(tmp_path.iterdir()) == []


BAD = {
    "--archive": ("s3://screening/nothing", "studies below"),
    "--model": ("s3://screening/archive", "expected a model"),
    "--results": ("s3://screening/archive/results", "outside the archive"),
    "--limit": ("0", "limit of at least 1"),
    "--config": ("nowhere.toml", "configuration file"),
    "--dates": ("exact", "date policy"),
    "--linkage": ("s3://screening/results/linkage", "apart from the results"),
}


@pytest.mark.parametrize("argument", BAD)
def test_bad_input_is_one_sentence_and_exit_code_2(
    argument: str, first: ScreenOptions, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY.decode())
    value, sentence = BAD[argument]
    given = {"--archive": first.archive, "--results": first.results, "--model": first.model} | {argument: value}
    before = rows_in(first.results)
    assert main([word for pair in given.items() for word in pair]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("screen: ")]
    assert len(said) == 1
    assert sentence in said[0]
    assert rows_in(first.results) == before
    assert not exists("s3://screening/archive/results/studies/_delta_log/00000000000000000000.json")


def test_a_run_beside_another_leaves_and_changes_nothing(
    first: ScreenOptions, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY.decode())
    count = "SELECT count(*) FROM runs"
    before = tables.connect(first.results).sql(count).fetchall()
    with hold_lease(first.results, "20260101T200000-abcdef"):
        assert main(["--archive", first.archive, "--results", first.results, "--model", first.model]) == 2
        assert "found 20260101T200000-abcdef on " in capsys.readouterr().err
    assert tables.connect(first.results).sql(count).fetchall() == before
    assert not exists(join(first.results, LEASE))


def test_another_pseudonym_key_and_too_many_workers_are_refused(first: ScreenOptions, tmp_path: Path) -> None:
    other = ScreenOptions(first.archive, first.results, first.model, b"another key, as long")
    with pytest.raises(BadInput, match="pseudonym key"):
        run_screen(other)
    greedy = ScreenOptions(first.archive, str(tmp_path), first.model, KEY, workers=99)
    with pytest.raises(BadInput, match="expected a cluster with more than 99 CPUs"):
        run_screen(greedy)


@pytest.mark.parametrize(
    ("cpus", "gpus", "workers", "expected"),
    [
        (4, 0, None, (2, {"num_cpus": 1})),
        (32, 0, None, (16, {"num_cpus": 1})),
        (8, 0, 2, (2, {"num_cpus": 1})),
        (2, 0, None, (1, {"num_cpus": 1})),
        (8, 2, None, (2, {"num_cpus": 0, "num_gpus": 1})),
        (8, 2, 4, (4, {"num_cpus": 0, "num_gpus": 0.5})),
        (8, 2, 1, (1, {"num_cpus": 0, "num_gpus": 1})),
    ],
)
def test_model_actors_leave_cpus_to_read_with(
    cpus: int, gpus: int, workers: int | None, expected: tuple[int, dict[str, float]]
) -> None:
    count, resources = model_pool(cpus, gpus, workers)
    assert (count, {name: value for name, value in resources.items() if name != "memory"}) == expected


@pytest.mark.parametrize(("cpus", "workers"), [(1, None), (4, 4), (0, None)])
def test_a_cluster_that_could_only_wait_is_refused(cpus: int, workers: int | None) -> None:
    with pytest.raises(BadInput, match="expected a cluster with more than"):
        model_pool(cpus, 0, workers)


def predict(stacks: list[SliceStack]) -> list[VertebraCall]:
    """A stand-in for a model; it breaks on a stack of zeros."""
    if any(not np.any(each.hu_NHW) for each in stacks):
        raise RuntimeError("a patient's name")
    return [CALLS[LEVELS.index(each.level)] for each in stacks]


def test_a_study_that_breaks_the_model_fails_alone_and_keeps_what_was_read() -> None:
    zeros = SliceStack("T12", np.zeros((2, 8, 8), np.int16), np.zeros(2, np.float32), 1.0)
    poison = reading(stacks=(zeros, *reading().stacks[1:]))
    first, second, third = classify([Answer(REF, reading()), Answer(REF, poison), Answer(REF, reading())], predict)
    assert [answer.calls for answer in (first, third)] == [CALLS, CALLS]
    assert second.reading.state is State.FAILED
    assert second.reading.reason is Reason.INTERNAL
    assert (second.reading.chosen, second.reading.localizer) == (SERIES, "geometric")
    assert "patient" not in second.reading.detail
    assert second.calls == ()


def test_vertebrae_without_slices_and_studies_without_vertebrae_skip_the_model() -> None:
    gap = reading(stacks=(stack("T11", 0), *reading().stacks[1:]))
    failed = NotScreened(State.FAILED, Reason.TRUNCATED)
    with_gap, without = classify([Answer(REF, gap), Answer(REF, failed)], predict)
    assert with_gap.calls == (None, *CALLS[1:])
    assert without.calls == ()
    assert without.seconds_model is None
