-- One row per person, {period} and level in view; views.py makes these views for each kind of period. `brief_{name}` has
-- only what counts need, in numbers; `{name}` has every column.
--
-- Each vertebra is one number, and the smallest of a person and level counts: from the left a bit for "not evaluable",
-- the place of the study, the vertebra (8 bits), a bit each for cut and unsure, and the class (4 bits, 0 for none). A
-- struct instead costs twice the time, a window over the rows three times.
create or replace temp view brief_{name} as
with numbered as (
    select
        person, {period} as period, level, is_named,
        if(evaluable, 0, 1::bigint << 60) + (place::bigint << 16) + (vertebra << 8) + (cut::int << 5)
        + (unsure::int << 4) + coalesce(list_position({classes}, called), 0) as number
    from brief_vertebrae
), named as (
    select person, period, level, min(number) as number from numbered where is_named group by all
), latest as (
    select person, {period} as period, min(place) as place from placed where left_as is null and has_vertebrae
    group by all
), unnamed as (
    select n.* from numbered n semi join latest l on (n.number >> 16) % 4294967296 = l.place where not is_named
), elsewhere as (
    select distinct n.person, n.period
    from named n semi join unnamed using (person, period) join latest l using (person, period)
    where (n.number >> 16) % 4294967296 <> l.place
), counted as (
    select person, level, number, true as is_named, true as is_distinct from named
    union all
    select u.person, u.level, u.number, false, e.person is null from unnamed u left join elsewhere e using (person, period)
)
select
    person, ((number >> 16) % 4294967296)::int as place, ((number >> 8) & 255)::int as vertebra, level, is_named,
    number >> 60 = 0 as evaluable, (number >> 5) & 1 = 1 as cut, (number >> 4) & 1 = 1 as unsure,
    {classes}[number & 15] as called, is_distinct
from counted;

create or replace temp view {name} as
select v.*, b.is_distinct from current_vertebrae v
join (select source_key, vertebra, is_distinct from brief_{name} join placed using (place)) b using (source_key, vertebra);
