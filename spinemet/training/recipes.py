"""Recipes by name (recipes.toml) or from a TOML file of one's own, each at full or at a smaller scale.

All recipes stay comparable on a machine too small for the full size.
"""

import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import model_validator

from spinemet.config import changed, load_config
from spinemet.errors import BadInput
from spinemet.model.spec import ModelSpec
from spinemet.training.config import TrainRecipe

_FILE = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())
RECIPES: Mapping[str, Mapping[str, Any]] = _FILE["recipes"]
"""Recipe -> the settings that it changes."""
SCALES: Mapping[str, Mapping[str, Any]] = _FILE["scales"]

ABLATION = ("densenet121", "subtasks", "mtl-soft", "mtl-hard", "+warmup", "+label-smoothing", "final")
"""The paper's comparison, baseline first; `+self-paced` is left out because `final` equals it."""


def recipe(name: str) -> TrainRecipe:
    """The recipe called `name`. The path of a TOML file gives the recipe in it, named after the file.

    Raises BadInput if there is no such recipe or the file is not valid.
    """
    if name.endswith(".toml"):
        with _opened(name):
            fields = load_config(name, _RecipeFile).model_dump()
        return TrainRecipe.model_validate({**fields, "name": Path(name).stem})
    if name not in RECIPES:
        raise BadInput(f"expected a recipe ({', '.join(RECIPES)}) or a TOML file, found {name}.")
    return TrainRecipe.model_validate({**_merged(RECIPES[name]), "name": name})


_open: list[Path] = []
"""The recipe files that are being read, each the base of the one before."""


@contextmanager
def _opened(name: str) -> Iterator[None]:
    """Raise BadInput if the recipe file is already being read: it would be its own base."""
    path = Path(name).resolve()
    if path in _open:
        raise BadInput(f"{name}: base: expected another recipe, found this file itself or one that is based on it.")
    _open.append(path)
    try:
        yield
    finally:
        _open.remove(path)


class _RecipeFile(TrainRecipe):
    """A TOML file: `base` names the recipe to change (default: final), `[[tasks]]` adds tasks to it, and every other
    key replaces a field of TrainRecipe."""

    @model_validator(mode="before")
    @classmethod
    def _merge(cls, given: dict[str, Any]) -> dict[str, Any]:
        return _merged({"base": "final", **given})


def _merged(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the recipe that `given` changes, with these changes."""
    fields = recipe(str(given["base"])).model_dump() if "base" in given else {"model": ModelSpec().model_dump()}
    for key, value in given.items():
        if key == "tasks":
            if not isinstance(value, list):
                raise ValueError("write each task as its own [[tasks]] table")
            fields["model"]["tasks"] = (*fields["model"]["tasks"], *value)
        elif key != "base":
            nested = isinstance(value, dict) and isinstance(fields.get(key), dict)
            fields[key] = {**fields[key], **value} if nested else value
    return fields


def scaled(recipe: TrainRecipe, scale: str) -> TrainRecipe:
    """`recipe` at the size called `scale`; warm-up and self-pacing keep their part of all epochs.

    Raises BadInput if there is no such scale.
    """
    if scale not in SCALES:
        raise BadInput(f"expected a scale ({', '.join(SCALES)}), found {scale}.")
    in_model = {name: value for name, value in SCALES[scale].items() if name in ModelSpec.model_fields}
    in_recipe = {name: value for name, value in SCALES[scale].items() if name not in in_model}
    part = in_recipe.get("epochs", recipe.epochs) / recipe.epochs
    pacing = recipe.pacing and changed(recipe.pacing, warm_epochs=max(1, round(recipe.pacing.warm_epochs * part)))
    return changed(
        recipe,
        model=changed(recipe.model, **in_model),
        warmup_epochs=recipe.warmup_epochs * part,
        pacing=pacing,
        **in_recipe,
    )
