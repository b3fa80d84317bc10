"""The result tables opened for questions: the analysis views that every cohort answer starts from.

On top of the tables (`studies`, `vertebrae`, `calls`, `slices`, `pictures`, `runs`) stand these views (views.sql,
seen.sql), all of one population: one model, one reading configuration, one period, one rule. A rate over two models
means nothing, so if several have screened, the population must choose one.

    accounted          one row per row of the ledger; `left_as` says why it is not in the cohort, null if it is
    current            one row per study, in whatever state; a study that lies twice in the archive counts once
    cohort             one row per study of the population: screened, with a patient key, in the period, selected
    current_vertebrae  one row per vertebra of these, follow-ups included, with its study's facts
    current_calls      one row per classified vertebra of these and task: the class under the rule (`label`), its
                       `probability`, and `is_positive` (any class but the task's first, negative one)
    seen               one row per patient and named level in view, from the latest study in which that level is
                       evaluable, else the latest in which it is in view at all; and the unnamed vertebrae of the
                       patient's latest study. `is_distinct` is false for an unnamed vertebra that may be one of the
                       named levels counted from another study: it says something of the patient, but is no further
                       vertebra
    imaged             the distinct rows of `seen`
    evaluable          the rows of `imaged` that are whole, classified and sure: the denominator
    asked              one row: the population, its model and configuration, the version of the ledger

`placed` decides once per connection which studies count, and numbers them: `place` says which of a person's studies
comes first. `brief_seen` and its like hold the same rows as `seen` in few numbers; measures count these (`held`).

`seen_in_year` and `seen_in_study` are `seen` within each year and each study. Every row has the age, year and scanner
of the study that it comes from. `called` is the bone quality under the rule; `any_lesion`, `blastic`, `mixed`, `lytic`
are null if the vertebra is not evaluable. Every other task joins by (source_key, vertebra) from `current_calls`. `year`
is null if the dates are shifted.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import duckdb
import pandas as pd

from spinemet.cohort.population import ARGMAX, Population
from spinemet.config import changed
from spinemet.errors import BadInput
from spinemet.results.published import Publication, published
from spinemet.results.schemas import Row
from spinemet.results.tables import connect
from spinemet.types import BONE_QUALITY

PERIODS = {"seen": "0", "seen_in_year": "coalesce(year, 0)", "seen_in_study": "place"}
"""View of vertebrae -> the expression within whose values a patient's level counts once."""

_ORDER = (
    "study_date {0} nulls last, age {0} nulls last, levels_evaluable desc nulls last, slice_spacing_mm nulls last, "
    "slice_count desc nulls last, size_bytes desc"
)
"""The study that counts comes first: by date, and for studies of one date (one year, if only that is kept) by age, then
the one with more evaluable levels, thinner slices, more of them. No pseudonym decides."""

_LESIONS = (
    "[{'class': 'blastic', 'p': p_only_blastic}, {'class': 'mixed', 'p': p_mixed}, "
    "{'class': 'lytic', 'p': p_only_lytic}]"
)
LESION_TASK = "bone_quality"
"""The task whose classes are lesions, and that a rule calls positive."""
_SCREENED = """
    select model_digest, config_digest, count(*) filter (state = 'screened') as screened,
        count(distinct patient_key) filter (state = 'screened') as patients, max(committed_at) as last
    from studies group by all order by last, model_digest, config_digest
"""


