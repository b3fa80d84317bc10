"""How often a finding is there, among those in whom it could have been seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import duckdb
import pandas as pd

from spinemet.anatomy import LEVELS
from spinemet.errors import BadInput
from spinemet.statistics.intervals import proportion_interval

GROUPS: tuple[str, ...] = (
    "level",
    "region",
    "sex",
    "age_group",
    "year",
    "manufacturer",
    "manufacturer_model",
    "kernel",
    "contrast",
    "localizer",
)
"""The columns that a prevalence can be grouped by; age group and sex are those of the patient's latest study."""

FINDINGS: dict[str, str] = {"any": "any_lesion", "blastic": "blastic", "mixed": "mixed", "lytic": "lytic"}
"""Name of the finding to its column in the view `imaged`; a vertebra has one class, so the last three add up to any."""

UNITS: tuple[str, ...] = ("vertebra", "patient")

COUNTS: tuple[str, ...] = (
    "finding",
    "n_patients",
    "n_imaged",
    "n_cut",
    "n_evaluable",
    "n_positive",
    "prevalence",
    "ci_low",
    "ci_high",
    "interval",
)
"""The columns of an answer after the groups."""

_ORDERS: dict[str, tuple[str, ...]] = {
    "level": (*LEVELS, "unnamed"),
    "region": ("cervical", "thoracic", "lumbar", "sacral", "unnamed"),
}


def prevalence(
    connection: duckdb.DuckDBPyConnection, by: Sequence[str] = ("level",), unit: str = "vertebra"
) -> pd.DataFrame:
    """One row per group and finding: counts, denominators, prevalence and its 95 % interval.

    connection: from `open_cohort`. Each patient counts once per level, with the latest study that shows it. by: columns
    of GROUPS, none for all together; missing values form the group `unknown`, unnamed vertebrae the level `unnamed`.
    unit: `vertebra`, or `patient`, who is positive with at least one positive vertebra in the group.

    Columns: the groups, `finding`, `n_patients` (patients with a vertebra of the group in view), `n_imaged` (units in
    view), `n_cut` (of those, cut by the field of view), `n_evaluable` (whole and classified: the denominator),
    `n_positive`, `prevalence`, `ci_low`, `ci_high` (NaN where nothing is evaluable) and `interval`, the method of
    `proportion_interval`. "Not imaged" is in no count at all.

    Raises BadInput for an unknown column or unit.
    """
    _check(by, unit)
    columns = ", ".join(name for name in GROUPS if name != "level")
    table = connection.execute(
        f"select patient, if(is_named, level, 'unnamed') as level, {columns}, completeness = 'cut' as cut, evaluable, "
        f"{', '.join(FINDINGS.values())} from imaged"
    ).df()
    groups = list(by)
    for name in groups:
        table[name] = _as_group(name, table[name])
    parts = table.groupby(groups, observed=True) if groups else [((), table)]
    rows = [dict(zip(groups, key, strict=True)) | row for key, part in parts for row in _rows(part, unit)]
    return pd.DataFrame(rows, columns=[*groups, *COUNTS])


def _check(by: Sequence[str], unit: str) -> None:
    unknown = [name for name in by if name not in GROUPS]
    if unknown:
        raise BadInput(f"expected columns out of {', '.join(GROUPS)} to group by, found {', '.join(unknown)}.")
    if len(set(by)) < len(by):
        raise BadInput(f"expected each column to group by once, found {', '.join(by)}.")
    if unit not in UNITS:
        raise BadInput(f"expected one of {', '.join(UNITS)} as unit, found {unit}.")


def _as_group(name: str, values: pd.Series) -> pd.Series:
    """`values` as words in the order in which a reader expects them, `unknown` last."""
    if name == "contrast":
        words = values.map({True: "yes", False: "no"})
    elif name == "year":
        words = values.map(lambda year: f"{int(year)}", na_action="ignore")
    else:
        words = values.replace("", None)
    words = words.astype(object).where(words.notna(), "unknown")
    known = _ORDERS.get(name) or sorted(set(words) - {"unknown"})
    return pd.Series(pd.Categorical(words, [*known, "unknown"], ordered=True), index=values.index)


def _rows(part: pd.DataFrame, unit: str) -> Iterator[dict[str, object]]:
    """One row per finding of one group."""
    if unit == "patient":
        part = part.groupby("patient").agg(
            {"cut": "all", "evaluable": "any"} | dict.fromkeys(FINDINGS.values(), "max")
        ).reset_index()  # fmt: skip
    looked = part[part["evaluable"].astype(bool)]
    clusters = looked.groupby("patient")
    sizes = clusters.size()
    for finding, column in FINDINGS.items():
        positives = looked[column].astype(bool).groupby(looked["patient"]).sum()
        interval = proportion_interval(positives, sizes)
        found, total = int(positives.sum()), len(looked)
        yield {
            "finding": finding,
            "n_patients": part["patient"].nunique(),
            "n_imaged": len(part),
            "n_cut": int((part["cut"].astype(bool) & ~part["evaluable"].astype(bool)).sum()),
            "n_evaluable": total,
            "n_positive": found,
            "prevalence": found / total if total else float("nan"),
            "ci_low": interval.low,
            "ci_high": interval.high,
            "interval": interval.method,
        }
