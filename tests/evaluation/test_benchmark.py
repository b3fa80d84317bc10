"""The hard benchmark: its shares, its noise, and the same slices in both of its sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from spinemet.cli import main
from spinemet.config import SliceConfig
from spinemet.errors import BadInput
from spinemet.evaluation import benchmark
from spinemet.evaluation.benchmark import Case, draw_case, write_benchmark
from spinemet.training.crops import read_crops
from spinemet.training.recipes import recipe, scaled
from spinemet.types import BONE_QUALITY

SLICES = SliceConfig(size_px=32, pixel_mm=3.0, step_mm=12.0)


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return [draw_case(0, number) for number in range(160)]


def labels(cases: list[Case], which: str, column: str) -> np.ndarray:
    return np.array([row[column] for case in cases for row in case.labels[which]])


def test_most_vertebrae_are_normal_and_few_are_mixed(cases: list[Case]) -> None:
    truth = labels(cases, "truth", "bone_quality")
    share = {name: float((truth == name).mean()) for name in BONE_QUALITY}
    assert 0.7 < share["normal"] < 0.8
    assert share["mixed"] < 0.05 < min(share["blastic"], share["lytic"])


@pytest.mark.parametrize("column", ["bone_quality", "posterolateral"])
def test_wrong_labels_are_in_the_crops_only_and_of_every_class(cases: list[Case], column: str) -> None:
    truth, noisy = (labels(cases, which, column) for which in ("truth", "crops"))
    assert 0.05 < (truth != noisy).mean() < 0.1
    assert set(noisy[truth != noisy]) == set(truth)


def test_seed_and_number_determine_a_patient() -> None:
    assert draw_case(3, 5).labels == draw_case(3, 5).labels
    assert draw_case(3, 5).labels != draw_case(4, 5).labels


def test_both_sets_hold_the_same_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "NOISE", 0.5)
    monkeypatch.setattr(benchmark, "LEVELS_SEEN", 1)
    infos = write_benchmark(str(tmp_path), 10, 0, SLICES)
    crops, truth = (read_crops(str(tmp_path / name)) for name in ("crops", "truth"))
    assert infos["truth"].vertebrae == 10
    assert np.array_equal(crops.hu_NHW, truth.hu_NHW)
    columns = ["patient", "study", "level", "vertebra", "offset_mm"]
    pd.testing.assert_frame_equal(crops.table[columns], truth.table[columns])
    assert (crops.table["bone_quality"] != truth.table["bone_quality"]).any()


def test_too_few_patients_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BadInput, match="needs at least 10 patients"):
        write_benchmark(str(tmp_path), 9, 0, SLICES)
    assert main(["phantom", str(tmp_path), "--benchmark", "--patients", "9"]) == 2
    assert "needs at least 10 patients" in capsys.readouterr().err


def test_the_command_makes_the_benchmark_at_the_scale_of_the_recipes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark, "LEVELS_SEEN", 1)
    out = str(tmp_path / "out")
    assert main(["phantom", out, "--benchmark", "--patients", "10", "--scale", "small", "--workers", "1"]) == 0
    assert "10 vertebrae, 10 studies, 10 patients" in capsys.readouterr().out
    assert read_crops(f"{out}/truth").info.slice_config == scaled(recipe("final"), "small").model.slices
    assert main(["phantom", out, "--scale", "small"]) == 2
    assert "--scale needs --benchmark" in capsys.readouterr().err
