"""What is written beside a model's weights, and the weights as bytes: enough to plan with a model without torch."""

from __future__ import annotations

import hashlib
from typing import Any

from pydantic import Field, ValidationError

from spinemet import __version__
from spinemet.config import FrozenModel
from spinemet.errors import BadInput
from spinemet.files import join, normalize, read_bytes
from spinemet.model.aggregate import Rule
from spinemet.model.spec import ModelSpec

WEIGHTS = "model.safetensors"
CARD = "model.json"


class ModelCard(FrozenModel):
    """What a model is, what it was made from, and how well it did on its validation patients.

    split: part (`train`, `validation`, `test`) -> the patients' keys as they stand in the crops; who uses the model
    on the same crops evaluates on `test`. weights_sha256 ties the card to its weights.
    """

    spec: ModelSpec
    rules: dict[str, Rule] = Field(default_factory=dict)
    """Task -> aggregation from slices to the vertebra; `mean` where none is given."""
    temperatures: dict[str, float] = Field(default_factory=dict)
    """Task -> what its logits are divided by, so that probabilities are shares (Guo et al. 2017); 1 if not given."""
    recipe: dict[str, Any] = Field(default_factory=dict)
    seed: int | None = None
    crops_digest: str = ""
    split: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    metrics: dict[str, float | None] = Field(default_factory=dict)
    software_version: str = __version__
    weights_sha256: str = ""

    def rule(self, task: str) -> Rule:
        """The aggregation rule of `task`."""
        return self.rules.get(task, Rule())


def load_card(uri: str) -> ModelCard:
    """The card of the model at `uri`, without its weights. Raises BadInput where there is no model."""
    where = normalize(uri)
    try:
        return ModelCard.model_validate_json(read_bytes(join(where, CARD)))
    except BadInput as error:
        raise BadInput(f"expected a model (a folder with {WEIGHTS} and {CARD}) at {where}, found none.") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BadInput(
            f"expected a SpineMet model card in {where}/{CARD}, found: {place or CARD}: {first['msg']}."
        ) from error


def read_weights(uri: str, card: ModelCard) -> bytes:
    """The safetensors of the model at `uri`. Raises BadInput where they are missing, damaged or not those of `card`."""
    where = join(uri, WEIGHTS)
    content = read_bytes(where)
    if hashlib.sha256(content).hexdigest() != card.weights_sha256:
        raise BadInput(f"expected the weights that {CARD} names in {where}, found others or a damaged file.")
    return content


def model_digest(card: ModelCard) -> str:
    """Twelve hexadecimal digits that change with the weights and with anything on the card."""
    if not card.weights_sha256:
        raise ValueError("expected the card of a saved model, found one without weights_sha256")
    return hashlib.sha256(card.model_dump_json().encode()).hexdigest()[:12]
