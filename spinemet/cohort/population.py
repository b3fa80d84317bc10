"""Whom and what a question is about: one definition, which a file can keep and every answer names."""

import json
import re
from datetime import date
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from spinemet.config import FrozenModel, config_digest

ARGMAX = "argmax"
PointName = Annotated[str, Field(pattern="^specificity_[0-9.]+$")]
_CALENDAR = re.compile(r"\b(year|study_date)\b", re.IGNORECASE)


class Population(FrozenModel):
    """The studies that a question is about, and the rule that calls a vertebra positive. A TOML file can hold it."""

    model: str = ""
    """The model's digest or its first digits; empty if the tables hold only one that has screened."""
    configuration: str = ""
    """The reading configuration's digest or its first digits; empty like `model`."""
    since: date | None = None
    """The first day of the period."""
    until: date | None = None
    """The last day of the period, which belongs to it."""
    where: str = ""
    """A condition of SQL on the columns of `studies`, such as `sex = 'F' and slice_spacing_mm <= 3`."""
    counted: Literal["latest", "first"] = "latest"
    """Which of a patient's studies in the period gives a level, of those in which it is evaluable."""
    training_patients: Literal["left out", "counted"] = "left out"
    """Whether patients that the model was trained or validated on count; it calls them better than all others."""
    rule: Literal["argmax"] | PointName | Annotated[float, Field(gt=0, lt=1)] = "argmax"
    """`argmax`: positive if the most probable class is not the negative one. A number: if all classes but the negative
    one together are at least so probable; the class is then the most probable of these. The name of an operating point
    of the model, such as `specificity_90`: the same, with the threshold that evaluation stored for each task."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.since and self.until and self.since > self.until:
            raise ValueError("expected `since` not to be after `until`")
        return self

    @property
    def digest(self) -> str:
        """Twelve digits that change with every value."""
        return config_digest(self)

    @property
    def needs_calendar(self) -> bool:
        """Whether true dates decide which studies belong to it."""
        return bool(self.since or self.until or _CALENDAR.search(self.where))

    @property
    def in_whole_years(self) -> bool:
        """Whether dates of which only the year is known can decide it."""
        starts = self.since is None or (self.since.month, self.since.day) == (1, 1)
        ends = self.until is None or (self.until.month, self.until.day) == (12, 31)
        return starts and ends and not re.search(r"\bstudy_date\b", self.where, re.IGNORECASE)

    def rule_in_words(self, threshold: float | None = None) -> str:
        """`argmax`, or such as `p(lesion) >= 0.3`; of an operating point, whose `threshold` it is, with its name."""
        if isinstance(self.rule, float):
            return f"p(lesion) >= {self.rule:g}"
        return ARGMAX if threshold is None else f"{self.rule}: p(lesion) >= {threshold:.3g}"

    def as_toml(self) -> str:
        """The content of a file from which `load_config` makes this population again."""
        values = {name: value for name, value in self if value not in ("", None)}
        lines = (f"{name} = {json.dumps(v) if isinstance(v, str) else v}" for name, v in values.items())
        return "\n".join(lines) + "\n"
