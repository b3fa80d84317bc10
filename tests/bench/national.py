"""Result tables of the size of a national archive: 24 vertebrae of each study, three studies per patient.

DuckDB draws the rows from hashes of their numbers, so the same size gives the same tables. They are real Delta tables
in the present schema, in few large files as `spinemet tables compact` leaves them. The table `calls`, eleven rows per
vertebra, has the rows of the last wave only: `vertebrae` repeats what the measures here ask for.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import duckdb
import pyarrow as pa
from deltalake import write_deltalake

from spinemet.results.schemas import SCHEMAS
from spinemet.results.tables import open_results
from spinemet.types import BONE_QUALITY

MODEL, CONFIG, RUN = "0123456789ab", "ba9876543210", "20260101T000000-abcdef"
PER_STUDY, PER_PATIENT, WAVE = 24, 3, 32
_ROWS_PER_BATCH = 100_000

_MADE_WITH = f"""
    '{MODEL}' as model_digest, '{CONFIG}' as config_digest, '0.1.0' as software_version, '{RUN}' as run_id,
    '{RUN}-' || lpad((n // {WAVE})::varchar, 6, '0') as wave,
    timestamptz '2026-01-01 00:00:00+00' + to_seconds(n // {WAVE}) as committed_at
"""
_KEYS = "md5('s' || n) as source_key, md5('u' || n) as study_key, md5('p' || patient) as patient_key"

STUDIES = f"""
    with numbers as (
        select n, (n * 7919) % greatest(1, {{studies}} // {PER_PATIENT}) as patient, (hash(n) // 2)::bigint as h
        from range({{first}}, {{last}}) t(n)
    ), people as (select *, (hash(patient, 1) // 2)::bigint as person from numbers)
    select {_KEYS}, md5('e' || n) as series_key,
        if(h % 50 = 0, 'excluded', 'screened') as state, if(h % 50 = 0, 'localizer', null) as reason,
        'prefix' as layout, 120 as objects, 60000000 + n % 1000 as size_bytes, 300 as slice_count,
        [0.8, 1.0, 1.25, 2.0][1 + h % 4] as slice_spacing_mm, ['B30f', 'B60f', 'FC08', 'STANDARD'][1 + h % 4] as kernel,
        [100.0, 120.0][1 + h % 2] as kvp, h % 3 = 0 as contrast,
        ['SIEMENS', 'GE MEDICAL SYSTEMS', 'Philips'][1 + h % 3] as manufacturer,
        if(h % 97 = 0, null, least(90, 40 + person % 45 + n * 10 // {{studies}}))::int as age,
        if(person % 2 = 0, 'F', 'M') as sex,
        date '2015-01-01' + (n * 3650 // {{studies}})::int as study_date, 'geometric' as localizer,
        {PER_STUDY} as levels_imaged, {PER_STUDY - 2} as levels_evaluable, []::varchar[] as flags, {_MADE_WITH}
    from people
"""
VERTEBRAE = f"""
    with numbers as (
        select n, (n * 7919) % greatest(1, {{studies}} // {PER_PATIENT}) as patient, v
        from range({{first}}, {{last}}) t(n), range({PER_STUDY}) w(v) where (hash(n) // 2)::bigint % 50 <> 0
    ), drawn as (
        select *, (hash(n, v) // 2)::bigint as h, hash(patient, 2) % 100 < 40 as ill,
            v in (0, {PER_STUDY - 1}) as is_cut
        from numbers
    ), judged as (
        select *, case when is_cut then null when not ill or h % 10 < 7 then 'normal'
            else ['blastic', 'mixed', 'lytic'][1 + h % 3] end as quality, 0.6 + (h % 400) / 1000.0 as p
        from drawn
    )
    select {_KEYS}, v::int as vertebra,
        case when h % 500 = 0 then '?' || v when v < 7 then 'C' || (v + 1) when v < 19 then 'T' || (v - 6)
            else 'L' || (v - 18) end as level,
        0.9 as level_confidence, 1.0 as confidence, if(is_cut, 'cut', 'whole') as completeness,
        quality is not null and h % 40 <> 0 as evaluable, 7 as slices, quality as bone_quality,
        if(quality is null, null, if(h % 40 = 0, 'ambiguous', '')) as unsure,
        {
    ", ".join(
        f"if(quality is null, null, if(quality = '{name}', p, (1 - p) / 3)) as "
        f"p_{'only_' if name in ('blastic', 'lytic') else ''}{name}"
        for name in BONE_QUALITY
    )
},
        if(quality is null, null, ['none', 'none', 'unilateral', 'bilateral'][1 + h % 4]) as posterolateral,
        if(quality is null, null, 60 + 120 * (h % 1000) / 1000.0) as trabecular_hu,
        0.0 as center_x_mm, 20.0 as center_y_mm, -25.0 * v as center_z_mm, 25.0 * v as canal_mm, 24.0 as height_mm,
        []::varchar[] as flags, {_MADE_WITH}
    from judged
"""
CALLS = f"""
    select source_key, study_key, patient_key, vertebra, level, 'bone_quality' as task, class,
        (list_position({list(BONE_QUALITY)}, class) - 1)::int as class_number, 0.25 as probability,
        columns('model_digest|config_digest|software_version|run_id|wave|committed_at')
    from ({VERTEBRAE}), unnest({list(BONE_QUALITY)}) t(class) where bone_quality is not null
"""


def make_results(place: str, studies: int) -> str:
    """Write the tables of `studies` studies to `place`, and return it."""
    results = open_results(place, create=True)
    last = max(0, studies - 1) // WAVE * WAVE
    for name, query, first in (("studies", STUDIES, 0), ("vertebrae", VERTEBRAE, 0), ("calls", CALLS, last)):
        reader = pa.RecordBatchReader.from_batches(SCHEMAS[name], _rows(name, query, first, studies))
        write_deltalake(results.table(name), reader, mode="append")
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    counts = {"listed": studies, "planned": studies, "screened": studies}
    made_with = {"model_digest": MODEL, "config_digest": CONFIG, "config": "{}", "software_version": "0.1.0"}
    results.write_run(
        dict.fromkeys(SCHEMAS["runs"].names)
        | {"run_id": RUN, "state": "done", "asked_by": "benchmark", "started_at": moment, "finished_at": moment}
        | {"archive_key": "a1b2c3d4", "pseudonym_key_id": "k1", "date_policy": "exact"}
        | counts
        | made_with
    )
    return place


def _rows(name: str, query: str, first: int, studies: int) -> Iterator[pa.RecordBatch]:
    schema = SCHEMAS[name]
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    relation = connection.sql(query.format(first=first, last=studies, studies=studies))
    for batch in relation.to_arrow_reader(_ROWS_PER_BATCH):
        columns = {
            field.name: batch[field.name].cast(field.type)
            if field.name in batch.schema.names
            else pa.nulls(len(batch), field.type)
            for field in schema
        }
        yield pa.RecordBatch.from_arrays(list(columns.values()), schema=schema)
