"""Recipes are complete, and refuse unknown names."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from pydantic import ValidationError

from spinemet.config import changed
from spinemet.errors import BadInput
from spinemet.training.config import TrainRecipe
from spinemet.training.recipes import ABLATION, RECIPES, recipe, scaled


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_survives_json(name: str) -> None:
    made = recipe(name)
    assert made.name == name
    assert TrainRecipe.model_validate_json(made.model_dump_json()) == made
    assert made.selects in [task.name for task in made.model.tasks]


def test_the_final_recipe_is_the_papers() -> None:
    made = recipe("final")
    assert made.model.backbone.block_config == (6, 12, 24, 16)
    assert made.model.slices.size_px == 224
    assert made.label_smoothing > 0
    assert made.warmup_epochs > 0
    assert made.pacing is not None
    assert made.model.task("bone_quality").fuses == ("blastic", "lytic")


def test_each_recipe_of_the_paper_is_the_one_before_with_one_change() -> None:
    names = [name for name in RECIPES if name not in {"demo", "builtin", "+composed"}]
    made = [recipe(name).model_dump(exclude={"name"}) for name in names]

    def differing(before: dict[str, object], after: dict[str, object]) -> set[str]:
        return {key for key in after if before[key] != after[key]}

    steps = [differing(before, after) for before, after in pairwise(made)]
    assert steps == [{"model"}, {"model"}, {"model"}, {"warmup_epochs"}, {"label_smoothing"}, {"pacing"}, set()]
    beyond = recipe("+composed").model_dump(exclude={"name"})
    assert differing(recipe("+label-smoothing").model_dump(exclude={"name"}), beyond) == {"model"}
    specs = [differing(before["model"], after["model"]) for before, after in pairwise(made[:4])]
    assert specs == [{"tasks"}, {"tasks", "sharing"}, {"sharing"}]
    assert [task.name for task in recipe("densenet121").model.tasks] == ["bone_quality"]
    assert not recipe("densenet121").model.tasks[0].fuses
    assert [task.name for task in recipe("subtasks").model.tasks] == ["blastic", "lytic", "bone_quality"]


def test_an_unknown_recipe_or_key_is_refused() -> None:
    with pytest.raises(BadInput, match=r"expected a recipe \(demo, .*final, \+composed\) or a TOML file, found best"):
        recipe("best")
    with pytest.raises(ValidationError):
        TrainRecipe.model_validate({**recipe("demo").model_dump(), "epoch": 3})
    with pytest.raises(BadInput, match="TrainRecipe has no field warmup_epoch; "):
        changed(recipe("demo"), warmup_epoch=3)
    with pytest.raises(BadInput, match=r"TrainRecipe: epochs: .*greater than or equal to 1, found -5"):
        changed(recipe("demo"), epochs=-5)


COLLAPSE = """
base = "mtl-hard"
epochs = 5
[[tasks]]
name = "collapse"
column = "collapse"
positive = ["wedge", "crush"]
[model]
dropout = 0.2
"""


def test_a_file_changes_the_settings_it_names_and_adds_its_tasks(tmp_path: Path) -> None:
    (tmp_path / "with-collapse.toml").write_text(COLLAPSE)
    made, base = recipe(str(tmp_path / "with-collapse.toml")), recipe("mtl-hard")
    assert type(made) is TrainRecipe
    assert (made.name, made.epochs, made.model.dropout) == ("with-collapse", 5, 0.2)
    assert made.model.tasks[:-1] == base.model.tasks
    assert made.model.tasks[-1].positive == ("wedge", "crush")
    assert made.learning_rate == base.learning_rate
    (tmp_path / "plain.toml").write_text("")
    assert recipe(str(tmp_path / "plain.toml")) == changed(recipe("final"), name="plain")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epoch = 3", "epoch: Extra inputs"),
        ("epochs = 0", "epochs: .*greater than or equal to 1, found 0"),
        (
            'base = "+composed"\nprevalence = { bone_quality = 0.2 }',
            r"prevalence: expected tasks .*composed \(posterolateral\), found bone_quality",
        ),
        ("prevalence = { bone = 0.2 }", "prevalence: expected tasks .*bone_quality.*found bone, "),
        ("prevalence = { lytic = 0.2 }", r"neither fused into another .*found lytic, "),
        ("prevalence = { bone_quality = 1.2 }", "less than 1, found 1.2"),
        ('base = "best"', "expected a recipe .*found best"),
        ("tasks = 3", r"own \[\[tasks\]\] table"),
        ('[[tasks]]\nname = "a"\ncolumn = "a"\npositive = ["Yes"]', "model.tasks.4: .*lower case, found 'Yes'"),
        ('[[tasks]]\nname = "lytic"\ncolumn = "a"\npositive = ["yes"]', "found lytic twice"),
    ],
)
def test_errors_in_a_file_are_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(BadInput, match=said):
        recipe(str(tmp_path / "mine.toml"))


def test_a_smaller_scale_keeps_the_steps_between_the_recipes() -> None:
    small = {name: scaled(recipe(name), "small") for name in ABLATION}
    assert len({(one.model.slices, one.model.backbone, one.epochs, one.batch) for one in small.values()}) == 1
    whole, final = recipe("final"), small["final"]
    assert final.warmup_epochs / final.epochs == pytest.approx(whole.warmup_epochs / whole.epochs)
    assert final.pacing is not None
    assert final.pacing.warm_epochs == 1
    assert small["densenet121"].model.tasks == recipe("densenet121").model.tasks
    assert scaled(whole, "full") == whole
    with pytest.raises(BadInput, match=r"expected a scale \(full, small, tiny\), found huge"):
        scaled(whole, "huge")


def test_recipes_do_not_import_torch() -> None:
    code = "import sys, spinemet.training.recipes; sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rules = []", "rules: Tuple should have at least 1 item"),
        ("epochs = 1e12", "epochs: Input should be less than or equal to 10000"),
        ("learning_rate = inf", "learning_rate: expected a number"),
        ("[model]\ndropout = nan", "model.dropout: expected a number"),
        ('base = "{folder}/one.toml"', "base: expected another recipe, found this file itself"),
        (
            'base = "{folder}/two.toml"',
            "found this file itself or one that is based on it",
        ),
    ],
)
def test_a_recipe_file_that_cannot_be_meant_is_refused_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    one, two = tmp_path / "one.toml", tmp_path / "two.toml"
    one.write_text(text.format(folder=tmp_path))
    two.write_text(f'base = "{one}"')
    with pytest.raises(BadInput, match=said):
        recipe(str(one))
    one.write_text("epochs = 3")
    assert recipe(str(two)).epochs == 3  # a file that was refused can be mended and read
