"""Training with Ray Train: a run from crops to a model, repeated, killed, and refused."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import ray
import torch

from jobs.train import main
from spinemet.errors import BadInput
from spinemet.model.checkpoint import load_model
from spinemet.on_ray import train as on_ray_train
from spinemet.on_ray.ablation import run_ablation
from spinemet.on_ray.cluster import connect
from spinemet.on_ray.train import run_train, train_worker
from spinemet.progress import no_progress
from spinemet.training.recipes import recipe
from spinemet.training.run import TrainJob, show_progress
from tests.training.lesions import made_up_crops, small_recipe, write_crops

RECIPE = small_recipe(epochs=4, pacing={"warm_epochs": 1, "first_share": 0.5, "full_at": 0.9})


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = str(tmp_path_factory.mktemp("crops"))
    write_crops(uri, made_up_crops())
    return uri


@pytest.fixture(scope="module")
def _cluster(s3_server: str) -> Iterator[None]:
    """A local cluster, started after the S3 settings are in the environment that its workers inherit."""
    import ray

    connect()
    yield
    ray.shutdown()


def own_train_workers() -> list[int]:
    """Process ids of the training workers below this process; a test must not kill those of other clusters."""
    listing = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(maxsplit=2) for line in listing.splitlines()]
    own = {os.getpid()}
    while more := {int(row[0]) for row in rows if int(row[1]) in own} - own:
        own |= more
    return [int(row[0]) for row in rows if int(row[0]) in own and "TrainWorker" in row[-1]]


@pytest.mark.job
@pytest.mark.timeout(900)  # three starts of a worker group, which can each take minutes on a busy machine
@pytest.mark.usefixtures("_cluster")
def test_a_run_that_loses_a_worker_ends_with_the_same_weights(crops: str, s3_bucket: str, tmp_path: Path) -> None:
    runs, seen = str(tmp_path), []
    whole = run_train(crops, runs, "whole", RECIPE, workers=2, progress=lambda *shown: seen.append(shown))
    assert [shown[0] for shown in seen] == [0, 1, 2, 3, 4]
    assert re.fullmatch(r"loss \d\.\d\d, validation log loss \d\.\d\d, macro sensitivity [01]\.\d\d", seen[-1][2])
    assert whole.card.patients["test"] == 3
    assert len(list((tmp_path / "whole" / "tensorboard").iterdir())) == 4
    assert (tmp_path / "whole" / "pacing.png").read_bytes().startswith(b"\x89PNG")
    assert set(pd.read_parquet(tmp_path / "whole" / "pacing.parquet")["epoch"]) <= {0, 1, 2, 3}

    # The second run has its crops and checkpoints on S3: equal weights also show that S3 loses nothing.
    write_crops(f"{s3_bucket}/crops", made_up_crops())
    killed: list[int] = []

    def kill_one(done: int, total: int, note: str = "") -> None:
        if done == 1 and not killed:
            killed.append(own_train_workers()[0])
            os.kill(killed[0], signal.SIGKILL)

    resumed = run_train(f"{s3_bucket}/crops", f"{s3_bucket}/runs", "a", RECIPE, workers=2, progress=kill_one)
    assert killed
    assert resumed.model_uri == f"{s3_bucket}/runs/a/model"
    one, other = (load_model(run.model_uri)[0].state_dict() for run in (whole, resumed))
    assert all(torch.equal(one[name], other[name]) for name in one)

    again = run_train(crops, runs, "whole", RECIPE)
    assert again.found_finished
    assert again.card == whole.card


@pytest.mark.job
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("_cluster")
def test_an_ablation_repeats_no_fit_and_adds_missing_ones(crops: str, tmp_path: Path) -> None:
    base, other = small_recipe(name="base", epochs=1), small_recipe(name="other", epochs=1, label_smoothing=0.1)
    seen: list[tuple[int, int, str]] = []
    run_ablation((crops, crops, 2, ()), str(tmp_path), [base], [0], lambda *shown: seen.append(shown))
    assert [shown[:2] for shown in seen] == [(0, 2), (1, 2), (2, 2)]
    first = {path: path.stat().st_mtime_ns for path in tmp_path.glob("fits/base/*/fit.json")}
    assert len(first) == 2
    page = run_ablation((crops, crops, 2, ()), str(tmp_path), [base, other], [0])
    assert {path: path.stat().st_mtime_ns for path in first} == first
    assert "| other | 1 | per vertebra |" in page.markdown()


def test_a_worker_reports_data_that_cannot_be_split(tmp_path: Path) -> None:
    write_crops(str(tmp_path), made_up_crops(patients=2))
    recipe = small_recipe(test_share=0)
    job = TrainJob(crops=str(tmp_path), run=str(tmp_path / "run"), recipe=recipe, seed=0)
    message = "expected patients with a bone_quality label of a whole vertebra for validation"
    with pytest.raises(BadInput, match=message), show_progress(job, no_progress):
        train_worker(job)


@pytest.mark.job
@pytest.mark.usefixtures("_cluster")
def test_more_workers_than_this_machine_has_cpus_are_refused(crops: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"expected at most \d+ workers, one per CPU of this machine, found 1000"):
        run_train(crops, str(tmp_path), "many", RECIPE, workers=1000)


@pytest.mark.parametrize(
    ("address", "cores", "cluster", "workers"),
    [
        ("", 2, 4, 2),
        ("", 64, 64, 4),
        ("", 1, 4, 1),
        ("192.0.2.1:6379", 1, 16, 4),
        ("192.0.2.1:6379", 64, 3, 3),
        ("192.0.2.1:6379", 2, 0, 4),
    ],
    ids=["laptop", "workstation", "one core of a host", "job on a small head", "small cluster", "cluster yet to grow"],
)
def test_as_many_workers_as_there_are_cores_to_compute_with(
    monkeypatch: pytest.MonkeyPatch, address: str, cores: int, cluster: int, workers: int
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(on_ray_train, "usable_cores", lambda: cores)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": float(cluster)})
    assert on_ray_train._resources(None, "auto") == (False, workers)


def test_a_bad_request_is_refused_before_anything_starts(crops: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="expected a run name"):
        run_train(crops, str(tmp_path), "../x", RECIPE)
    with pytest.raises(BadInput, match="expected crops"):
        run_train(str(tmp_path / "absent"), str(tmp_path), "x", RECIPE)
    with pytest.raises(BadInput, match="expected pretrained weights"):
        run_train(crops, str(tmp_path), "x", small_recipe(pretrained=str(tmp_path / "absent.pth")))
    assert not (tmp_path / "x").exists()
    with pytest.raises(BadInput, match="prepare them for this recipe"):
        run_ablation((crops, crops, 2, ()), str(tmp_path), [recipe("demo")], [0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "unheard"], "expected a recipe (demo, "),
        (["--recipe", "demo"], "prepare them for this recipe"),
    ],
)
def test_the_job_says_what_is_wrong_and_exits_with_2(
    crops: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["--crops", crops, "--out", str(tmp_path), "--name", "a", *arguments]) == 2
    assert message in capsys.readouterr().err
