"""The plug-in, with a hand-written fake of TotalSegmentator that has the real signatures (2.18)."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from spinemet.anatomy import LEVEL_INDEX, LEVELS, TOTALSEGMENTATOR_LEVELS
from spinemet.errors import BadInput
from spinemet.spine.localize import localize
from spinemet.types import LabelMap, Volume

WEIGHTS = ("Dataset292_TotalSegmentator_part2_vertebrae_1532subj", "Dataset298_TotalSegmentator_total_6mm_1559subj")


class FakePackage:
    """Returns a stored segmentation and records its arguments."""

    def __init__(self, numbers: np.ndarray) -> None:
        self.numbers = numbers
        self.config: dict[str, Any] = {}
        self.image: Any = None
        self.options: dict[str, Any] = {}

    def setup_totalseg(self, totalseg_id: str | None = None) -> None:
        self.config = {"send_usage_stats": True}

    def set_config_key(self, key_name: str, value: Any) -> None:
        self.config[key_name] = value

    def totalsegmentator(  # noqa: PLR0917  (the first part of the real signature)
        self, input, output=None, ml=False, nr_thr_resamp=1, nr_thr_saving=6, fast=False, nora_tag="None",
        preview=False, task="total", roi_subset=None, *, quiet=False, device="gpu",
    ):  # fmt: skip
        self.image, self.options = input, {"ml": ml, "task": task, "roi_subset": roi_subset, "quiet": quiet}
        assert output is None
        assert device in ("gpu", "cpu")
        return nibabel.Nifti1Image(self.numbers, input.affine)


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch, abdomen_whole: LabelMap, tmp_path: Path) -> FakePackage:
    table = np.zeros(len(LEVELS) + 1, np.uint8)
    for number, level in TOTALSEGMENTATOR_LEVELS.items():
        table[1 + LEVEL_INDEX[level]] = number
    fake = FakePackage(table[abdomen_whole.labels_DHW])
    root, config, api = (types.ModuleType(f"totalsegmentator{n}") for n in ("", ".config", ".python_api"))
    config.setup_totalseg, config.set_config_key = fake.setup_totalseg, fake.set_config_key  # type: ignore[attr-defined]
    api.totalsegmentator = fake.totalsegmentator  # type: ignore[attr-defined]
    for module in (root, config, api):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    for name in WEIGHTS:
        (tmp_path / name).mkdir()
    monkeypatch.setenv("TOTALSEG_WEIGHTS_PATH", str(tmp_path))
    return fake


def test_its_labels_become_vertebrae(package: FakePackage, abdomen: Volume) -> None:
    spine = localize(abdomen, None, "totalsegmentator")
    assert spine.method == "totalsegmentator"
    assert [v.level for v in spine.vertebrae] == ["T12", "L1", "L2", "L3", "L4", "L5", "S1"]
    assert package.options["ml"] is True
    assert {"vertebrae_L1", "vertebrae_C1", "vertebrae_S1"} <= set(package.options["roi_subset"])
    assert package.config["send_usage_stats"] is False


def test_it_gets_the_volume_in_ras(package: FakePackage, abdomen: Volume, realct: Path) -> None:
    localize(abdomen, None, "totalsegmentator")
    source = nibabel.load(realct / "totalsegmentator" / "example_ct.nii.gz")
    corner = np.linalg.inv(source.affine) @ package.image.affine @ np.array([0, 0, 0, 1.0])
    index = tuple(np.round(corner[:3]).astype(int))
    assert source.dataobj[index] == abdomen.hu_DHW[0, 0, 0]
    assert np.allclose(corner[:3], index, atol=1e-3)


def test_it_wins_over_the_studys_labels(package: FakePackage, abdomen: Volume, abdomen_bodies: LabelMap) -> None:
    assert localize(abdomen, abdomen_bodies, "totalsegmentator").vertebrae[-1].level == "S1"


def test_missing_weights_are_not_downloaded(package: FakePackage, abdomen: Volume, tmp_path: Path) -> None:
    (tmp_path / WEIGHTS[1]).rmdir()
    with pytest.raises(BadInput, match="Dataset298"):
        localize(abdomen, None, "totalsegmentator")
    assert package.image is None


def test_not_installed(monkeypatch: pytest.MonkeyPatch, abdomen: Volume) -> None:
    monkeypatch.setitem(sys.modules, "totalsegmentator", None)
    with pytest.raises(BadInput, match=r"spinemet\[totalsegmentator\]"):
        localize(abdomen, None, "totalsegmentator")
