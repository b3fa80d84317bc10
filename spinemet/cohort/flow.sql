-- One row per study and step of flow.py at which vertebrae of it leave the flow; a null step: they stay to the end.

create or replace temp view flow_rows as
with kept as (
    select
        place, is_named, count(*) as vertebrae,
        case when not is_distinct then 'unnamed' when cut and not evaluable then 'cut' when unsure then 'unsure'
             when not evaluable then 'unclassified' end as left_as
    from {seen} group by all
), lost as (
    -- In view, but not counted: of every study the vertebrae less those that were kept.
    select
        v.place, v.is_named, v.vertebrae - coalesce(k.vertebrae, 0) as vertebrae,
        if(v.is_named, 'follow_up', 'unnamed') as left_as
    from (select place, is_named, count(*) as vertebrae from brief_vertebrae group by all) v
    left join (select place, is_named, sum(vertebrae)::bigint as vertebrae from kept group by all) k
    using (place, is_named) where v.vertebrae > coalesce(k.vertebrae, 0)
), judged as (from kept union all by name from lost
), early as (
    select p.place, count(*) as vertebrae from all_vertebrae v semi join asked a
    on v.model_digest = a.model and v.config_digest = a.configuration
    join (select source_key, wave, place from placed where left_as is not null) p using (source_key, wave) group by all
)
select p.place as study, p.person, p.left_as, coalesce(e.vertebrae, 0) as vertebrae
from placed p left join early e using (place) where p.left_as is not null
union all
select p.place, p.person, if(j.place is null, 'no_vertebra', j.left_as), coalesce(j.vertebrae, 0)
from placed p left join judged j using (place) where p.left_as is null;
