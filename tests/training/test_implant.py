"""The training archive that `spinemet implant` writes."""

from __future__ import annotations

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
from spinemet.study import read_study
from spinemet.training.implant import write_implants
from spinemet.training.labels import consensus, read_labels
from spinemet.training.matching import match_labels
from spinemet.types import Spine, Volume


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
        rows = labels[(labels["study"] == reading.chosen.StudyInstanceUID) & (labels["slice"] == "")]
        assert set(rows["patient"]) == {reading.chosen.PatientID}
        assert set(rows["level"]) <= {one.level for one in reading.spine.vertebrae}
        assert len(rows) >= 4
        matches = match_labels(reading, consensus(labels))
        assert not matches.strays
        assert len(matches.vertebrae) == len(rows)
        with_lesion = rows.loc[rows["bone_quality"] != "normal", "level"]
        has_slices = [reading.spine.vertebrae[n].level for n, match in matches.vertebrae.items() if match.slices]
        assert sorted(has_slices) == sorted(with_lesion)
    truth = pd.read_csv(tmp_path / "out" / "truth.csv")
    assert {"side", "extent", "volume_cm3", "sham"} <= set(truth.columns)
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


def test_what_a_killed_run_left_is_replaced(tmp_path: Path, sources: Path) -> None:
    left = tmp_path / "out.part" / "archive" / "sub-0009"
    left.mkdir(parents=True)
    write_implants(str(sources / "sub-b"), tmp_path / "out", 0)
    assert sorted(path.name for path in (tmp_path / "out" / "archive").iterdir()) == ["sub-0001"]
    assert not left.exists()
