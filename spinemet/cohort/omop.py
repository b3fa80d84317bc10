"""The population in the OMOP Medical Imaging tables (MI-CDM, OHDSI/ImageWG): `image_occurrence`, `image_feature`.

    image_occurrence.csv   one row per study of the population with a date
    image_feature.csv      one row per evaluable vertebra and feature; it points to the row with its value:
    measurement.csv        the columns of CDM 5.4 that a value needs
    person.csv             person_id and the patient_key that it stands for
    concepts.csv           each code that the rows use, to be mapped: a local vocabulary decides on concept_id
    about.json             population, model, rule, version of the ledger, notes; written last

Identifiers are numbers of this export alone. UIDs are the pseudonyms of the results. Every concept_id is 0 ("no
matching concept"), and the codes stand in the source values. procedure_occurrence_id is 0: the results know no
procedure. Under the date policies `shifted` and `year` the dates are those of the policy.
"""

import json

import duckdb

from spinemet import files
from spinemet.cohort.export import ABOUT, about_of, check_empty
from spinemet.cohort.views import records
from spinemet.results.schemas import Row

_VALUES = """
    select source_key, vertebra, 'bone_quality' as feature, called as word, null::double as number, null as unit from v
    union all
    select source_key, vertebra, 'p_lesion', null, 1 - p_normal, '1' from v where p_normal is not null
    union all
    select source_key, vertebra, 'posterolateral', posterolateral, null, null from v where posterolateral is not null
    union all
    select source_key, vertebra, 'trabecular_hu', null, trabecular_hu, '[hnsf''U]' from v
    where trabecular_hu is not null
"""
"""Feature, its class or number, and the number's unit in UCUM."""

_TABLES = {
    "person": "select person_id, patient as person_source_value from persons order by 1",
    "image_occurrence": """
        select image_occurrence_id, person_id, 0 as procedure_occurrence_id, null::bigint as visit_occurrence_id,
            0 as anatomic_site_concept_id, null as wadors_uri, null as local_path,
            study_date::varchar as image_occurrence_date, study as image_study_uid, coalesce(series_key, study) as
            image_series_uid, 0 as modality_concept_id
        from images order by 1""",
    "image_feature": """
        select id as image_feature_id, person_id, image_occurrence_id,
            0 as image_feature_event_field_concept_id, id as image_feature_event_id,
            0 as image_feature_concept_id, 0 as image_feature_type_concept_id,
            0 as image_finding_concept_id, vertebra as image_finding_id, 0 as anatomic_site_concept_id,
            'spinemet ' || software_version || ' model ' || model_digest as alg_system,
            strftime(committed_at, '%Y-%m-%d %H:%M:%S') as alg_datetime
        from features order by 1""",
    "measurement": """
        select id as measurement_id, person_id, 0 as measurement_concept_id, study_date::varchar as measurement_date,
            0 as measurement_type_concept_id, number as value_as_number, 0 as value_as_concept_id,
            0 as unit_concept_id, feature || ' of ' || level as measurement_source_value,
            unit as unit_source_value, word as value_source_value
        from features order by 1""",
    "concepts": """
        select distinct unnest([
            {'field': 'measurement_concept_id, image_feature_concept_id', 'code': feature},
            {'field': 'anatomic_site_concept_id', 'code': level},
            {'field': 'value_as_concept_id', 'code': word},
            {'field': 'unit_concept_id', 'code': unit},
            {'field': 'image_feature_type_concept_id, measurement_type_concept_id', 'code': 'algorithm'},
            {'field': 'image_feature_event_field_concept_id', 'code': 'measurement.measurement_id'},
            {'field': 'modality_concept_id', 'code': 'CT'}
        ], recursive := true), 0 as concept_id from features order by 1, 2""",
}


def export_omop(connection: duckdb.DuckDBPyConnection, out: str) -> Row:
    """Write the population of `connection` (from `open_cohort`) to the folder or s3:// prefix `out`.

    Returns the content of about.json, with `rows` by table and `undated`, the studies left out because the tables need
    a date. Raises BadInput if `out` holds anything or cannot be written.
    """
    check_empty(out)
    for query in _prepared():
        connection.execute(query).fetchall()
    counts: dict[str, int] = {}
    for name, query in _TABLES.items():
        table = connection.sql(query).df()
        if name == "concepts":
            table = table.dropna(subset=["code"])
        counts[name] = len(table)
        files.write_bytes(files.join(out, f"{name}.csv"), table.to_csv(index=False).encode())
    undated = records(connection, "select count(*) as n from cohort where study_date is null")[0]["n"]
    about = about_of(connection) | {"rows": counts, "undated": undated}
    files.write_bytes(files.join(out, ABOUT), (json.dumps(about, indent=2) + "\n").encode())
    return about


def _prepared() -> tuple[str, ...]:
    """Numbers of persons, images and features, by the order of their keys."""
    return (
        "create or replace temp table persons as select patient, row_number() over (order by patient) as person_id"
        " from (select distinct patient from cohort where study_date is not null)",
        "create or replace temp table images as select c.*, p.person_id,"
        " row_number() over (order by source_key) as image_occurrence_id"
        " from cohort c join persons p using (patient) where study_date is not null",
        f"create or replace temp table features as with v as (select * from current_vertebrae where evaluable),"
        f" said as ({_VALUES}) select row_number() over (order by source_key, vertebra, feature) as id, s.*, v.level,"
        " v.software_version, v.model_digest, v.committed_at, i.person_id, i.image_occurrence_id, i.study_date"
        " from said s join v using (source_key, vertebra) join images i using (source_key)",
    )
