"""How jobs find their cluster, divide its resources and report a worker's error."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import ray

from spinemet.dicom.pseudonym import KEY_VARIABLE, load_key
from spinemet.errors import BadInput, JobFailed
from spinemet.on_ray import cluster
from spinemet.on_ray.cluster import (
    MODEL_CPUS,
    READ_CPUS,
    START_ATTEMPTS,
    _without_line,
    check_temporary_folder,
    connect,
    grown,
    model_pool,
    own_error,
    parallel_tasks,
)


def test_ray_starts_without_the_pseudonym_key(monkeypatch: pytest.MonkeyPatch) -> None:
    there: list[bool] = []
    monkeypatch.setenv(KEY_VARIABLE, "the key of all tests")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **settings: there.append(KEY_VARIABLE in os.environ))
    connect()
    assert there == [False]
    assert load_key() == b"the key of all tests"


def test_a_slow_start_is_tried_again_and_another_error_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    errors: list[Exception] = []
    starts = 0

    def init(**settings: object) -> None:
        nonlocal starts
        starts += 1
        if errors:
            raise errors.pop(0)

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "init", init)
    errors[:] = [Exception("The current node timed out during startup.")]
    connect()
    assert starts == 2
    errors[:] = [RuntimeError("Timed out waiting for file")] * (START_ATTEMPTS + 1)
    with pytest.raises(JobFailed, match=f"did not start in time on this machine, {START_ATTEMPTS} times"):
        connect()
    errors[:] = [ValueError("wrong settings")]
    with pytest.raises(ValueError, match="wrong settings"):
        connect()


def test_a_temporary_folder_that_ray_cannot_use_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    is_mac = sys.platform == "darwin"  # where Ray ignores TMPDIR
    name = "RAY_TMPDIR" if is_mac else "TMPDIR"
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    most = (103 if is_mac else 107) - len(cluster.SOCKET)
    (long := tmp_path / ("x" * most)).mkdir()
    full = Path("/dev/full")  # a folder that is a file
    for place, cause in ((long, f"at most {most} characters"), (tmp_path / "none", "no such file"), (full, "director")):
        if place is not long and len(str(place)) > most:
            monkeypatch.setattr(cluster, "SOCKET", "")
        monkeypatch.setenv(name, str(place))
        with pytest.raises(BadInput, match=rf"{name}.*{cause}"):
            check_temporary_folder()
    monkeypatch.setenv(name, "/tmp")
    check_temporary_folder()
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "none"))  # Ray prefers it
    with pytest.raises(BadInput, match="RAY_TMPDIR"):
        check_temporary_folder()


def test_a_running_cluster_is_joined_and_not_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    joined: list[dict[str, object]] = []
    monkeypatch.setenv("RAY_ADDRESS", "192.0.2.1:6379")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **settings: joined.append(settings))
    connect()
    assert len(joined) == 1
    assert "num_cpus" not in joined[0]
    assert parallel_tasks() is None
    monkeypatch.delenv("RAY_ADDRESS")
    assert (parallel_tasks() or 0) >= 1


def test_only_a_joined_cluster_is_made_to_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    requested: list[object] = []
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 8.0, "GPU": 1.0} if requested else {})
    monkeypatch.setattr(ray.util, "placement_group", requested.extend)
    monkeypatch.setattr(ray.util, "remove_placement_group", requested.append)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert grown(2, 0) == (0, 0)
    assert requested == []
    monkeypatch.setenv("RAY_ADDRESS", "192.0.2.1:6379")
    assert grown(2, 1) == (8, 1)
    assert requested == [{"CPU": 1}, {"CPU": 1}, {"GPU": 1}, None]  # and releases the group
    monkeypatch.setattr(ray, "cluster_resources", dict)
    monkeypatch.setattr(cluster, "GROWTH_S", 0.01)
    assert grown(2, 0) == (0, 0)


def test_gpus_that_do_not_come_end_the_run_and_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 8.0, "GPU": 1.0})
    monkeypatch.setattr(ray.util, "placement_group", lambda bundles: None)
    monkeypatch.setattr(ray.util, "remove_placement_group", lambda group: None)
    monkeypatch.setattr(cluster, "GROWTH_S", 0.01)
    monkeypatch.setenv("RAY_ADDRESS", "192.0.2.1:6379")
    with pytest.raises(JobFailed, match=r"The cluster has 1 of 2 GPUs after .* start GPU nodes"):
        grown(1, 2)
    monkeypatch.delenv("RAY_ADDRESS")
    with pytest.raises(BadInput, match="expected a machine with 2 GPUs, as --gpus says, found 1"):
        grown(1, 2)
    assert grown(1, 1) == (8, 1)


def test_ray_sends_no_usage_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._common.usage.usage_lib import usage_stats_enabled

    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    connect()
    assert not usage_stats_enabled()


def test_bad_input_is_found_in_the_text_of_a_workers_error() -> None:
    text = """ray::Map(prepare_row)() (pid=1, ip=192.0.2.1)
  File "files.py", line 88, in write_bytes
spinemet.errors.BadInput: expected a place that can be written at s3://b/c, found PermissionDeniedError.

The above exception was the direct cause of the following exception:

ray.exceptions.UserCodeException: UDF failed to process a data block."""
    found = own_error(Exception(text))
    assert isinstance(found, BadInput)
    assert str(found) == "expected a place that can be written at s3://b/c, found PermissionDeniedError."
    assert own_error(Exception("ValueError: something else")) is None


@pytest.mark.parametrize(
    ("cpus", "gpus", "workers", "expected"),
    [
        (4, 0, None, (2, {"num_cpus": MODEL_CPUS})),
        (32, 0, None, (16, {"num_cpus": MODEL_CPUS})),
        (8, 0, 8, (8, {"num_cpus": MODEL_CPUS})),
        (1, 0, None, (1, {"num_cpus": MODEL_CPUS})),
        (8, 2, None, (2, {"num_cpus": 0, "num_gpus": 1})),
        (8, 2, 4, (4, {"num_cpus": 0, "num_gpus": 0.5})),
        (1, 2, 1, (1, {"num_cpus": 0, "num_gpus": 1})),
    ],
)
def test_model_actors_leave_cpus_to_read_with(
    cpus: int, gpus: int, workers: int | None, expected: tuple[int, dict[str, float]]
) -> None:
    count, resources = model_pool(cpus, gpus, workers)
    assert (count, {name: value for name, value in resources.items() if name != "memory"}) == expected


def test_a_reader_fits_on_one_cpu_beside_all_actors_that_lost_their_node() -> None:
    assert READ_CPUS + 10 * MODEL_CPUS <= 1
    assert 2 * READ_CPUS > 1


@pytest.mark.parametrize(("cpus", "workers"), [(1, 2), (4, 5), (0, None)])
def test_more_workers_than_cpus_are_refused(cpus: int, workers: int | None) -> None:
    with pytest.raises(BadInput, match="expected a cluster with at least"):
        model_pool(cpus, 0, workers)


def test_one_line_stays_off_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    with suppress(RuntimeError), _without_line(b"level"):
        os.write(2, b"a line\nthe level of the log\nanother\n")
        raise RuntimeError
    os.write(2, b"later: level\n")
    assert capfd.readouterr().err == "a line\nanother\nlater: level\n"
