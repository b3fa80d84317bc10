"""How often a finding occurs among the vertebrae or patients in which it could be seen."""

from collections.abc import Iterator, Sequence

import duckdb
import pandas as pd

from spinemet.anatomy import LEVELS
from spinemet.cohort.views import trained_on
from spinemet.errors import BadInput
from spinemet.model.card import caution
from spinemet.results.schemas import LABEL_COLUMNS
from spinemet.statistics.intervals import proportion_interval
from spinemet.types import BONE_QUALITY

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

TASK = "bone_quality"
"""The task that is asked about by default."""

ANY = "any"
"""The finding "any class but the negative one"."""

UNITS: tuple[str, ...] = ("vertebra", "patient")

COUNTS: tuple[str, ...] = (
    "finding",
    "n_patients",
    "n_imaged",
    "n_cut",
    "n_unsure",
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
    connection: duckdb.DuckDBPyConnection, by: Sequence[str] = ("level",), unit: str = "vertebra", task: str = TASK
) -> pd.DataFrame:
    """One row per group and finding: counts, denominators, prevalence and its 95 % interval.

    connection: from `open_cohort`. Each patient counts once per level, with the latest study that shows it. by: columns
    of GROUPS; an empty list puts everything into one group. Missing values form the group `unknown`, unnamed vertebrae
    the level `unnamed`. unit: `vertebra`, or `patient`: positive with at least one positive vertebra in the group.
    task: of the model that screened last; its findings are those of `findings`.

    Columns: the groups, `finding`, `n_patients` (patients with a vertebra of the group in view), `n_imaged` (units in
    view), `n_cut` (of those, cut by the field of view), `n_unsure` (whole, but the model's call is unsure),
    `n_evaluable` (whole, classified and sure: the denominator), `n_positive`, `prevalence`, `ci_low`, `ci_high` (NaN if
    nothing is evaluable) and `interval`, the method of `proportion_interval`. A vertebra that is not imaged is in no
    count.

    Raises BadInput for an unknown column, unit or task.
    """
    _check(by, unit)
    names = findings(connection, task)
    columns = ", ".join(name for name in GROUPS if name != "level")
    # The wide columns say the same as the calls, and reading them takes a third of the time.
    label, source = task, "imaged"
    if task not in LABEL_COLUMNS:
        label, source = (
            "label",
            f"imaged left join (from current_calls where task = '{task}') using (source_key, vertebra)",
        )
    table = connection.execute(
        f"select patient, if(is_named, level, 'unnamed') as level, {columns}, completeness = 'cut' as cut, "
        "completeness = 'whole' and coalesce(unsure, '') <> '' as unsure, "
        f"evaluable and {label} is not null as evaluable, {label} as called from {source}"
    ).df()
    for name in names:
        table[name] = table["evaluable"] & table["called"].isin(names if name == ANY else [name])
    groups = list(by)
    for name in groups:
        table[name] = _as_group(name, table[name])
    parts = table.groupby(groups, observed=True) if groups else [((), table)]
    rows = [dict(zip(groups, key, strict=True)) | row for key, part in parts for row in _rows(part, unit, names)]
    return pd.DataFrame(rows, columns=[*groups, *COUNTS])


def notes(connection: duckdb.DuckDBPyConnection, by: Sequence[str]) -> list[str]:
    """Sentences that a reader of a prevalence `by` these columns has to know."""
    policies = connection.execute("select distinct date_policy from runs semi join current using (run_id)").fetchall()
    found = [caution(trained_on(connection))]
    if "year" in by and ("shifted",) in policies:
        found.append("Years are of shifted dates: each patient's lie 1 to 364 days before the true ones.")
    return [sentence for sentence in found if sentence]


def findings(connection: duckdb.DuckDBPyConnection, task: str = TASK) -> tuple[str, ...]:
    """The findings of a task: `any`, then each class but the first, negative one; of a no/yes task only `yes`.

    Raises BadInput if the model that screened last has no such task.
    """
    known = tasks(connection)
    if task not in known:
        raise BadInput(f"expected a task of the model that screened last ({', '.join(known)}), found {task}.")
    others = known[task][1:]
    return (ANY, *others) if len(others) > 1 else tuple(others)


def tasks(connection: duckdb.DuckDBPyConnection) -> dict[str, list[str]]:
    """Task -> classes, the negative one first, of the model that screened last; bone quality if nothing is called."""
    last = connection.execute("select arg_max(wave, committed_at) from current where levels_evaluable > 0").fetchone()
    classes = "select distinct task, class, class_number from all_calls where wave = ? order by task, class_number"
    found: dict[str, list[str]] = {}
    for task, name, _ in connection.execute(classes, last).fetchall():
        found.setdefault(task, []).append(name)
    return found or {TASK: list(BONE_QUALITY)}


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


def _rows(part: pd.DataFrame, unit: str, names: Sequence[str]) -> Iterator[dict[str, object]]:
    """One row per finding of one group."""
    if unit == "patient":
        part = part.groupby("patient").agg(
            {"cut": "all", "unsure": "any", "evaluable": "any"} | dict.fromkeys(names, "any")
        ).reset_index()  # fmt: skip
    looked = part[part["evaluable"]]
    sizes = looked.groupby("patient").size()
    for finding in names:
        positives = looked.groupby("patient")[finding].sum()
        interval = proportion_interval(positives, sizes)
        found, total = int(positives.sum()), len(looked)
        yield {
            "finding": finding,
            "n_patients": part["patient"].nunique(),
            "n_imaged": len(part),
            "n_cut": int((part["cut"] & ~part["evaluable"]).sum()),
            "n_unsure": int((part["unsure"] & ~part["evaluable"]).sum()),
            "n_evaluable": total,
            "n_positive": found,
            "prevalence": found / total if total else float("nan"),
            "ci_low": interval.low,
            "ci_high": interval.high,
            "interval": interval.method,
        }
