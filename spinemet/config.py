"""Configuration: what can be set, its defaults, and the digest that goes on every result row.

A configuration is a TOML file with the tables below; unknown keys are errors. Only what can change a result is part
of `StudyConfig` and hence of the digest: how studies are read. How a job runs (waves, workers) is not.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from spinemet.errors import BadInput

T = TypeVar("T", bound=BaseModel)
Localizer = Literal["auto", "masks", "geometric", "totalsegmentator"]
DatePolicy = Literal["exact", "shifted", "year"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SelectConfig(_Section):
    """Which series of a study is read."""

    max_spacing_mm: float = Field(5.0, gt=0)
    """Thicker series miss whole lesions and cannot be told apart by endplates; 5 mm is the usual archive thickness."""
    min_slices: int = Field(16, ge=3)
    min_coverage_mm: float = Field(40.0, gt=0)
    """Less than about one vertebra with its discs is not a spine examination."""
    allow_lossy: bool = True


class SliceConfig(_Section):
    """The slices that go to the model."""

    size_px: int = Field(224, ge=32, multiple_of=32)
    pixel_mm: float = Field(0.5, gt=0)
    """224 x 0.5 mm = 112 mm: a large lumbar vertebra with its transverse processes."""
    step_mm: float = Field(3.0, gt=0)
    """Between neighbouring slices of one vertebra."""


class StudyConfig(_Section):
    """Everything that decides what a study's reading looks like."""

    localizer: Localizer = "auto"
    """`auto`: the study's own segmentation where it has one, else the geometric localizer."""
    select: SelectConfig = SelectConfig()
    slices: SliceConfig = SliceConfig()


def config_digest(config: BaseModel) -> str:
    """Twelve hexadecimal digits that change whenever a value of `config` changes (SHA-256 of its canonical JSON)."""
    canonical = json.dumps(config.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def load_config(path: str | Path | None, kind: type[T]) -> T:
    """The configuration of `kind` in the TOML file at `path`, or its defaults for None.

    Raises BadInput where the file is missing, is not TOML, or holds an unknown key or a value out of range.
    """
    if path is None:
        return kind()
    try:
        text = Path(path).read_text()
    except OSError as error:
        raise BadInput(f"expected a configuration file at {path}, found none ({error.strerror}).") from error
    try:
        return kind.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"expected TOML in {path}, found a syntax error: {error}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BadInput(f"{path}: {place}: {first['msg']}, found {first['input']!r}.") from error
