"""A measure's table as OHDSI's `summarised_result`: one row per estimate, in 13 columns of text.

The form of omopgenerics 1.3 (vignette "A summarised result"): groups stand in the pair strata_name and strata_level,
several joined by ` &&& `; settings are rows whose variable_name is `settings`; a hidden number is `-`, as `suppress`
leaves it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from spinemet import __version__
from spinemet.cohort.disclosure import STRUCTURES, Structure, keys_of
from spinemet.cohort.prevalence import SOURCE
from spinemet.cohort.standard import STANDARDISED

COLUMNS: tuple[str, ...] = (
    "result_id",
    "cdm_name",
    "group_name",
    "group_level",
    "strata_name",
    "strata_level",
    "variable_name",
    "variable_level",
    "estimate_name",
    "estimate_type",
    "estimate_value",
    "additional_name",
    "additional_level",
)
HIDDEN = "-"
_OVERALL = "overall"
_JOIN = " &&& "
_PROPORTIONS = frozenset(
    {"prevalence", "share", "ci_low", "ci_high", "corrected", "corrected_low", "corrected_high"}
) | {*STANDARDISED[:3]}
"""Numbers between 0 and 1; in the table of a prevalence or of shares the ends of an interval too."""


def summarised_result(
    table: pd.DataFrame, shown: pd.DataFrame, measure: str, about: Mapping[str, Any], min_cell: int
) -> pd.DataFrame:
    """`shown`, the `table` of `measure` after `suppress` with `min_cell`, in the columns COLUMNS.

    about: the row of the view `asked`; it becomes the settings. A number that `table` lacks is missing, one that only
    `shown` lacks is HIDDEN.
    """
    structure = STRUCTURES.get(measure, Structure())
    keys = keys_of(table, structure)
    estimates = [name for name in table.columns if name not in {*keys, *SOURCE, structure.finding}]
    rows = [*_settings(measure, about, min_cell)]
    for (_, true), (_, row) in zip(table.iterrows(), shown.iterrows(), strict=True):
        where = {
            "strata_name": _JOIN.join(keys) or _OVERALL,
            "strata_level": _JOIN.join(str(true[name]) for name in keys) or _OVERALL,
            "variable_name": measure,
            "variable_level": true[structure.finding] if structure.finding else None,
        }
        rows += [where | _estimate(name, true[name], row[name], measure) for name in estimates]
    common = {"result_id": "1", "cdm_name": "spinemet"}
    common |= {f"{part}_{end}": _OVERALL for part in ("group", "strata", "additional") for end in ("name", "level")}
    return pd.DataFrame([common | row for row in rows], columns=list(COLUMNS)).astype(object)


def _settings(measure: str, about: Mapping[str, Any], min_cell: int) -> Iterator[dict[str, Any]]:
    values = {
        "result_type": f"spinemet_{measure}",
        "package_name": "spinemet",
        "package_version": __version__,
        "min_cell_count": str(min_cell),
    } | {name: str(about[name]) for name in (*SOURCE, "definition", "date_policy")}
    for name, value in values.items():
        yield {
            "variable_name": "settings",
            "variable_level": None,
            "estimate_name": name,
            "estimate_type": "character",
            "estimate_value": value,
        }


def _estimate(name: str, true: Any, shown: Any, measure: str) -> dict[str, Any]:
    if isinstance(true, str):
        return {"estimate_name": name, "estimate_type": "character", "estimate_value": true}
    whole = isinstance(true, int | np.integer)
    proportion = name in _PROPORTIONS and (measure == "prevalence" or name not in {"ci_low", "ci_high"})
    kind = "integer" if whole else "proportion" if proportion else "numeric"
    value = None if pd.isna(true) else HIDDEN if pd.isna(shown) else str(int(true)) if whole else repr(float(true))
    return {"estimate_name": name, "estimate_type": kind, "estimate_value": value}
