"""The result tables opened for questions: the analysis views that every cohort answer starts from.

On top of the tables (`studies`, `vertebrae`, `calls`, `slices`, `pictures`, `runs`) stand these views. All of them are
limited to one model and one reading configuration, the ones that screened last: a rate over two models means nothing.

    current            one row per study, in whatever state; a study that lies twice in the archive counts once
    current_vertebrae  one row per vertebra of each screened study, follow-ups included, with the study's facts
    current_calls      one row per classified vertebra of these and task: the most probable class (`label`), its
                       `probability`, and `is_positive` (any class but the task's first, negative one)
    imaged             one row per patient and level in view: from the latest study in which that level is
                       evaluable, else from the latest in which it is in view at all
    evaluable          the rows of `imaged` that are whole and classified: the denominator

`imaged` has the bone quality as booleans: `any_lesion`, `blastic`, `mixed`, `lytic`, null if the vertebra is not
evaluable. Every other task joins it by (source_key, vertebra) from `current_calls`. A vertebra without a name (`?1`)
cannot be matched between studies: if the latest study of a patient has such vertebrae, only that study counts, and the
unnamed vertebrae of other studies never count. A study without a patient key counts as a patient of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import duckdb
import pandas as pd

from spinemet.errors import BadInput
from spinemet.results.schemas import Row
from spinemet.results.tables import connect

_VIEWS = """
create or replace temp view current as
with made_with as (
    select model_digest, config_digest from studies
    group by all order by max(committed_at) desc, model_digest, config_digest limit 1
)
select
    * exclude (model_digest, config_digest),
    model_digest, config_digest,
    coalesce(patient_key, study_key, source_key) as patient,
    coalesce(study_key, source_key) as study,
    case when age is null then null when age >= 90 then '90+'
         else ((age // 10) * 10)::int || '-' || ((age // 10) * 10 + 9)::int end as age_group,
    year(study_date) as year
from studies semi join made_with using (model_digest, config_digest)
qualify row_number() over (partition by study order by state <> 'screened', source_key) = 1;

create or replace temp view current_vertebrae as
with last_seen as (
    select patient, study as latest_study, age as patient_age, age_group, sex, row_number() over latest = 1 as is_latest
    from current where state = 'screened'
    window latest as (partition by patient order by study_date desc nulls last, study)
)
select
    v.*,
    s.patient, s.study, s.study_date, s.year, s.manufacturer, s.manufacturer_model, s.kernel, s.kvp, s.contrast,
    s.localizer, s.slice_spacing_mm, p.patient_age as age, p.age_group, p.sex, p.latest_study,
    v.level[1] <> '?' as is_named,
    case v.level[1] when 'C' then 'cervical' when 'T' then 'thoracic' when 'L' then 'lumbar' when 'S' then 'sacral'
                    else 'unnamed' end as region,
    if(v.evaluable, v.bone_quality <> 'normal', null) as any_lesion,
    if(v.evaluable, v.bone_quality = 'blastic', null) as blastic,
    if(v.evaluable, v.bone_quality = 'mixed', null) as mixed,
    if(v.evaluable, v.bone_quality = 'lytic', null) as lytic
from vertebrae v
join current s using (source_key, model_digest, config_digest)
join last_seen p on p.patient = s.patient and p.is_latest
where s.state = 'screened';

create or replace temp view current_calls as
with best as (
    select source_key, vertebra, task, arg_max({'class': class, 'number': class_number}, (probability, -class_number))
        as label, max(probability) as probability
    from all_calls semi join current using (source_key, model_digest, config_digest, wave)
    group by all
)
select source_key, vertebra, task, label.class as label, probability, label.number > 0 as is_positive from best;

create or replace temp view imaged as
with placed as (
    select *, bool_or(study = latest_study and not is_named) over (partition by patient) as latest_is_unnamed
    from current_vertebrae
)
select * exclude (latest_is_unnamed) from (
    select * from placed where is_named and not latest_is_unnamed
    qualify row_number() over (
        partition by patient, level order by evaluable desc, study_date desc nulls last, study, vertebra
    ) = 1
    union all
    select * from placed where latest_is_unnamed and study = latest_study
);

create or replace temp view evaluable as select * from imaged where evaluable;
"""


def open_cohort(results: str, as_of: datetime | None = None) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection with the result tables and the analysis views of this module.

    results: the results place of a screening job. as_of: the tables as they were at that moment (with its time zone).
    Raises BadInput if there are no result tables, or were none at that moment.
    """
    connection = connect(results, as_of)
    connection.execute(_VIEWS)
    return connection


def records(connection: duckdb.DuckDBPyConnection, query: str, values: Sequence[object] = ()) -> list[Row]:
    """The answer to `query` as one dictionary per row, with `values` in place of its question marks."""
    # By Arrow: DuckDB's own rows need pytz for a time with a zone.
    rows: list[Row] = connection.sql(query, params=list(values)).to_arrow_table().to_pylist()
    return rows


def run_sql(results: str, query: str, as_of: datetime | None = None) -> pd.DataFrame:
    """The answer to one SELECT over the tables and analysis views of `results`, as they were at `as_of`.

    Raises BadInput if there are no result tables, the query is not exactly one SELECT, or DuckDB refuses it.
    """
    connection = open_cohort(results, as_of)
    try:
        statements = connection.extract_statements(query)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            kinds = ", ".join(statement.type.name for statement in statements) or "nothing"
            raise BadInput(f"expected one SELECT, found {kinds}; this command only reads the result tables.")
        return connection.execute(statements[0]).df()
    except duckdb.Error as error:
        raise BadInput(f"DuckDB does not accept the query: {str(error).splitlines()[0]}") from error
