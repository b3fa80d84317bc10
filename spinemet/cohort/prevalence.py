"""How often a finding occurs among the vertebrae, studies or patients in which it could be seen."""

import json
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import duckdb
import pandas as pd

from spinemet.anatomy import LEVELS
from spinemet.cohort.correction import CORRECTED, Correction
from spinemet.cohort.evaluated import ANY, Evaluated
from spinemet.cohort.standard import STANDARDISED, Key, Standard, standard_columns, standard_sums
from spinemet.cohort.views import LESION_TASK, asked, held, records, refuse_calendar, trained_on
from spinemet.errors import BadInput
from spinemet.model.card import caution
from spinemet.model.marks import Matching
from spinemet.results.schemas import Row
from spinemet.statistics.intervals import ClusterSums, interval_of_sums
from spinemet.statistics.standardisation import StandardSums
from spinemet.types import BONE_QUALITY

GROUPS: dict[str, str] = {
    "level": "if(is_named, level, 'unnamed')",
    "region": "case level[1] when 'C' then 'cervical' when 'T' then 'thoracic' when 'L' then 'lumbar' when 'S' then "
    "'sacral' else 'unnamed' end",
    "sex": "sex",
    "age_group": "age_group",
    "year": "year::varchar",
    "manufacturer": "manufacturer",
    "manufacturer_model": "manufacturer_model",
    "kernel": "kernel",
    "contrast": "if(contrast, 'yes', 'no')",
    "localizer": "localizer",
}
"""The columns that a prevalence can be grouped by, of the study that the row comes from; and their words in SQL."""

TASK = LESION_TASK
"""The task that is asked about by default."""

UNITS: dict[str, str] = {"vertebra": "", "study": "person, place", "patient": "person"}
"""What is counted, and the columns whose equal values make one unit."""

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
"""The columns of an answer after the groups and before SOURCE."""

SOURCE: tuple[str, ...] = ("rule", "model", "configuration", "population", "ledger_version")
"""The last columns of an answer, of the view `asked`: what it is about, so that it can be asked again."""

_ORDERS: dict[str, tuple[str, ...]] = {
    "level": (*LEVELS, "unnamed"),
    "region": ("cervical", "thoracic", "lumbar", "sacral", "unnamed"),
}


def prevalence(
    connection: duckdb.DuckDBPyConnection,
    by: Sequence[str] = ("level",),
    unit: str = "vertebra",
    task: str = TASK,
    correction: Correction | None = None,
    standard: Standard | None = None,
) -> pd.DataFrame:
    """One row per group and finding: counts, denominators, prevalence and its 95 % interval.

    connection: from `open_cohort`. by: columns of GROUPS; an empty list puts everything into one group. Missing values
    form the group `unknown`, unnamed vertebrae the level `unnamed`. Each patient counts once per level (in each year,
    if `by` has the year), and a row has the age and the scanner of the study that it comes from. unit: `vertebra`;
    `patient`, positive with at least one positive vertebra in the group; or `study`, the same for each study of the
    population. task: of the model; its findings are those of `findings`. correction: of `correction_of`, for the same
    unit and task; adds the columns CORRECTED after `interval`. standard: adds the columns STANDARDISED before them, and
    a correction then corrects the standardised share.

    Columns: the groups, `finding`, `n_patients` (patients with a vertebra of the group in view), `n_imaged` (units in
    view), `n_cut` (of those, cut by the field of view), `n_unsure` (whole, but the model's call is unsure),
    `n_evaluable` (whole, classified and sure: the denominator), `n_positive`, `prevalence`, `ci_low`, `ci_high`,
    `interval` (the method of `interval_of_sums`; both ends are NaN if it is `too_few`), and SOURCE. A vertebra that is
    not imaged is in no count.

    Raises BadInput for an unknown column, unit or task, for years if the dates are shifted, and for a standard that
    does not fit (`standard_sums`).
    """
    _check(by, unit)
    about = asked(connection)
    if "year" in by:
        refuse_calendar(about["date_policy"])
    names, groups = findings(connection, task), list(by)
    _check_rule(about, task)
    seen = held(connection, "seen_in_study" if unit == "study" else "seen_in_year" if "year" in groups else "seen")
    sums = connection.execute(_query(seen, groups, unit, task, names)).df()
    standardised: dict[Key, list[StandardSums]] = {}
    words = ""
    if standard:
        patients = f"{_patients(seen, [*groups, *standard.strata], unit, task, names)} select * from patients"
        standardised, words = standard_sums(connection, patients, groups, len(names), standard)
    for name in groups:
        sums[name] = pd.Categorical(sums[name], group_order(name, set(sums[name])), ordered=True)
    if groups:
        sums = sums.sort_values(groups, kind="stable")
    source = {name: about[name] for name in SOURCE}
    rows = [
        {name: one[name] for name in groups} | row | source
        for one in sums.to_dict("records")
        if one["n_imaged"]
        for row in _rows(one, names, correction, standardised.get(tuple(str(one[name]) for name in groups)), words)
    ]
    more = (STANDARDISED if standard else ()) + (CORRECTED if correction else ())
    return pd.DataFrame(rows, columns=[*groups, *COUNTS, *more, *SOURCE])


