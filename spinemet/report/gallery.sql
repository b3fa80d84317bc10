with counted as (
    select source_key, count(*) filter (any_lesion) as n_positive, max(1 - p_normal) filter (evaluable) as worst
    from current_vertebrae group by source_key
)
select s.*, p.sagittal_png, p.coronal_png, p.canal_column, coalesce(c.n_positive, 0) as n_positive
from pictures p join cohort s using (source_key, model_digest, config_digest)
left join counted c using (source_key)
order by n_positive desc, c.worst desc nulls last, s.study
