-- One row per study and per vertebra with the step of flow.py at which it leaves the flow; null: it stays to the end.

create or replace temp view vertebra_steps as
with counted as (select source_key, vertebra, is_distinct from seen)
select
    v.source_key,
    case
        when c.source_key is null and v.is_named then 'follow_up'
        when not coalesce(c.is_distinct, false) then 'unnamed'
        when v.completeness = 'cut' and not v.evaluable then 'cut'
        when coalesce(v.unsure, '') <> '' then 'unsure'
        when not v.evaluable then 'unclassified'
    end as left_as
from current_vertebrae v left join counted c using (source_key, vertebra);

create or replace temp view flow_rows as
with judged as (
    select source_key, left_as, count(*) as vertebrae from vertebra_steps group by all
), early as (
    select v.source_key, count(*) as vertebrae
    from vertebrae v join accounted a using (source_key, model_digest, config_digest)
    where a.left_as is not null group by all
)
select a.source_key, a.study, a.patient, a.left_as, a.reason, coalesce(e.vertebrae, 0) as vertebrae
from accounted a left join early e using (source_key) where a.left_as is not null
union all
select a.source_key, a.study, a.patient, if(j.source_key is null, 'no_vertebra', j.left_as), null,
    coalesce(j.vertebrae, 0)
from accounted a left join judged j using (source_key) where a.left_as is null;
