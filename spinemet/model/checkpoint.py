"""A trained model on disk: a folder, local or on S3, with `model.safetensors` and `model.json`.

The weights are safetensors and the card is JSON: nothing is unpickled.
"""

from __future__ import annotations

import hashlib
from typing import Any

import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError

from spinemet import __version__
from spinemet.errors import BadInput
from spinemet.model.aggregate import Rule
from spinemet.model.multitask import MultiTask
from spinemet.model.spec import ModelSpec
from spinemet.storage.files import join, normalize, read_bytes, write_bytes

WEIGHTS = "model.safetensors"
CARD = "model.json"


class ModelCard(BaseModel):
    """What a model is, what it was made from, and how well it did on its validation patients.

    split: part (`train`, `validation`, `test`) -> the patients' keys as they stand in the crops; who uses the model
    on the same crops evaluates on `test`. weights_sha256 ties the card to its weights.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    spec: ModelSpec
    rules: dict[str, Rule] = Field(default_factory=dict)
    """Task -> aggregation from slices to the vertebra; `mean` where none is given."""
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


def save_model(uri: str, model: MultiTask, card: ModelCard) -> ModelCard:
    """Write `model` and `card` to the folder `uri`; gives the card as written, with the digest of the weights."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    content = safetensors.torch.save(state)
    card = card.model_copy(update={"spec": model.spec, "weights_sha256": hashlib.sha256(content).hexdigest()})
    write_bytes(join(uri, WEIGHTS), content)
    write_bytes(join(uri, CARD), (card.model_dump_json(indent=2) + "\n").encode())
    return card


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


def load_model(uri: str) -> tuple[MultiTask, ModelCard]:
    """The model at `uri` in evaluation mode on the CPU, and its card.

    Raises BadInput where there is no model, or its weights are missing, damaged or not those of the card.
    """
    card = load_card(uri)
    where = join(uri, WEIGHTS)
    content = read_bytes(where)
    if hashlib.sha256(content).hexdigest() != card.weights_sha256:
        raise BadInput(f"expected the weights that {CARD} names in {where}, found others or a damaged file.")
    model = MultiTask(card.spec)
    try:
        model.load_state_dict(safetensors.torch.load(content))
    except (SafetensorError, RuntimeError) as error:
        raise BadInput(f"expected weights for the model of {CARD} in {where}, found others.") from error
    return model.eval(), card


def model_digest(card: ModelCard) -> str:
    """Twelve hexadecimal digits that change with the weights and with anything on the card."""
    if not card.weights_sha256:
        raise ValueError("expected the card of a saved model, found one without weights_sha256")
    return hashlib.sha256(card.model_dump_json().encode()).hexdigest()[:12]


def untrained(spec: ModelSpec, seed: int) -> MultiTask:
    """A model of `spec` with the random weights that `seed` gives; leaves torch's global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MultiTask(spec)