def open_cohort(
    results: str, as_of: datetime | None = None, population: Population | None = None
) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection with the result tables and the analysis views of this module.

    results: the results place of a screening job. as_of: the tables as they were at that moment (with its time zone).
    population: by default all studies, called by the most probable class. Raises BadInput if there are no result tables
    (or were none at that moment), if several models or configurations have screened and `population` does not choose
    one, and if it asks about the calendar although dates are shifted.
    """
    connection = connect(results, as_of)
    define_views(connection, population or Population(), published(results, as_of))
    return connection


def define_views(
    connection: duckdb.DuckDBPyConnection, population: Population, publication: Publication | None = None
) -> None:
    """Add the analysis views of `population` to a connection from `results.tables.connect`.

    publication: names the model and configuration if the population names neither.
    """
    if publication is not None and not (population.model or population.configuration):
        population = changed(population, model=publication.model, configuration=publication.configuration)
    population = chosen(connection, population)
    policy = _date_policy(connection, population)
    _check_calendar(population, policy)
    thresholds = _thresholds(connection, population)
    names = {
        "model": _text(population.model),
        "configuration": _text(population.configuration),
        "has_years": str(policy in {"exact", "year"}),
        "needs_calendar": str(population.needs_calendar),
        "in_period": _period(population),
        "leaves_out_known": str(population.training_patients == "left out"),
        "where": population.where or "true",
        "called": "v.bone_quality",
        "said": "top",
        "order": _ORDER.format("desc" if population.counted == "latest" else "asc"),
    }
    if thresholds:
        known = ", ".join(f"{_text(task)}: {threshold!r}" for task, threshold in thresholds.items())
        least = f"map {{{known}}}[task]" if isinstance(population.rule, str) else repr(population.rule)
        most = f"list_reduce({_LESIONS}, lambda a, b: if(b.p > a.p, b, a)).class"
        names["called"] = (
            f"if(1 - p_normal >= {thresholds[LESION_TASK]!r}, {most}, if(p_normal is null, null, 'normal'))"
        )
        names["said"] = (
            f"case when 1 - negative.p >= {least} then other when 1 - negative.p < {least} then negative end"
        )
    _check_condition(connection, population.where)
    connection.execute(_asked(connection, population, policy, publication, thresholds))
    views, seen = (Path(__file__).with_name(name).read_text() for name in ("views.sql", "seen.sql"))
    before, after = views.format(**names).split("create or replace temp view imaged")
    connection.execute(before)
    for name, period in PERIODS.items():
        connection.execute(seen.format(name=name, period=period, classes=list(BONE_QUALITY)))
    connection.execute(f"create or replace temp view imaged{after}")


def held(connection: duckdb.DuckDBPyConnection, name: str) -> str:
    """The name of the table `brief_NAME` of a view of PERIODS, which the first question of a connection makes.

    Its columns: `person` and `place` (numbers of the patient and the study; `placed` has their facts), `level`,
    `is_named`, `vertebra`, `evaluable`, `cut`, `unsure`, `called` and `is_distinct`.
    """
    brief = f"brief_{name}"
    if records(connection, "select * from duckdb_views() where view_name = ? and temporary", [brief]):
        connection.execute(f"create temp table being_made as from {brief}; drop view {brief}")
        connection.execute(f"alter table being_made rename to {brief}")
    return brief


def asked(connection: duckdb.DuckDBPyConnection) -> Row:
    """The row of the view `asked`."""
    return records(connection, "from asked")[0]


def refuse_calendar(policy: str) -> None:
    """Raise BadInput if study dates under `policy` do not tell the year."""
    if policy not in {"exact", "year"}:
        raise BadInput(
            "the study dates of these results are shifted (date policy `shifted`: 1 to 364 days, by patient), so they "
            "cannot answer a question about calendar years. Intervals between the studies of a patient stay right. "
            "For calendar years screen into another results place with --dates year."
        )


def chosen(connection: duckdb.DuckDBPyConnection, population: Population) -> Population:
    """`population` with the whole digests of the one model and configuration that it is about."""
    rows = records(connection, _SCREENED)
    fits = [
        row
        for row in rows
        if row["model_digest"].startswith(population.model)
        and row["config_digest"].startswith(population.configuration)
    ]
    found = [row for row in fits if row["screened"]] or fits
    if len(found) == 1:
        return changed(population, model=found[0]["model_digest"], configuration=found[0]["config_digest"])
    if not rows:
        return population
    listed = "; ".join(
        f"model {row['model_digest']} with configuration {row['config_digest']} ({row['screened']} studies of "
        f"{row['patients']} patients screened, the last on {row['last']:%Y-%m-%d})"
        for row in found or rows
    )
    if found:
        raise BadInput(
            "several models or configurations have screened these studies: choose one with --model, or with "
            f"--configuration, or publish one with spinemet tables publish. There are: {listed}."
        )
    wanted = " with configuration ".join(text for text in (population.model, population.configuration) if text)
    raise BadInput(f"expected a model and configuration that these results hold, found {wanted}. There are: {listed}.")


def _thresholds(connection: duckdb.DuckDBPyConnection, population: Population) -> dict[str, float]:
    """Task -> least probability of a lesion under the population's rule; empty for argmax.

    Raises BadInput if the rule names an operating point that the model does not have.
    """
    if population.rule == ARGMAX:
        return {}
    if isinstance(population.rule, float):
        return {LESION_TASK: population.rule}
    query = """select arg_max(operating_points, started_at) as points from runs where model_digest = ?"""
    stored = records(connection, query, [population.model])[0]["points"]
    points: dict[str, dict[str, float]] = json.loads(stored or "{}")
    if LESION_TASK in points.get(population.rule, {}):
        return points[population.rule]
    there = (
        f"It has {', '.join(sorted(points))}."
        if points
        else "It has none: measure it with jobs/evaluate.py on its own crops, then run jobs/screen.py again."
    )
    raise BadInput(f"the model {population.model} has no operating point {population.rule} for {LESION_TASK}. {there}")


def _date_policy(connection: duckdb.DuckDBPyConnection, population: Population) -> str:
    """What the dates of the population's studies tell: `exact`, `year`, or `shifted` (also if unknown)."""
    query = """
        select distinct coalesce(r.date_policy, 'shifted') as policy
        from (select distinct run_id from studies where model_digest = ? and config_digest = ?) s
        left join runs r using (run_id)
    """
    policies = {row["policy"] for row in records(connection, query, [population.model, population.configuration])}
    return next((one for one in ("shifted", "year") if one in policies), "exact")


