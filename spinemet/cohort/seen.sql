-- One row per patient, {period} and level in view; views.py makes such a view for each kind of period.
create or replace temp view {name} as
with named as (
    select * from current_vertebrae where is_named
    qualify row_number() over (
        partition by patient, {period}, level
        order by evaluable desc, {order}, p_normal nulls last, p_only_lytic desc, study, vertebra
    ) = 1
), representative as (
    select patient, {period} as period, source_key from current_vertebrae
    qualify row_number() over (partition by patient, {period} order by {order}, study, vertebra) = 1
), elsewhere as (
    select distinct patient, period from (select patient, {period} as period, source_key from named)
    anti join representative using (patient, period, source_key)
)
select *, true as is_distinct from named
union all
select v.* exclude (period), e.patient is null
from (select *, {period} as period from current_vertebrae where not is_named) v
semi join representative r on r.source_key = v.source_key and r.period is not distinct from v.period
left join elsewhere e on e.patient = v.patient and e.period is not distinct from v.period
