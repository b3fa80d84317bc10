"""The operating points beside a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from spinemet.config import changed
from spinemet.errors import BadInput
from spinemet.model.card import load_card, model_digest
from spinemet.model.checkpoint import ModelCard, save_model
from spinemet.model.multitask import MultiTask
from spinemet.model.points import POINTS, as_json, load_points, point_name, write_points

STORED = {"specificity_90": {"bone_quality": 0.41}}


def test_points_are_read_back_and_leave_the_models_digest(tmp_path: Path, model: tuple[MultiTask, ModelCard]) -> None:
    card = save_model(str(tmp_path), *model)
    assert load_points(str(tmp_path), card) == {}
    write_points(str(tmp_path), card, STORED)
    assert load_points(str(tmp_path), card) == STORED
    assert model_digest(load_card(str(tmp_path))) == model_digest(card)


def test_points_of_another_model_and_damaged_ones_are_refused(
    tmp_path: Path, model: tuple[MultiTask, ModelCard]
) -> None:
    card = save_model(str(tmp_path), *model)
    write_points(str(tmp_path), card, STORED)
    with pytest.raises(BadInput, match="belongs to another model"):
        load_points(str(tmp_path), changed(card, weights_sha256="0"))
    (tmp_path / POINTS).write_text("[]")
    with pytest.raises(BadInput, match="found something else"):
        load_points(str(tmp_path), card)


@pytest.mark.parametrize(
    ("specificity", "name"), [(0.9, "specificity_90"), (0.95, "specificity_95"), (0.975, "specificity_97.5")]
)
def test_names_say_the_specificity(specificity: float, name: str) -> None:
    assert point_name(specificity) == name


def test_without_points_the_tables_hold_null() -> None:
    assert as_json({}) is None
    assert as_json(STORED) == '{"specificity_90": {"bone_quality": 0.41}}'