def _check_calendar(population: Population, policy: str) -> None:
    if population.needs_calendar:
        refuse_calendar(policy)
    if policy == "year" and not population.in_whole_years:
        raise BadInput("these results keep only the year of study dates: expected a period of whole calendar years.")


def _period(population: Population) -> str:
    ends = ((">=", population.since), ("<=", population.until))
    return " and ".join(f"study_date {sign} date '{day}'" for sign, day in ends if day) or "true"


def _check_condition(connection: duckdb.DuckDBPyConnection, condition: str) -> None:
    """Raise BadInput if `condition` is not one condition on the columns of `studies`."""
    if not condition:
        return
    columns = "select *, '' as age_group, 0 as year from studies"
    try:
        one = connection.extract_statements(f"select * from ({columns}) where ({condition})")
        if len(one) != 1 or one[0].type != duckdb.StatementType.SELECT:
            raise BadInput(f"expected one condition, found {condition}.")
        connection.execute(f"select ({condition})::boolean from ({columns}) limit 0")
    except duckdb.Error as error:
        first = str(error).splitlines()[0]
        raise BadInput(
            f"expected a condition on the columns of the table studies, found {condition}: {first}"
        ) from error


def _asked(
    connection: duckdb.DuckDBPyConnection,
    population: Population,
    policy: str,
    publication: Publication | None,
    thresholds: Mapping[str, float],
) -> str:
    version = records(connection, "from versions where name = 'studies'")[0]
    values = {
        "model": population.model,
        "configuration": population.configuration,
        "rule": population.rule_in_words(thresholds.get(LESION_TASK)),
        "thresholds": json.dumps(thresholds),
        "population": population.digest,
        "definition": population.as_toml(),
        "date_policy": policy,
        "published": publication.model if publication else "",
        "published_configuration": publication.configuration if publication else "",
    }
    columns = [f"{_text(value)} as {name}" for name, value in values.items()]
    columns.append(f"{version['version']} as ledger_version")
    last = "select max(committed_at) from studies"
    return f"create or replace temp view asked as select {', '.join(columns)}, ({last}) as committed_at"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def trained_on(connection: duckdb.DuckDBPyConnection) -> str | None:
    """What the population's model was trained on, if not on patients alone; None if its card did not say."""
    query = "select max(trained_on) as words from runs where model_digest = (select model from asked)"
    words: str | None = records(connection, query)[0]["words"]
    return words


def records(connection: duckdb.DuckDBPyConnection, query: str, values: Sequence[object] = ()) -> list[Row]:
    """The answer to `query` as one dictionary per row, with `values` in place of its question marks."""
    # By Arrow: DuckDB's own rows need pytz for a time with a zone.
    rows: list[Row] = connection.sql(query, params=list(values)).to_arrow_table().to_pylist()
    return rows


def run_sql(
    results: str, query: str, as_of: datetime | None = None, population: Population | None = None
) -> pd.DataFrame:
    """The answer to one SELECT over the tables and analysis views of `results`, as they were at `as_of`.

    If several models have screened and `population` does not choose one, only the tables can be asked. Raises BadInput
    if there are no result tables, the query is not exactly one SELECT, or DuckDB refuses it.
    """
    connection, without_views = connect(results, as_of), None
    try:
        define_views(connection, population or Population(), published(results, as_of))
    except BadInput as error:
        if population is not None and population != Population():
            raise
        without_views = error
    try:
        statements = connection.extract_statements(query)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            kinds = ", ".join(statement.type.name for statement in statements) or "nothing"
            raise BadInput(f"expected one SELECT, found {kinds}; this command only reads the result tables.")
        return connection.execute(statements[0]).df()
    except duckdb.CatalogException as error:
        if without_views is not None:
            raise without_views from error
        raise _refused(error) from error
    except duckdb.Error as error:
        raise _refused(error) from error


def _refused(error: duckdb.Error) -> BadInput:
    return BadInput(f"DuckDB does not accept the query: {str(error).splitlines()[0]}")
