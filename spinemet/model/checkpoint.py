"""A trained model in a folder, local or on S3: weights in `model.safetensors`, card in `model.json` (card.py), marks
of its patients in `patients.json` (marks.py).

Loading unpickles nothing.
"""

import hashlib
from collections.abc import Iterable, Mapping

import safetensors.torch
import torch
from safetensors import SafetensorError

from spinemet.config import changed
from spinemet.errors import BadInput
from spinemet.files import join, write_bytes
from spinemet.model.card import CARD, WEIGHTS, ModelCard, load_card, model_digest, place_of, read_weights
from spinemet.model.marks import write_marks
from spinemet.model.multitask import MultiTask
from spinemet.model.spec import ModelSpec

FAMILIAR = "familiar"
"""The buffer of a model with the result of `doubt.fit_familiar`, saved with its weights; not every model has one."""

__all__ = [
    "CARD",
    "FAMILIAR",
    "WEIGHTS",
    "ModelCard",
    "load_card",
    "load_model",
    "model_digest",
    "save_model",
    "untrained",
]


def save_model(
    uri: str, model: MultiTask, card: ModelCard, split: Mapping[str, Iterable[str]] | None = None, key_id: str = ""
) -> ModelCard:
    """Write `model` and `card` to the folder `uri`; returns the card as written, with the digest of the weights.

    split: part -> pseudonyms of its patients, of the key with the id `key_id`; written as marks (see marks.py). None
    for a model whose patients nobody can name.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    content = safetensors.torch.save(state)
    card = changed(card, spec=model.spec, weights_sha256=hashlib.sha256(content).hexdigest())
    write_bytes(join(uri, WEIGHTS), content)
    if split is not None:
        write_marks(uri, card.weights_sha256, key_id, split)
    write_bytes(join(uri, CARD), (card.model_dump_json(indent=2) + "\n").encode())
    return card


def load_model(uri: str) -> tuple[MultiTask, ModelCard]:
    """The model at `uri` (or BUILTIN) in evaluation mode on the CPU, and its card.

    Raises BadInput if there is no model, or if its weights are missing, damaged, no numbers, or do not match the card.
    """
    card = load_card(uri)
    content = read_weights(uri, card)
    model = MultiTask(card.spec)
    try:
        state = safetensors.torch.load(content)
        if FAMILIAR in state:
            model.register_buffer(FAMILIAR, torch.empty_like(state[FAMILIAR]))
        _check_weights(state, model, join(place_of(uri), WEIGHTS))
        model.load_state_dict(state)
    except (SafetensorError, RuntimeError) as error:
        raise BadInput(
            f"the weights in {join(place_of(uri), WEIGHTS)} do not fit the model that {CARD} describes."
        ) from error
    return model.eval(), card


def _check_weights(state: Mapping[str, torch.Tensor], model: MultiTask, where: str) -> None:
    """Raise BadInput for weights of another type than the network's, or that are not numbers."""
    own = model.state_dict()
    for name, tensor in state.items():
        if name in own and tensor.dtype != own[name].dtype:
            raise BadInput(f"{where}: expected {own[name].dtype} in {name}, found {tensor.dtype}.")
        if not torch.isfinite(tensor).all():
            raise BadInput(f"{where}: expected numbers in {name}, found infinite ones or none; train the model again.")


def untrained(spec: ModelSpec, seed: int) -> MultiTask:
    """A model of `spec` with random weights from `seed`; torch's global generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MultiTask(spec)