def correction_of(
    connection: duckdb.DuckDBPyConnection, evaluated: Evaluated, unit: str = "vertebra", task: str = TASK
) -> Correction:
    """The correction of a prevalence for the errors that `evaluated` (of `read_evaluation`) measured.

    Raises BadInput if the errors cannot be corrected, or for an unknown unit or task.
    """
    _check((), unit)
    names = findings(connection, task)
    return Correction.of(evaluated, task, tasks(connection)[task], names, unit)


def _patients(seen: str, groups: Sequence[str], unit: str, task: str, names: Sequence[str]) -> str:
    """The start of a query: `patients`, one row per group and `person`. The database reduces vertebrae to units."""
    seen = f"{seen} join placed using (place, person)"
    # The column says the same as the calls, and reading it takes a third of the time.
    called = "called"
    if task != TASK:
        called = "label"
        seen = f"{seen} left join (from current_calls where task = '{task}') using (source_key, vertebra)"
    positive = [
        f"called in ({', '.join(repr(one) for one in names)})" if n == ANY else f"called = '{n}'" for n in names
    ]
    words = "".join(f"coalesce(nullif({GROUPS[name]}, ''), 'unknown') as {name}, " for name in groups)
    by = "".join(f"{name}, " for name in groups)
    places = range(len(names))
    together = "bool_or(evaluable) as evaluable, bool_and(cut) as cut, bool_or(unsure) as unsure, " + ", ".join(
        f"bool_or(p{n}) as p{n}" for n in places
    )
    units = f"select {by}{UNITS[unit]}, {together} from rows group by all" if UNITS[unit] else "from rows"
    distinct = "where is_distinct" if unit == "vertebra" else ""
    return f"""
        with judged as (
            select {words}person, place, cut, unsure, evaluable and {called} is not null as evaluable,
                {called} as called
            from {seen} {distinct}
        ), rows as (
            select * exclude (called), {
        ", ".join(f"evaluable and {p} as p{n}" for n, p in enumerate(positive))
    } from judged
        ), units as ({units}), patients as (
            select {by}person, count(*) as imaged, count(*) filter (cut and not evaluable) as cut,
                count(*) filter (unsure and not evaluable) as unsure, count(*) filter (evaluable) as n,
                {", ".join(f"count(*) filter (p{n}) as x{n}" for n in places)}
            from units group by all
        )"""


