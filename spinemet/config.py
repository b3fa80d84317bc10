"""Settings for reading studies, their defaults, and the digest that goes on every result row.

A configuration is a TOML file with the tables below; unknown keys are errors. `StudyConfig`, and so the digest, holds
only settings that can change a result. The settings of a job (waves, workers) are not among them.
"""

import hashlib
import json
import math
import tomllib
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from spinemet.errors import BadInput

T = TypeVar("T", bound=BaseModel)
Localizer = Literal["auto", "masks", "geometric", "totalsegmentator"]
DatePolicy = Literal["exact", "shifted", "year"]


class FrozenModel(BaseModel):
    """A pydantic model that refuses unknown fields and never changes; `changed` makes a copy with other values."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SelectConfig(FrozenModel):
    """Rules for the series of a study; a series that breaks one is not read."""

    max_tilt_degrees: float = Field(35.0, ge=0, lt=90)
    """Between slices and axial plane: gantries tilt by at most 30 degrees, sagittal and coronal reformats by 90."""
    max_spacing_mm: float = Field(5.0, gt=0)
    """Archives usually keep 5 mm. Thicker slices miss whole lesions and hide the endplates between vertebrae."""
    min_slices: int = Field(16, ge=3)
    """Fewer slices cannot show the shape of a vertebra; localizers and bolus tracking have 1 to 10."""
    min_coverage_mm: float = Field(40.0, gt=0)
    """About one vertebra with its discs; less does not show a spine."""
    allow_lossy: bool = True
    """Some old archives have only lossy series. The loss is far below a lesion's contrast; such volumes get a flag."""
    usual_spacing_mm: tuple[float, float] = (0.9, 3.0)
    """Preferred if there is a choice: thinner slices are noisier and add nothing at the model's step of 3 mm, thicker
    ones blur the endplates."""
    skip_body_parts: tuple[str, ...] = (
        *("HEAD", "BRAIN", "SKULL", "ORBIT", "SINUS", "PARANASAL SINUS", "MAXILLA", "MANDIBLE", "TEMPORAL BONE", "EAR"),
        *("HAND", "FINGER", "WRIST", "FOREARM", "ELBOW", "ARM", "HUMERUS"),
        *("FOOT", "TOE", "ANKLE", "CALF", "LEG", "KNEE", "THIGH", "FEMUR", "EXTREMITY"),
    )
    """BodyPartExamined of short series without a vertebra, or with C1 and C2 only. Series of the shoulder, the hip and
    the breast show vertebrae."""


class SliceConfig(FrozenModel):
    """The slices that are cut for the model."""

    size_px: int = Field(224, ge=32, multiple_of=16)
    pixel_mm: float = Field(0.5, gt=0)
    """224 x 0.5 mm = 112 mm holds a large lumbar vertebra with its transverse processes."""
    step_mm: float = Field(3.0, gt=0)
    """Distance between neighbouring slices of a vertebra."""


class StudyConfig(FrozenModel):
    """Every setting that can change the reading of a study."""

    localizer: Localizer = "auto"
    """`auto`: the study's own segmentation if it has one, else the geometric localizer."""
    select: SelectConfig = SelectConfig()
    slices: SliceConfig = SliceConfig()


def config_digest(config: BaseModel) -> str:
    """Twelve hexadecimal digits that change whenever a value of `config` changes (SHA-256 of its canonical JSON)."""
    canonical = json.dumps(config.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def load_config(path: str | Path | None, kind: type[T]) -> T:
    """The configuration of `kind` in the TOML file at `path`, or its defaults for None.

    Raises BadInput if the file is missing, is not TOML in UTF-8, or holds an unknown key, a value out of range, inf or
    nan.
    """
    if path is None:
        return kind()
    try:
        text = Path(path).read_text()
    except OSError as error:
        raise BadInput(f"cannot read the configuration file {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"expected text in UTF-8 in the configuration file {path}, found another encoding.") from error
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{path} is not valid TOML: {error}.") from error
    if place := _without_number(values):
        raise BadInput(f"{path}: {place}: expected a number, found inf or nan.")
    return _validated(kind, values, str(path))


def _without_number(value: object) -> str:
    """The place of the first inf or nan in parsed TOML, such as `slices.pixel_mm`; "" if there is none."""
    if isinstance(value, float):
        return "" if math.isfinite(value) else "."
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in parts:
        if place := _without_number(part):
            return f"{name}.{place}".rstrip(".")
    return ""


def changed(model: T, /, **changes: object) -> T:
    """A copy of `model` with `changes`, validated like a new one (pydantic's `model_copy` accepts anything).

    Raises BadInput if a name is no field of the model or a value is not allowed.
    """
    kind = type(model)
    if unknown := sorted(changes.keys() - kind.model_fields.keys()):
        raise BadInput(f"{kind.__name__} has no field {unknown[0]}; its fields are {', '.join(kind.model_fields)}.")
    return _validated(kind, {**dict(model), **changes}, kind.__name__)


def _validated(kind: type[T], values: dict[str, object], source: str) -> T:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BadInput(f"{source}: {place}: {first['msg']}, found {first['input']!r}.") from error
