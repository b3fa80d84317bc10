"""The model that comes with the package."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from spinemet.cli import app
from spinemet.dicom.volume import write_nifti
from spinemet.model.card import BUILTIN, load_card, model_digest, place_of
from spinemet.model.predictor import Predictor
from spinemet.spine.geometric import geometric_spine
from spinemet.spine.slices import cut_slices
from spinemet.training import implanting
from spinemet.training.implanting import implanted
from tests.phantom.scans import phantom_scan

LARGE_CM3 = 5.0


def test_it_is_small_and_says_what_it_is() -> None:
    files = {path.name: path.stat().st_size for path in Path(place_of(BUILTIN)).iterdir()}
    assert set(files) == {"README.md", "model.json", "model.safetensors"}
    assert sum(files.values()) <= 8_000_000
    card = load_card(BUILTIN)
    assert card.trained_on == "implanted lesions and phantoms"
    assert "not a medical device" in card.about
    assert "CC BY" in card.about
    assert len(model_digest(card)) == 12


def test_it_tells_large_lesions_from_healthy_bone(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Predictor.load(BUILTIN)
    healthy = phantom_scan(3, spacing=(2.5, 1.2, 1.2), matrix=160).volume
    spine = geometric_spine(healthy)
    monkeypatch.setattr(implanting, "_METASTATIC", 1.0)
    monkeypatch.setattr(implanting, "_SHAM", 0.0)
    made, labels = implanted(healthy, spine, np.random.default_rng(2))
    large = {label.level for label in labels if label.volume_cm3 > LARGE_CM3}
    assert len(large) >= 3
    calls = {
        (what, stack.level): predictor.predict([stack])[0].label("bone_quality")
        for what, volume in (("before", healthy), ("after", made))
        for stack in cut_slices(volume, spine, predictor.slices)
        if stack.level in large
    }
    called = {what: sum(calls[what, level] != "normal" for level in large) for what in ("before", "after")}
    assert called["before"] <= 0.2 * len(large)
    assert called["after"] >= 0.8 * len(large)


def test_a_study_is_classified_without_another_model(tmp_path: Path) -> None:
    write_nifti(phantom_scan(3, spacing=(2.5, 1.2, 1.2), matrix=160).volume, tmp_path / "ct.nii")
    shown = CliRunner().invoke(app, ["study", str(tmp_path / "ct.nii"), "--model", "builtin", "--json"])
    assert shown.exit_code == 0, shown.output
    study = json.loads(shown.stdout)
    assert study["trained_on"] == "implanted lesions and phantoms"
    whole = [one for one in study["vertebrae"] if one["completeness"] == "whole"]
    assert {one["bone_quality"] for one in whole} <= {"normal", "blastic", "mixed", "lytic"}
