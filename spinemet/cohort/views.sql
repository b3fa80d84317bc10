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
