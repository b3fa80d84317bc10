"""The operating points of a model, by name, in a file beside it: `operating.json`. Evaluation writes it.

A point such as `specificity_90` is, for each task, the least probability of all classes but the negative one together
that kept this specificity on the validation patients. Screening copies the points to the tables; a population's rule
names one.
"""

import json

from pydantic import ValidationError

from spinemet.config import FrozenModel
from spinemet.errors import BadInput
from spinemet.files import exists, join, read_bytes, write_bytes
from spinemet.model.card import ModelCard, place_of

POINTS = "operating.json"
Points = dict[str, dict[str, float]]
"""Name -> task -> threshold."""


class StoredPoints(FrozenModel):
    """The content of the file, and the weights that the points are of."""

    weights_sha256: str
    points: Points


def point_name(specificity: float) -> str:
    """The name of an operating point, such as specificity_90."""
    return f"specificity_{specificity * 100:g}"


def write_points(uri: str, card: ModelCard, points: Points) -> None:
    """Store `points` in the model folder `uri`; they replace earlier ones."""
    stored = StoredPoints(weights_sha256=card.weights_sha256, points=points)
    write_bytes(join(place_of(uri), POINTS), (stored.model_dump_json(indent=1) + "\n").encode())


def load_points(uri: str, card: ModelCard) -> Points:
    """The operating points of the model at `uri`; none if it was not evaluated on its own crops.

    Raises BadInput if the file is damaged or belongs to another model.
    """
    where = join(place_of(uri), POINTS)
    if not exists(where):
        return {}
    try:
        stored = StoredPoints.model_validate_json(read_bytes(where))
    except ValidationError as error:
        raise BadInput(f"expected the operating points of a model in {where}, found something else.") from error
    if stored.weights_sha256 != card.weights_sha256:
        raise BadInput(
            f"{where} belongs to another model: evaluate this one with jobs/evaluate.py, or delete the file."
        )
    return stored.points


def as_json(points: Points) -> str | None:
    """`points` as the tables hold them; None for none."""
    return json.dumps(points, sort_keys=True) if points else None