def _query(seen: str, groups: Sequence[str], unit: str, task: str, names: Sequence[str]) -> str:
    """The query for one row per group: counts, and the sums over patients that an interval needs."""
    by, places = "".join(f"{name}, " for name in groups), range(len(names))
    return f"""
        {_patients(seen, groups, unit, task, names)}
        select {by}count(*) as n_patients, sum(imaged)::bigint as n_imaged, sum(cut)::bigint as n_cut,
            sum(unsure)::bigint as n_unsure, count(*) filter (n > 0) as clusters,
            sum(n)::bigint as units, sum(n * n)::double as units_squared,
            {
        ", ".join(
            f"sum(x{n})::bigint as positives_{n}, sum(x{n} * x{n})::double as positives_squared_{n}, "
            f"sum(x{n} * n)::double as products_{n}, "
            f"count(*) filter (x{n} > 0) as positive_clusters_{n}, count(*) filter (x{n} < n) as negative_clusters_{n}"
            for n in places
        )
    }
        from patients {"group by all" if groups else ""}
    """


def _rows(
    one: Mapping[Hashable, Any],
    names: Sequence[str],
    correction: Correction | None,
    standardised: Sequence[StandardSums] | None,
    words: str,
) -> list[Row]:
    """The columns COUNTS, and STANDARDISED and CORRECTED if asked for, of each finding of a row of `_query`."""
    sums = {finding: _sums(one, place) for place, finding in enumerate(names)}
    rows = [_row(one, finding, of) for finding, of in sums.items()]
    shares = {row["finding"]: row["prevalence"] for row in rows}
    few = {row["finding"]: math.isnan(row["ci_low"]) for row in rows}
    sizes = {finding: math.nan if few[finding] else of.effective_size for finding, of in sums.items()}
    if words:
        columns = standard_columns(standardised, words, len(names))
        rows = [row | more for row, more in zip(rows, columns, strict=True)]
        shares = {row["finding"]: row["standardised"] for row in rows}
        of_groups = [one.effective_size for one in standardised or ()] or [math.nan] * len(names)
        sizes = dict(zip(names, of_groups, strict=True))
    if correction is None:
        return rows
    corrected = correction.columns(shares, sizes)
    return [row | corrected[row["finding"]] for row in rows]


def _sums(one: Mapping[Hashable, Any], place: int) -> ClusterSums:
    """The sums of the finding at `place` of a row of `_query`."""
    shared = ("clusters", "units", "units_squared")
    own = ("positives", "positives_squared", "products", "positive_clusters", "negative_clusters")
    return ClusterSums(**{name: one[name] for name in shared}, **{name: one[f"{name}_{place}"] for name in own})


def _row(one: Mapping[Hashable, Any], finding: str, sums: ClusterSums) -> Row:
    interval = interval_of_sums(sums)
    return {
        "finding": finding,
        **{name: one[name] for name in ("n_patients", "n_imaged", "n_cut", "n_unsure")},
        "n_evaluable": sums.units,
        "n_positive": sums.positives,
        "prevalence": sums.positives / sums.units if sums.units else math.nan,
        "ci_low": interval.low,
        "ci_high": interval.high,
        "interval": interval.method,
    }


def group_order(name: str, words: set[str]) -> list[str]:
    """The words of a group in the order in which a reader expects them, `unknown` last."""
    return [*(_ORDERS.get(name) or sorted(words - {"unknown"})), "unknown"]


