-- One row per group, person and `pair`: how often (`n`) a named level of the person went from one class to another between
-- two consecutive days on which it is evaluable; pair is 4 times the number of the class before plus that of the class
-- after. Of studies of one day the one that comes first by `placed` counts. transitions.py fills in the names in braces.
--
-- Each call is one number: the level (from bit 52), the day (16 bits), the study's place (32 bits) and the class. Windows
-- over persons and numbers cost two thirds of windows over persons, levels and structs.
create or replace temp table changes as
with days as (
    select
        place, dense_rank() over (partition by person order by study_date) as day,
        count(*) over (partition by person, study_date) > 1 as is_shared
    from placed where left_as is null and study_date is not null
), calls as (
    select
        person, is_shared,
        (code::bigint << 52) + (day << 36) + (place::bigint << 4) + list_position({classes}, called) - 1 as number
    from brief_vertebrae join days using (place) join (values {levels}) as names(level, code) using (level)
    where evaluable and called is not null
), counted as (
    select person, number from calls where not is_shared
    union all
    select person, min(number) from calls where is_shared group by person, number >> 36
), pairs as (
    select person, number, lead(number) over (partition by person order by number) as next from counted
)
select {words}pairs.person, (4 * (number & 15) + (next & 15))::int as pair, count(*) as n
from pairs {facts}
where number >> 52 = next >> 52
group by all;
