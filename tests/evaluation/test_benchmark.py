"""The hard benchmark: its shares, its noise, its parts, and the truth about its slices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spinemet.cli import main
from spinemet.config import SliceConfig
from spinemet.errors import BadInput
from spinemet.evaluation import benchmark
from spinemet.evaluation.benchmark import PARTS, Case, draw_case, patient_name, split_of, write_benchmark
from spinemet.training.crops import read_crops
from spinemet.training.recipes import recipe, scaled
from spinemet.types import BONE_QUALITY

SLICES = SliceConfig(size_px=32, pixel_mm=3.0, step_mm=12.0)


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return [draw_case(0, "train", number) for number in range(160)]


def labels(cases: list[Case], which: str, column: str) -> np.ndarray:
    return np.array([row[column] for case in cases for row in getattr(case, which)])


def test_most_vertebrae_are_normal_and_few_are_mixed(cases: list[Case]) -> None:
    truth = labels(cases, "truth", "bone_quality")
    share = {name: float((truth == name).mean()) for name in BONE_QUALITY}
    assert 0.7 < share["normal"] < 0.8
    assert share["mixed"] < 0.05 < min(share["blastic"], share["lytic"])


@pytest.mark.parametrize("column", ["bone_quality", "posterolateral"])
def test_wrong_labels_are_for_training_only_and_of_every_class(cases: list[Case], column: str) -> None:
    truth, noisy = (labels(cases, which, column) for which in ("truth", "given"))
    assert 0.05 < (truth != noisy).mean() < 0.1
    assert set(noisy[truth != noisy]) == set(truth)
    for part in ("validation", "test"):
        other = draw_case(0, part, 3)
        assert other.given == other.truth


def test_seed_part_and_number_determine_a_patient() -> None:
    assert draw_case(3, "train", 5).truth == draw_case(3, "train", 5).truth
    assert draw_case(3, "train", 5).truth != draw_case(4, "train", 5).truth
    assert len({draw_case(3, part, 5).anatomy.texture for part in PARTS}) == len(PARTS)


def test_training_sets_are_nested_and_keep_their_validation_patients() -> None:
    small, large = split_of(80), split_of(160)
    assert small.items() < large.items()
    assert list(small.values()).count("train") == 80
    assert {key for key, part in small.items() if part == "validation"} == {
        benchmark.NAMES.patient_key(patient_name("validation", number)) for number in range(benchmark.VALIDATION)
    }


def test_its_folders_hold_their_parts_and_the_slices_to_measure_have_their_own_truth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "LEVELS_SEEN", 1)
    monkeypatch.setattr(benchmark, "VALIDATION", 2)
    monkeypatch.setattr(benchmark, "METASTATIC_SHARE", 1.0)
    infos = write_benchmark(str(tmp_path), 10, 0, SLICES, test=20)
    crops, test = (read_crops(str(tmp_path / name)) for name in ("crops", "test"))
    assert (infos["crops"].vertebrae, infos["test"].vertebrae) == (12, 20)
    assert set(crops.table["patient"]) == set(split_of(10))
    assert not set(crops.table["patient"]) & set(test.table["patient"])
    assert "slice_bone_quality" not in crops.table
    own, whole = test.table["slice_bone_quality"], test.table["bone_quality"]
    assert own.notna().all()
    assert (own[whole == "normal"] == "normal").all()
    diseased = own[whole != "normal"]
    assert (diseased == whole[whole != "normal"]).mean() > 0.5
    assert (diseased == "normal").any()
    assert infos["test"].slice_classes["bone_quality"]["normal"] == int((own == "normal").sum())


def test_too_few_patients_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BadInput, match="needs at least 10 patients"):
        write_benchmark(str(tmp_path), 9, 0, SLICES)
    assert main(["phantom", str(tmp_path), "--benchmark", "--patients", "10", "--test", "9"]) == 2
    assert "needs at least 10 patients" in capsys.readouterr().err


def test_the_command_makes_the_benchmark_at_the_scale_of_the_recipes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark, "LEVELS_SEEN", 1)
    monkeypatch.setattr(benchmark, "VALIDATION", 1)
    out = str(tmp_path / "out")
    options = ["--benchmark", "--patients", "10", "--test", "10", "--scale", "tiny", "--workers", "1"]
    assert main(["phantom", out, *options]) == 0
    assert "10 vertebrae, 10 studies, 10 patients" in capsys.readouterr().out
    assert read_crops(f"{out}/test").info.slice_config == scaled(recipe("final"), "tiny").model.slices
    assert main(["phantom", out, "--scale", "small"]) == 2
    assert "--scale and --test need --benchmark" in capsys.readouterr().err