def notes(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Sentences that a reader of any answer has to know: what it is about, what was left out, what it rests on."""
    about, seen = asked(connection), held(connection, "seen")
    out = records(
        connection,
        f"""select
            (select count(*) from placed where left_as = 'no_patient_key') as unkeyed,
            (select count(*) from placed where left_as = 'no_date') as undated,
            (select count(distinct person) from placed where left_as = 'trained_on') as trained,
            (select count(distinct person) from placed where left_as is null and is_known) as known,
            (select count(distinct person) from placed where left_as is null and is_known is null) as unknown,
            (select arg_max(coalesce(training_marks, ''), started_at) from runs
             where model_digest = (select model from asked)) as marks,
            (select count(*) from {seen} where not is_distinct) as unmatched,
            (select count(distinct person) from (select person from placed where is_tied and left_as is null
                                                 group by person, study_date, age having count(*) > 1)) as tied""",
    )[0]
    found = [
        f"Model {about['model']}, configuration {about['configuration']}, rule {about['rule']}, population "
        f"{about['population']}, version {about['ledger_version']} of the ledger (--as-of {about['ledger_version']}).",
        _about_publication(about),
        caution(trained_on(connection)),
    ]
    for count, words in (
        (out["unkeyed"], "screened studies have no patient key: they belong to no person and are not counted."),
        (
            out["trained"],
            "patients are not counted: the model was trained or validated on them. The population can count them "
            '(training_patients = "counted").',
        ),
        (out["known"], "patients trained or validated the model, which calls them better than all others."),
        (out["unknown"], f"patients are counted although the model may have been trained on them: {_unmatched(out)}."),
        (out["undated"], "screened studies have no date, which the question needs: they are not counted."),
        (out["unmatched"], "unnamed vertebrae may be levels counted from another study: they count for patients only."),
        (
            out["tied"],
            "patients have studies of the same date and age: the one with more evaluable levels, then with thinner "
            "and more slices, counts as the later.",
        ),
    ):
        if count:
            found.append(f"{count} {words}")
    return [sentence for sentence in found if sentence]


def _about_publication(about: Row) -> str:
    """Whether an answer is about the published model; empty if none is published."""
    if not about["published"]:
        return ""
    if (about["model"], about["configuration"]) == (about["published"], about["published_configuration"]):
        return "This is the published model."
    return f"The published model is {about['published']} with configuration {about['published_configuration']}."


def _unmatched(out: Row) -> str:
    """Why it is not known which patients the model was trained on."""
    return Matching(out["marks"]).problem if out["marks"] else "these results were screened by an earlier version"


def findings(connection: duckdb.DuckDBPyConnection, task: str = TASK) -> tuple[str, ...]:
    """The findings of a task: `any`, then each class but the first, negative one; of a no/yes task only `yes`.

    Raises BadInput if the population's model has no such task.
    """
    known = tasks(connection)
    if task not in known:
        raise BadInput(f"expected a task of the model ({', '.join(known)}), found {task}.")
    others = known[task][1:]
    return (ANY, *others) if len(others) > 1 else tuple(others)


def tasks(connection: duckdb.DuckDBPyConnection) -> dict[str, list[str]]:
    """Task -> classes, the negative one first, of the population's model; bone quality if nothing is called."""
    last = connection.execute("select arg_max(wave, committed_at) from current where levels_evaluable > 0").fetchone()
    classes = "select distinct task, class, class_number from all_calls where wave = ? order by task, class_number"
    found: dict[str, list[str]] = {}
    for task, name, _ in connection.execute(classes, last).fetchall():
        found.setdefault(task, []).append(name)
    return found or {TASK: list(BONE_QUALITY)}


def _check_rule(about: Row, task: str) -> None:
    """Raise BadInput if the rule is an operating point without a threshold for the task."""
    thresholds = json.loads(about["thresholds"])
    if "specificity" in about["rule"] and task not in thresholds:
        raise BadInput(
            f"the operating point {about['rule'].partition(':')[0]} has no threshold for the task {task}, only for "
            f"{', '.join(thresholds)}."
        )


def _check(by: Sequence[str], unit: str) -> None:
    unknown = [name for name in by if name not in GROUPS]
    if unknown:
        raise BadInput(f"expected columns out of {', '.join(GROUPS)} to group by, found {', '.join(unknown)}.")
    if len(set(by)) < len(by):
        raise BadInput(f"expected each column to group by once, found {', '.join(by)}.")
    if unit not in UNITS:
        raise BadInput(f"expected one of {', '.join(UNITS)} as unit, found {unit}.")
