-- The analysis views of one population; views.py fills in the names in braces.

create or replace temp table placed as
with own as (
    select
        *, nullif(patient_key, '') as patient, coalesce(study_key, source_key) as study,
        case when age is null then null when age >= 90 then '90+'
             else ((age // 10) * 10)::int || '-' || ((age // 10) * 10 + 9)::int end as age_group,
        if({has_years}, year(study_date), null) as year
    from studies where model_digest = {model} and config_digest = {configuration}
), copies as (
    select source_key from own
    semi join (select study from own group by study having count(*) > 1) using (study)
    qualify row_number() over (
        partition by study
        order by state <> 'screened', state, levels_evaluable desc nulls last, slice_count desc nulls last,
                 objects desc, size_bytes desc, source_key
    ) > 1
), people as (
    -- Of copies too: a copy can have another patient key than the study that counts.
    select
        patient, row_number() over (order by patient) as person,
        count(*) filter (state = 'screened' and c.source_key is null) as studies,
        bool_or(seen_in_training) as is_known
    from own left join copies c using (source_key) where patient is not null group by patient
), tied as (
    select source_key as key, wave from own
    semi join (
        select patient, study_date as day, age as years from own anti join copies using (source_key)
        where state = 'screened' group by all having count(*) > 1
    ) t on own.patient = t.patient and own.study_date is not distinct from t.day and own.age is not distinct from t.years
), lesions as (
    select source_key, sum(1 - p_normal) as lesions from all_vertebrae v
    semi join tied on v.source_key = tied.key and v.wave = tied.wave
    where model_digest = {model} and config_digest = {configuration} group by source_key
)
select
    source_key, own.wave, person::int as person,
    row_number() over (order by {order}, lesions desc nulls last, study)::int as place,
    coalesce(levels_imaged, 1) > 0 as has_vertebrae, t.key is not null as is_tied, p.is_known,
    study_date, age, age_group, sex, year, manufacturer, manufacturer_model, kernel, contrast, localizer,
    case
        when c.source_key is not null then 'copy'
        when state <> 'screened' then state
        when patient is null then 'no_patient_key'
        when {leaves_out_known} and coalesce(p.is_known, false) then 'trained_on'
        when study_date is null and ({needs_calendar} or p.studies > 1) then 'no_date'
        when not ({in_period}) then 'outside_period'
        when not coalesce(({where}), false) then 'not_selected'
    end as left_as
from own left join copies c using (source_key) left join people p using (patient)
left join tied t on own.source_key = t.key left join lesions using (source_key);

create or replace temp view accounted as
select
    s.* replace (nullif(s.patient_key, '') as patient_key), coalesce(s.study_key, s.source_key) as study,
    nullif(s.patient_key, '') as patient, p.age_group, p.year, p.left_as
from studies s join placed p using (source_key, wave)
where s.model_digest = {model} and s.config_digest = {configuration};

create or replace temp view current as select * exclude (left_as) from accounted where left_as is distinct from 'copy';

create or replace temp view cohort as select * exclude (left_as) from accounted where left_as is null;

create or replace temp view current_vertebrae as
with called as (
    select
        v.*,
        s.patient, s.study, s.study_date, s.year, s.age, s.age_group, s.sex, s.manufacturer, s.manufacturer_model,
        s.kernel, s.kvp, s.contrast, s.localizer, s.slice_spacing_mm, s.levels_evaluable, s.slice_count, s.size_bytes,
        v.level[1] <> '?' as is_named,
        case v.level[1] when 'C' then 'cervical' when 'T' then 'thoracic' when 'L' then 'lumbar' when 'S' then 'sacral'
                        else 'unnamed' end as region,
        {called} as called
    from all_vertebrae v join cohort s using (source_key, model_digest, config_digest, wave)
)
select
    *,
    if(evaluable, called <> 'normal', null) as any_lesion,
    if(evaluable, called = 'blastic', null) as blastic,
    if(evaluable, called = 'mixed', null) as mixed,
    if(evaluable, called = 'lytic', null) as lytic
from called;

create or replace temp view every_call as
select
    source_key, wave, model_digest, config_digest, vertebra, level, evaluable, completeness = 'cut' as cut,
    completeness = 'whole' and coalesce(unsure, '') <> '' as unsure, {called} as called, trabecular_hu, p_normal
from all_vertebrae v;

create or replace temp view brief_vertebrae as
select
    p.person, p.place, p.year, v.vertebra, v.level, v.level[1] <> '?' as is_named, v.evaluable, v.cut, v.unsure, v.called,
    v.trabecular_hu, v.p_normal
from every_call v join placed p on v.source_key = p.source_key and v.wave = p.wave
where v.model_digest = {model} and v.config_digest = {configuration} and p.left_as is null;

create or replace temp view current_calls as
with classes as (
    select c.* from all_calls c semi join cohort using (source_key, model_digest, config_digest, wave)
), best as (
    select
        source_key, vertebra, task,
        arg_max({{'class': class, 'number': class_number, 'p': probability}}, (probability, -class_number)) as top,
        arg_max({{'class': class, 'number': class_number, 'p': probability}}, (probability, -class_number))
            filter (class_number > 0) as other,
        arg_max({{'class': class, 'number': class_number, 'p': probability}}, probability)
            filter (class_number = 0) as negative
    from classes group by all
)
select source_key, vertebra, task, said.class as label, said.p as probability, said.number > 0 as is_positive
from (select *, {said} as said from best);

create or replace temp view imaged as select * exclude (is_distinct) from seen where is_distinct;

create or replace temp view evaluable as select * from imaged where evaluable;
