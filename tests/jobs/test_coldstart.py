"""A model from normal studies alone."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from jobs import coldstart
from spinemet.dicom.pseudonym import KEY_VARIABLE
from spinemet.dicom.volume import write_nifti
from spinemet.model.card import load_card
from tests.phantom.scans import phantom_scan

pytestmark = [pytest.mark.job, pytest.mark.timeout(600)]


@pytest.mark.usefixtures("s3_bucket")  # Ray gives its workers the environment that it starts in
def test_normal_studies_and_phantoms_become_a_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "the key of all tests")
    normal, out = tmp_path / "normal", tmp_path / "out"
    (normal / "sub-a").mkdir(parents=True)
    write_nifti(phantom_scan(3, spacing=(2.5, 1.2, 1.2), matrix=160).volume, normal / "sub-a" / "sub-a_ct.nii")
    recipe = tmp_path / "quick.toml"
    recipe.write_text('base = "builtin"\nepochs = 1\nvalidation_share = 0.4\n')
    arguments = ["--archive", str(normal), "--out", str(out), "--phantoms", "4", "--studies", "2"]
    assert coldstart.main([*arguments, "--recipe", str(recipe)]) == 0
    card = load_card(str(out / "runs" / "quick" / "model"))
    assert "phantom" in card.trained_on
    assert "implant" in card.trained_on
    assert sum(card.patients.values()) == 5
    labels = pd.read_csv(out / "labels.csv", dtype=str).fillna("")
    assert set(labels["origin"]) == {"phantom", "implant"}
    assert "labels without a whole vertebra" in capsys.readouterr().out

    # A second call keeps what is finished.
    assert coldstart.main([*arguments, "--recipe", str(recipe)]) == 0
    assert "found finished" in capsys.readouterr().out


def test_normal_studies_that_do_not_exist_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "the key of all tests")
    assert coldstart.main(["--archive", str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 2
    assert str(tmp_path / "none") in capsys.readouterr().err
