"""A new task needs a recipe file and a label column, and no code."""

from __future__ import annotations

from pathlib import Path

from spinemet.evaluation.evaluate import run_evaluate
from spinemet.model.checkpoint import save_model
from spinemet.training.crops import read_crops
from spinemet.training.dataset import training_data
from spinemet.training.labels import consensus, label_words, read_labels
from spinemet.training.loop import train
from spinemet.training.recipes import recipe
from spinemet.training.workers import OneProcess
from tests.readings import reading
from tests.training.crops import write_crops

RECIPE = """
base = "demo"
epochs = 2
[[tasks]]
name = "collapse"
column = "fracture"
positive = ["wedge", "crush"]
[model]
backbone = {growth_rate = 4, block_config = [1, 1, 1, 1], init_features = 8}
slices = {size_px = 32, pixel_mm = 3.5, step_mm = 3.0}
"""
LEVELS = ("T12", "L1", "L2")
PATIENTS = tuple(f"p{n}" for n in range(8))


def test_a_recipe_file_and_a_column_are_all_that_a_new_task_needs(tmp_path: Path) -> None:
    (tmp_path / "fractures.toml").write_text(RECIPE)
    words = [("normal", "none", "no"), ("lytic", "none", "wedge"), ("mixed", "bilateral", "")]
    rows = [
        ",".join([patient, level, *words[(m + n) % 3]])
        for m, patient in enumerate(PATIENTS)
        for n, level in enumerate(LEVELS)
    ]
    header = "patient,level,bone_quality,posterolateral,fracture"
    (tmp_path / "labels.csv").write_text("\n".join([header, *rows]) + "\n")
    crops, model = str(tmp_path / "crops"), str(tmp_path / "model")

    chosen = recipe(str(tmp_path / "fractures.toml"))
    labels = consensus(read_labels(str(tmp_path / "labels.csv"), label_words(chosen.model.tasks)))
    write_crops(crops, [reading(patient, [*LEVELS]) for patient in PATIENTS], labels)
    data = training_data(read_crops(crops), chosen)
    assert sorted(set(data.train.targets_TN[-1].tolist())) == [-1, 0, 1]
    trained = train(data, chosen, 0, OneProcess())
    save_model(model, trained.model, trained.card, data.pseudonyms, data.pseudonym_key_id)
    found = run_evaluate(model, crops, str(tmp_path / "out"))

    assert trained.card.spec.tasks[-1].name == "collapse"
    assert 0 <= found.value("collapse", "sensitivity", "yes")[0] <= 1
    labelled = found.vertebrae["collapse_true"].notna()
    assert set(found.vertebrae["collapse_true"][labelled]) == {"no", "yes"}
    assert (found.measures["task"] == "collapse").any()
