-- The studies whose vertebrae count for the {limit} patients with most positive levels, of the table {seen}.
with shown as (
    select person from {seen} group by person
    order by count(*) filter (evaluable and called <> 'normal') desc, count(*) desc, person
    limit {limit}
)
select distinct source_key from {seen} semi join shown using (person) join placed using (place)
