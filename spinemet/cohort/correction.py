"""Prevalences corrected for the errors of the model, as an evaluation measured them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from spinemet.cohort.evaluated import ANY, Evaluated
from spinemet.errors import BadInput
from spinemet.results.schemas import Row
from spinemet.statistics.correction import Corrected, Errors, correct

CORRECTED: tuple[str, ...] = ("corrected", "corrected_low", "corrected_high", "correction")
"""The columns that a correction adds; `correction` is the method, or why there is no value or no interval."""
ROGAN_GLADEN, MATRIX = "rogan_gladen", "matrix"
NOT_IDENTIFIABLE, CONTRADICTED, TOO_FEW = "not_identifiable", "contradicted", "too_few"


@dataclass(frozen=True, eq=False)
class Correction:
    """The errors of one task on one unit.

    of_finding: errors of each finding against the rest. of_classes: errors between all classes, if these are corrected
    together (the classes of vertebrae); else None. classes: the negative one first.
    """

    of_finding: Mapping[str, Errors]
    of_classes: Errors | None
    classes: Sequence[str]
    unit: str
    name: str

    @classmethod
    def of(
        cls, evaluated: Evaluated, task: str, classes: Sequence[str], findings: Sequence[str], unit: str
    ) -> Correction:
        """The errors of `evaluated`. Raises BadInput if not even its first finding can be corrected."""
        own = {finding: evaluated.errors(task, classes, unit, finding) for finding in findings}
        between = evaluated.errors(task, classes, unit) if unit == "vertebra" and len(classes) > 2 else None
        found = cls(own, between, classes, unit, evaluated.name)
        first = findings[0]
        if reason := own[first].not_identifiable(_sides(first, classes)):
            raise BadInput(f"the evaluation {evaluated.name} cannot correct {task} ({unit} as unit): {reason}.")
        return found

    def columns(self, shares: Mapping[str, float], sizes: Mapping[str, float]) -> dict[str, Row]:
        """Finding -> its columns CORRECTED.

        shares, sizes: of each finding, the share called so (NaN if nothing is evaluable) and the number of independent
        units with the same information (NaN if only one patient has any).
        """
        found: dict[str, Corrected] = {}
        for finding, errors in self.of_finding.items():
            share, size = shares[finding], sizes[finding]
            if not (math.isnan(share) or self._reason(finding)):
                found[finding] = correct([1 - share, share], [size, size], errors)[1]
        together = self.of_classes
        if together is not None and not math.isnan(shares[ANY]):
            names = self.classes[1:]
            called = [1 - shares[ANY], *(shares[name] for name in names)]
            if not self._reason(names[0]):
                solved = correct(called, [sizes[ANY], *(sizes[name] for name in names)], together)
                found |= dict(zip(names, solved[1:], strict=True))
        return {finding: self._row(finding, found.get(finding), sizes[finding]) for finding in self.of_finding}

    def _reason(self, finding: str) -> str:
        """Why `finding` cannot be corrected; empty if it can."""
        if self.of_classes is not None and finding != ANY:
            return self.of_classes.not_identifiable(self.classes)
        return self.of_finding[finding].not_identifiable(_sides(finding, self.classes))

    def _row(self, finding: str, one: Corrected | None, size: float) -> Row:
        if one is None:
            word = NOT_IDENTIFIABLE if self._reason(finding) else TOO_FEW
            return dict(zip(CORRECTED, (math.nan, math.nan, math.nan, word), strict=True))
        method = ROGAN_GLADEN if self.of_classes is None or finding == ANY else MATRIX
        if math.isnan(one.low):
            method = TOO_FEW if math.isnan(size) else CONTRADICTED
        return dict(zip(CORRECTED, (one.share, one.low, one.high, method), strict=True))

    def notes(self, table: pd.DataFrame) -> list[str]:
        """Sentences that a reader of the corrected `table` has to know."""
        first, errors = next(iter(self.of_finding.items()))
        negative, positive = _sides(first, self.classes)
        words = [
            f"Corrected with {self.name}: of evaluated {_plural(self.unit)} that are {positive}, "
            f"{100 * errors.shares_CC[1, 1]:.0f} % are called so, of those that are {negative} "
            f"{100 * errors.shares_CC[0, 1]:.0f} % by mistake (specificity {100 * errors.shares_CC[0, 0]:.0f} %). "
            "The correction holds if the model errs as often in each group here. An estimate of 0 or 100 % may be cut "
            "off."
        ]
        reasons = {finding: self._reason(finding) for finding in self.of_finding}
        for reason in dict.fromkeys(filter(None, reasons.values())):
            names = ", ".join(finding for finding, one in reasons.items() if one == reason)
            words.append(f"Not corrected: {names}, because {reason}.")
        if count := int((table["correction"] == CONTRADICTED).sum()):
            words.append(
                f"{count} rows contradict the evaluation: the model called fewer (or more) than its errors there "
                "alone would give. Its errors differ here, and these rows have no interval."
            )
        return words


def _sides(finding: str, classes: Sequence[str]) -> tuple[str, str]:
    """The words for units without and with the finding."""
    if finding == ANY:
        return str(classes[0]), f"not {classes[0]}"
    return f"not {finding}", finding


def _plural(unit: str) -> str:
    return {"vertebra": "vertebrae", "study": "studies"}.get(unit, f"{unit}s")
