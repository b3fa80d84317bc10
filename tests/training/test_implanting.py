"""Lesions put into the vertebrae of a phantom without disease."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from spinemet.training import implanting
from spinemet.training.implanting import Label, implanted, slice_labels
from spinemet.types import Completeness, Spine, Volume


@pytest.fixture(autouse=True)
def _dense_bone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests of lesions keep the bone as it is."""
    monkeypatch.setattr(implanting, "_THIN", 0.0)


def _core(volume: Volume, spine: Spine, level: str, half_mm: float = 6.0) -> np.ndarray:
    """The voxels of a ball in the middle of the body of `level`."""
    vertebra = next(one for one in spine.vertebrae if one.level == level)
    index = np.stack(np.meshgrid(*map(np.arange, volume.hu_DHW.shape), indexing="ij"), axis=-1)
    return volume.hu_DHW[np.linalg.norm(volume.to_lps(index) - vertebra.center_mm, axis=-1) < half_mm].astype(float)


def _all_over(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Every vertebra has disease of its whole body."""

    def draw(rng: np.random.Generator, levels: tuple[str, ...], *_: object) -> dict[str, implanting.Disease]:
        return {level: implanting.Disease(((kind, "none", 1.0),), "left", n) for n, level in enumerate(levels)}

    monkeypatch.setattr(implanting, "draw_diseases", draw)


def _share(monkeypatch: pytest.MonkeyPatch, *, sham: float) -> None:
    """No disease, and so large a share of sham implants."""
    monkeypatch.setattr(implanting, "_METASTATIC", 0.0)
    monkeypatch.setattr(implanting, "_SHAM", sham)


def _whole(spine: Spine) -> list[str]:
    return [one.level for one in spine.vertebrae if one.completeness is Completeness.WHOLE]


@pytest.mark.parametrize(
    ("kind", "holds"), [("lytic", lambda hu, _: 10 < hu < 80), ("blastic", lambda hu, before: hu > before + 150)]
)
def test_the_whole_body_has_the_density_of_its_lesion(
    monkeypatch: pytest.MonkeyPatch, healthy: tuple[Volume, Spine], kind: str, holds: Callable[[float, float], bool]
) -> None:
    volume, spine = healthy
    _all_over(monkeypatch, kind)
    made, labels = implanted(volume, spine, np.random.default_rng(0))
    assert [label.level for label in labels] == _whole(spine)
    assert {label.bone_quality for label in labels} == {kind}
    for level in _whole(spine):
        assert holds(np.median(_core(made, spine, level)), np.median(_core(volume, spine, level)))


def test_a_lytic_lesion_has_the_noise_of_soft_tissue(
    monkeypatch: pytest.MonkeyPatch, healthy: tuple[Volume, Spine]
) -> None:
    volume, spine = healthy
    _all_over(monkeypatch, "lytic")
    made, _ = implanted(volume, spine, np.random.default_rng(0))
    depth, height, width = volume.hu_DHW.shape
    muscle = volume.hu_DHW[depth // 2, :, :].astype(float)
    soft = np.diff(muscle[height // 2 : height // 2 + 60, width // 2 + 25 : width // 2 + 40], axis=0)
    soft = soft[np.abs(soft) < 100]
    lesion = np.diff(_core(made, spine, "L3"))
    ratio = np.median(np.abs(lesion)) / np.median(np.abs(soft))
    assert 0.4 < ratio < 2.0


def test_a_sham_changes_the_voxels_and_neither_density_nor_label(
    monkeypatch: pytest.MonkeyPatch, healthy: tuple[Volume, Spine]
) -> None:
    volume, spine = healthy
    _share(monkeypatch, sham=1.0)
    monkeypatch.setattr(implanting, "_BENIGN", 0.0)
    made, labels = implanted(volume, spine, np.random.default_rng(1))
    assert labels == [Label(level, sham=True) for level in _whole(spine)]
    for level in _whole(spine):
        assert np.mean(_core(made, spine, level, 15)) == pytest.approx(np.mean(_core(volume, spine, level, 15)), abs=12)
    assert (made.hu_DHW != volume.hu_DHW).any()


def test_nothing_changes_without_disease_or_sham(
    monkeypatch: pytest.MonkeyPatch, healthy: tuple[Volume, Spine]
) -> None:
    volume, spine = healthy
    hu = volume.hu_DHW.copy()
    hu[0, 0, 0], hu[-1, -1, -1] = 8000, -1500  # metal, and padding
    volume = replace(volume, hu_DHW=hu)
    _share(monkeypatch, sham=0.0)
    made, labels = implanted(volume, spine, np.random.default_rng(1))
    assert (made.hu_DHW == hu).all()
    assert labels == [Label(level) for level in _whole(spine)]


def _diseased(monkeypatch: pytest.MonkeyPatch, kind: str, extent: float, seed: int = 4) -> None:
    """L2 alone has a lesion of this kind and extent."""
    stages = ((kind, "none", extent),)
    monkeypatch.setattr(implanting, "draw_diseases", lambda *_: {"L2": implanting.Disease(stages, "left", seed)})


def test_slices_beside_a_small_lesion_are_normal(
    monkeypatch: pytest.MonkeyPatch, healthy: tuple[Volume, Spine]
) -> None:
    volume, spine = healthy
    _diseased(monkeypatch, "lytic", 0.28)
    made, labels = implanted(volume, spine, np.random.default_rng(2))
    rows = slice_labels(volume, made, spine, labels)
    assert {row["level"] for row in rows} == {"L2"}
    shown = [row["bone_quality"] for row in rows]
    assert set(shown) == {"normal", "lytic"}
    assert 0.2 < shown.count("lytic") / len(shown) < 0.8
    heights = [float(str(row["slice"])) for row in rows]
    body = next(one for one in spine.vertebrae if one.level == "L2")
    assert max(heights) - min(heights) > 0.7 * body.height_mm
    assert np.mean(heights) == pytest.approx(body.center_mm[2], abs=1)


def test_a_slice_of_a_mixed_lesion_may_show_one_kind(
    monkeypatch: pytest.MonkeyPatch, healthy: tuple[Volume, Spine]
) -> None:
    volume, spine = healthy
    _diseased(monkeypatch, "mixed", 0.65, seed=6)
    brighter = replace(volume, hu_DHW=np.where(volume.hu_DHW > 60, volume.hu_DHW + 60, volume.hu_DHW))
    made, labels = implanted(brighter, spine, np.random.default_rng(2))
    assert next(label.bone_quality for label in labels if label.level == "L2") == "mixed"
    shown = {str(row["bone_quality"]) for row in slice_labels(brighter, made, spine, labels)}
    assert "mixed" in shown
    assert shown & {"lytic", "blastic"}


def test_a_lesion_that_cannot_be_seen_is_not_put_in(
    monkeypatch: pytest.MonkeyPatch, healthy: tuple[Volume, Spine]
) -> None:
    volume, spine = healthy
    dark = replace(volume, hu_DHW=np.full_like(volume.hu_DHW, 20))
    _all_over(monkeypatch, "lytic")
    monkeypatch.setattr(implanting, "_SHAM", 0.0)
    made, labels = implanted(dark, spine, np.random.default_rng(0))
    assert {label.bone_quality for label in labels} == {"normal"}
    assert (made.hu_DHW == 20).all()


def test_a_larger_lesion_has_a_larger_volume(monkeypatch: pytest.MonkeyPatch, healthy: tuple[Volume, Spine]) -> None:
    volume, spine = healthy

    def seen(extent: float) -> float:
        _diseased(monkeypatch, "blastic", extent)
        _, labels = implanted(volume, spine, np.random.default_rng(2))
        return next(label.volume_cm3 for label in labels if label.level == "L2")

    assert 0.25 <= seen(0.28) < 3
    assert 8 < seen(1.0) < 60


def test_benign_changes_are_normal(monkeypatch: pytest.MonkeyPatch, healthy: tuple[Volume, Spine]) -> None:
    volume, spine = healthy
    _share(monkeypatch, sham=1.0)
    monkeypatch.setattr(implanting, "_BENIGN", 1.0)
    monkeypatch.setattr(implanting, "MIMICS", ("bone_island",))
    made, labels = implanted(volume, spine, np.random.default_rng(1))
    assert labels == [Label(level, sham=True) for level in _whole(spine)]
    brightest = [made.hu_DHW[made.hu_DHW != volume.hu_DHW].max(), volume.hu_DHW.max()]
    assert brightest[0] > 500
    assert slice_labels(volume, made, spine, labels) == []


@pytest.mark.parametrize("wanted", [-10.0, 20.0, 50.0, 80.0])
def test_thin_bone_has_the_density_drawn_and_keeps_its_cortex(
    monkeypatch: pytest.MonkeyPatch, healthy: tuple[Volume, Spine], wanted: float
) -> None:
    volume, spine = healthy
    monkeypatch.setattr(implanting, "_THIN", 1.0)
    monkeypatch.setattr(implanting, "_THIN_HU", (wanted, wanted))
    _share(monkeypatch, sham=0.0)
    made, labels = implanted(volume, spine, np.random.default_rng(3))
    assert labels == [Label(level) for level in _whole(spine)]
    cores = [np.median(_core(made, spine, level)) for level in _whole(spine)]
    assert np.median(cores) == pytest.approx(wanted, abs=15)
    before, after = volume.hu_DHW.astype(float), made.hu_DHW.astype(float)
    dense = before > 500
    kept = (after[dense] + 80).sum() / (before[dense] + 80).sum()
    inside = np.median([(core + 80) / (np.median(_core(volume, spine, level)) + 80)
                        for core, level in zip(cores, _whole(spine), strict=True)])  # fmt: skip
    assert kept > inside + 0.1
    assert (after <= before).all()
    assert (after[before < -100] == before[before < -100]).all()


def test_bone_that_is_thin_already_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch, healthy: tuple[Volume, Spine]
) -> None:
    volume, spine = healthy
    monkeypatch.setattr(implanting, "_THIN", 1.0)
    monkeypatch.setattr(implanting, "_THIN_HU", (600.0, 600.0))
    _share(monkeypatch, sham=0.0)
    made, _ = implanted(volume, spine, np.random.default_rng(3))
    assert (made.hu_DHW == volume.hu_DHW).all()
