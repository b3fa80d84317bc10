-- One row per person, named level and two consecutive days on which it is evaluable: `called` before, `becomes` after, and
-- the `place` of the study before. Of studies of one day the one that comes first by `placed` counts. transitions.py
-- fills in the names in braces.
--
-- Each call is one number: the day's number, the study's place and the class. Lists of numbers cost half of a window.
create or replace temp table changes as
with days as (
    select place, dense_rank() over (partition by person order by study_date) as day
    from placed where left_as is null and study_date is not null
), courses as (
    select person, level, list_sort(list((day << 40) + (place::bigint << 4) + list_position({classes}, called))) as course
    from brief_vertebrae join days using (place)
    where is_named and evaluable and called is not null
    group by person, level having count(*) > 1
), distinct_days as (
    select person, level, list_filter(course, lambda x, i: i = 1 or (x >> 40) <> (course[i - 1] >> 40)) as course
    from courses
), pairs as (
    select person, level, course, unnest(range(1, len(course))) as n from distinct_days where len(course) > 1
)
select
    person, level, ((course[n] >> 4) & 68719476735)::int as place,
    {classes}[course[n] & 15] as called, {classes}[course[n + 1] & 15] as becomes
from pairs;
