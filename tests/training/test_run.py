"""The folder of a run: one request, and progress that the driver shows."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from spinemet.errors import BadInput
from spinemet.training import run
from spinemet.training.run import RunProgress, TrainJob, claim_run, pacing_figure, show_progress, write_curves
from spinemet.types import BONE_QUALITY
from tests.training.lesions import made_up_crops, small_recipe, write_crops

RECIPE = small_recipe()


def metrics(epoch: int) -> dict[str, float]:
    return {
        "epoch": float(epoch),
        "loss": 0.5,
        "validation_log_loss_bone_quality": 1.25,
        "validation_macro_sensitivity_bone_quality": 0.75,
    }


def job_at(folder: Path) -> TrainJob:
    return TrainJob(crops="crops", run=str(folder), recipe=RECIPE, seed=0)


def test_a_run_of_the_same_name_must_request_the_same(tmp_path: Path) -> None:
    crops, out = str(tmp_path / "crops"), str(tmp_path / "runs")
    write_crops(crops, made_up_crops(patients=4))
    assert claim_run(crops, out, "a", RECIPE, 0) == claim_run(crops, out, "a", RECIPE, 0) == f"{out}/a"
    with pytest.raises(BadInput, match=r"runs/a belongs to .*: recipe\.epochs is 3, not 4, seed is 0, not 1; use"):
        claim_run(crops, out, "a", small_recipe(epochs=4), 1)
    write_crops(crops, made_up_crops(patients=5))
    with pytest.raises(BadInput, match=r"crops_digest is \w{12}, not \w{12}"):
        claim_run(crops, out, "a", RECIPE, 0)
    assert claim_run(crops, out, "b", RECIPE, 0) == f"{out}/b"


def test_a_run_json_of_another_version_is_refused(tmp_path: Path) -> None:
    crops = str(tmp_path / "crops")
    write_crops(crops, made_up_crops(patients=4))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "run.json").write_text('{"recipe": {}, "seed": 0, "crops_digest": ""}')
    with pytest.raises(BadInput, match="holds no RunRequest of this version"):
        claim_run(crops, str(tmp_path), "a", RECIPE, 0)


def test_progress_comes_back_for_its_own_attempt_only(tmp_path: Path) -> None:
    assert RunProgress.read(str(tmp_path), "a") == RunProgress(attempt="a")
    written = RunProgress(attempt="a", epochs=[metrics(0)])
    written.write(str(tmp_path))
    assert RunProgress.read(str(tmp_path), "a") == written
    assert RunProgress.read(str(tmp_path), "b") == RunProgress(attempt="b")
    (tmp_path / "progress.json").write_text("{")
    assert RunProgress.read(str(tmp_path), "a") == RunProgress(attempt="a")


def test_each_epoch_is_shown_once_also_after_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "READ_EVERY_S", 0.001)
    job, seen = job_at(tmp_path), []
    with show_progress(job, lambda *shown: seen.append(shown)):
        RunProgress(attempt=job.attempt, epochs=[metrics(0), metrics(1)]).write(job.run)
        while len(seen) < 3:
            pass
        RunProgress(attempt=job.attempt, epochs=[metrics(1), metrics(2)]).write(job.run)
    assert [shown[:2] for shown in seen] == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert seen[-1][2] == "loss 0.50, validation log loss 1.25, macro sensitivity 0.75"


def test_a_refusal_is_raised_but_not_one_of_an_earlier_attempt(tmp_path: Path) -> None:
    job = job_at(tmp_path)
    RunProgress(attempt="earlier", refusal="no labels").write(job.run)
    with show_progress(job, lambda *shown: None):
        pass
    with pytest.raises(BadInput, match="too few patients"), show_progress(job, lambda *shown: None):
        RunProgress(attempt=job.attempt, refusal="too few patients").write(job.run)


def test_curves_have_one_file_per_epoch(tmp_path: Path) -> None:
    for epoch in (0, 1, 1):
        write_curves(str(tmp_path), metrics(epoch))
    names = sorted(path.name for path in (tmp_path / "tensorboard").iterdir())
    assert names == ["events.out.tfevents.000000", "events.out.tfevents.000001"]


def test_a_job_survives_json() -> None:
    job = job_at(Path("/runs/a"))
    assert TrainJob.model_validate_json(job.model_dump_json()) == job
    assert job.attempt != job_at(Path("/runs/a")).attempt


def test_the_picture_of_pacing_is_drawn_for_any_run() -> None:
    usual = pd.DataFrame({"label": ["normal", "normal", "lytic", None], "epoch": [2, 4, 3, 2], "row": range(4)})
    never = usual.assign(epoch=0)
    pictures = [pacing_figure(table, BONE_QUALITY) for table in (usual, never)]
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)
    assert pictures[0] != pictures[1]
