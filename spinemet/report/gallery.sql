with counted as (
    select
        place, count(*) filter (evaluable and called <> 'normal') as n_positive,
        min(abs(p_normal - 0.5)) filter (not cut) as nearest,
        arg_min({'level': level, 'p_normal': p_normal}, abs(p_normal - 0.5)) filter (not cut) as least_sure
    from brief_vertebrae group by place
)
select source_key, study, coalesce(n_positive, 0) as n_positive, nearest, least_sure
from (select source_key, wave, coalesce(study_key, source_key) as study from pictures)
join placed using (source_key, wave) left join counted using (place)
where left_as is null
