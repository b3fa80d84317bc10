-- The analysis views of one population; views.py fills in the names in braces.

create or replace temp view accounted as
with own as (
    select * replace (nullif(patient_key, '') as patient_key), coalesce(study_key, source_key) as study
    from studies where model_digest = {model} and config_digest = {configuration}
), ranked as (
    select *, row_number() over (
        partition by study
        order by state <> 'screened', state, levels_evaluable desc nulls last, slice_count desc nulls last,
                 objects desc, size_bytes desc, source_key
    ) as copy
    from own
), described as (
    select
        *, patient_key as patient,
        case when age is null then null when age >= 90 then '90+'
             else ((age // 10) * 10)::int || '-' || ((age // 10) * 10 + 9)::int end as age_group,
        if({has_years}, year(study_date), null) as year,
        count(*) filter (copy = 1 and state = 'screened') over (partition by patient_key) as of_patient
    from ranked
)
select
    * exclude (copy, of_patient),
    case
        when copy > 1 then 'copy'
        when state <> 'screened' then state
        when patient is null then 'no_patient_key'
        when study_date is null and ({needs_calendar} or of_patient > 1) then 'no_date'
        when not ({in_period}) then 'outside_period'
        when not coalesce(({where}), false) then 'not_selected'
    end as left_as
from described;

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
    from vertebrae v join cohort s using (source_key, model_digest, config_digest)
)
select
    *,
    if(evaluable, called <> 'normal', null) as any_lesion,
    if(evaluable, called = 'blastic', null) as blastic,
    if(evaluable, called = 'mixed', null) as mixed,
    if(evaluable, called = 'lytic', null) as lytic
from called;

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
