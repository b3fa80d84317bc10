"""A task that names a measure of its own has it in the evaluation, the ablation and the model card."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from spinemet.evaluation.ablation import Fit, Plan, run_fit, write_ablation
from spinemet.evaluation.evaluate import run_evaluate
from spinemet.evaluation.sources import Folds
from spinemet.model.checkpoint import save_model
from spinemet.model.tasks import TASKS, Task
from spinemet.training.dataset import training_data
from spinemet.training.loop import train
from spinemet.training.workers import OneProcess
from tests.training.lesions import made_up_crops, small_recipe, write_crops

KAPPA = "quadratic_weighted_kappa"
GRADE = Task(name="grade", column="bone_quality", classes=TASKS[2].classes, measures=(KAPPA,))


def test_a_measure_named_by_a_task_appears_everywhere(tmp_path: Path) -> None:
    recipe = small_recipe(name="graded", epochs=1)
    model = recipe.model.model_dump()
    model["tasks"] = [*model["tasks"], GRADE.model_dump()]
    recipe = small_recipe(name="graded", epochs=1, model=model)
    crops = made_up_crops()
    write_crops(str(tmp_path / "crops"), crops)

    data = training_data(crops, recipe)
    trained = train(data, recipe, 0, OneProcess())
    assert np.isfinite(trained.card.metrics[f"validation_{KAPPA}_grade"] or 0.0)
    assert f"validation_{KAPPA}_bone_quality" not in trained.card.metrics
    save_model(str(tmp_path / "model"), trained.model, trained.card, data.pseudonyms, data.pseudonym_key_id)

    found = run_evaluate(str(tmp_path / "model"), str(tmp_path / "crops"), str(tmp_path / "out"))
    assert set(found.measures.loc[found.measures["measure"] == KAPPA, "task"]) == {"grade"}
    assert "Quadratic weighted kappa: grade " in (tmp_path / "out" / "evaluation.md").read_text()

    fits, folds = [Fit(recipe, f"fold{fold}", 0) for fold in range(2)], Folds(crops, crops, 2)
    for fit in fits:
        run_fit(fit, folds, str(tmp_path / "ablation"))
    page = write_ablation(str(tmp_path / "ablation"), fits, folds, Plan(crops_digest="a", truth_digest="b", folds=2))
    assert "| 6 | graded | grade | per vertebra | Quadratic weighted kappa |" in page.markdown()


def test_an_unknown_measure_is_refused_and_a_task_without_one_is_stored_as_before() -> None:
    with pytest.raises(ValidationError, match=r"expected measures from macro_sensitivity, .* found accuracy"):
        Task(name="grade", column="grade", classes=("a", "b"), measures=("accuracy",))
    assert "measures" not in TASKS[0].model_dump()
    assert Task.model_validate(GRADE.model_dump()) == GRADE
