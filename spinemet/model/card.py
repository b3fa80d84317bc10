"""A saved model without torch: its card (JSON), and its weights as bytes."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, FiniteFloat, ValidationError

from spinemet import __version__
from spinemet.config import FrozenModel
from spinemet.errors import BadInput
from spinemet.files import join, normalize, read_bytes
from spinemet.model.aggregate import Rule, vertebra_probabilities
from spinemet.model.doubt import Doubts
from spinemet.model.spec import ModelSpec
from spinemet.types import FloatArray

WEIGHTS = "model.safetensors"
CARD = "model.json"
_LATER = ("offsets", "trained_on", "about", "doubts", "patients", "split_digest", "canary")
"""Fields that earlier versions did not have. Empty, they leave the digest as it was, and no archive is read again."""
BUILTIN = "builtin"
"""The model that comes with this package, by name instead of a place. Its card says what it was trained on."""


class ModelCard(FrozenModel):
    """A model's tasks and settings, its training data, and its measures on the validation patients.

    It names no patient; which patients the model has met, marks.py says. weights_sha256: of the weights that belong to
    this card.
    """

    spec: ModelSpec
    rules: dict[str, Rule] = Field(default_factory=dict)
    """Task -> rule from slices to the vertebra; `mean` for a task that is not in here."""
    temperatures: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(default_factory=dict)
    """Task -> divisor of its logits that calibrates its probabilities (Guo et al. 2017); 1 for a task not in here."""
    offsets: dict[str, tuple[FiniteFloat, ...]] = Field(default_factory=dict)
    """Task of a composed model -> what is added to the log probability of each class (see `aggregate.compose`)."""
    recipe: dict[str, Any] = Field(default_factory=dict)
    seed: int | None = None
    crops_digest: str = ""
    trained_on: str = ""
    """What the training data are of if they are not all of patients, such as `phantoms`; "" if nobody said."""
    about: str = ""
    """For readers: sources and their licences, how good the model is and what it is not. "" if nobody wrote it."""
    canary: dict[str, tuple[float, ...]] = Field(default_factory=dict)
    """Task -> the probabilities of fixed slices, one after the other: a model that gives others is not sound."""
    doubts: Doubts | None = None
    """What makes a call of this model unsure; None for a model that cannot tell."""
    patients: dict[str, int] = Field(default_factory=dict)
    """Part (`train`, `validation`, `test`) -> number of patients."""
    split_digest: str = ""
    """Twelve digits that two models share if their parts hold the same patients under the same pseudonym key."""
    split: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Only of earlier versions, which listed patients as hashes without a key. Read for the digest's sake, not used."""
    metrics: dict[str, float | None] = Field(default_factory=dict)
    software_version: str = __version__
    weights_sha256: str = ""

    def of_vertebra(self, slices_NC: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """Task -> (C,) probabilities of a vertebra, from its slices' (N, C)."""
        return dict(vertebra_probabilities(slices_NC, self.spec, self.rules, self.offsets))


def caution(trained_on: str | None) -> str:
    """A sentence for whoever reads a model's calls; "" if it may have been trained on patients alone."""
    return f"The model was trained on {trained_on}: its calls on patients are not validated." if trained_on else ""


def place_of(model: str) -> str:
    """The folder or s3:// prefix of `model`, which is a place or BUILTIN."""
    return str(Path(__file__).with_name(BUILTIN)) if model == BUILTIN else normalize(model)


def load_card(uri: str) -> ModelCard:
    """The card of the model at `uri` (or BUILTIN), without its weights. Raises BadInput if there is no model."""
    where = place_of(uri)
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
    """The safetensors of the model at `uri` (or BUILTIN).

    Raises BadInput if they are missing, damaged or do not match `card`.
    """
    where = join(place_of(uri), WEIGHTS)
    content = read_bytes(where)
    if hashlib.sha256(content).hexdigest() != card.weights_sha256:
        raise BadInput(f"{where} is damaged, or its weights do not belong to {CARD}.")
    return content


def model_digest(card: ModelCard) -> str:
    """Twelve hexadecimal digits that change with the weights and with every value of the card."""
    if not card.weights_sha256:
        raise ValueError("expected the card of a saved model, found one without weights_sha256")
    unset = {name for name in _LATER if not getattr(card, name)}
    return hashlib.sha256(card.model_dump_json(exclude=unset).encode()).hexdigest()[:12]
