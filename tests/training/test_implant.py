"""Lesions put into the vertebrae of a phantom without disease."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from spinemet.archive.listing import list_studies
from spinemet.cli import app
from spinemet.config import StudyConfig
from spinemet.dicom.volume import write_nifti
from spinemet.errors import BadInput
from spinemet.reading import Screened
from spinemet.spine.geometric import geometric_spine
from spinemet.study import read_study
from spinemet.training import implant
from spinemet.training.implant import Label, implanted, write_implants
from spinemet.training.labels import read_labels
from spinemet.types import Completeness, Spine, Volume
from tests.phantom.scans import phantom_scan


@pytest.fixture(scope="module")
def healthy() -> tuple[Volume, Spine]:
    volume = phantom_scan(3, spacing=(2.5, 1.2, 1.2), matrix=160).volume
    return volume, geometric_spine(volume)


def _core(volume: Volume, spine: Spine, level: str, half_mm: float = 6.0) -> np.ndarray:
    """The voxels of a ball in the middle of the body of `level`."""
    vertebra = next(one for one in spine.vertebrae if one.level == level)
    index = np.stack(np.meshgrid(*map(np.arange, volume.hu_DHW.shape), indexing="ij"), axis=-1)
    return volume.hu_DHW[np.linalg.norm(volume.to_lps(index) - vertebra.center_mm, axis=-1) < half_mm].astype(float)


def _all_over(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Every vertebra has disease of its whole body."""

    def draw(rng: np.random.Generator, levels: tuple[str, ...], *_: object) -> dict[str, implant.Disease]:
        return {level: implant.Disease(((kind, "none", 1.0),), "left", n) for n, level in enumerate(levels)}

    monkeypatch.setattr(implant, "draw_diseases", draw)


def _share(monkeypatch: pytest.MonkeyPatch, *, sham: float) -> None:
    """No disease, and so large a share of sham implants."""
    monkeypatch.setattr(implant, "_METASTATIC", 0.0)
    monkeypatch.setattr(implant, "_SHAM", sham)


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


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory, healthy: tuple[Volume, Spine]) -> Path:
    """Three studies of two patients, and one volume without a spine."""
    folder = tmp_path_factory.mktemp("normal")
    volume, _ = healthy
    for name in ("sub-a/ses-1/sub-a_ses-1_ct.nii", "sub-a/ses-2/sub-a_ses-2_ct.nii", "sub-b/sub-b_ct.nii"):
        (folder / name).parent.mkdir(parents=True)
        write_nifti(volume, folder / name)
    (folder / "sub-c").mkdir()
    noise = np.random.default_rng(0).normal(0, 300, (40, 40, 40)).astype(np.int16)
    write_nifti(Volume(noise, np.diag([2.0, 2.0, 2.0, 1.0])), folder / "sub-c" / "sub-c_ct.nii")
    return folder


def test_the_archive_made_can_be_read_with_its_labels(tmp_path: Path, sources: Path) -> None:
    summary = write_implants(str(sources), tmp_path / "out", 5)
    assert (summary.patients, summary.studies) == (2, 3)
    assert summary.left_out.total() == 1
    refs = list(list_studies(str(tmp_path / "out" / "archive")))
    assert len(refs) == 3
    labels = read_labels(str(tmp_path / "out" / "labels.csv"))
    for ref in refs:
        reading = read_study(ref, StudyConfig())
        assert isinstance(reading, Screened)
        rows = labels[labels["study"] == reading.chosen.StudyInstanceUID]
        assert set(rows["patient"]) == {reading.chosen.PatientID}
        assert set(rows["level"]) <= {one.level for one in reading.spine.vertebrae}
        assert len(rows) >= 4
    truth = pd.read_csv(tmp_path / "out" / "truth.csv")
    assert {"side", "extent", "sham"} <= set(truth.columns)
    lesions = truth.groupby("study")["bone_quality"].apply(tuple)
    assert lesions.nunique() > 1  # equal sources, other lesions


def test_the_command_takes_some_patients_and_makes_several_studies_of_each(tmp_path: Path, sources: Path) -> None:
    arguments = ["implant", str(sources), str(tmp_path / "out"), "--patients", "1", "--studies", "2", "--seed", "1"]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    assert "4 studies of 1 patients" in shown.output
    assert "left out: studies of further patients: 1" in shown.output


def test_a_place_that_exists_or_holds_no_spine_is_refused(tmp_path: Path, sources: Path) -> None:
    with pytest.raises(BadInput, match="expected a new folder"):
        write_implants(str(sources), tmp_path, 0)
    with pytest.raises(BadInput, match=r"no study of .* can be used"):
        write_implants(str(sources / "sub-c"), tmp_path / "none", 0)
    assert not (tmp_path / "none").exists()
