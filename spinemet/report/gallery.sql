with counted as (
    select source_key, count(*) filter (any_lesion) as n_positive,
        min(abs(p_normal - 0.5)) filter (completeness = 'whole') as nearest,
        arg_min({'level': level, 'p_normal': p_normal}, abs(p_normal - 0.5)) filter (completeness = 'whole') as least_sure
    from current_vertebrae group by source_key
)
select s.*, p.sagittal_png, p.coronal_png, p.canal_column, coalesce(c.n_positive, 0) as n_positive, c.nearest,
    c.least_sure
from pictures p join cohort s using (source_key, model_digest, config_digest)
left join counted c using (source_key)
