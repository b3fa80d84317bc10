-- What follow-up measures rest on; follow_up.py fills in the names in braces.

-- One row per patient and day with an evaluable vertebra. `levels` and `lesions` hold one bit per named level: evaluable,
-- and with a lesion.
create or replace temp table visits as
with studies as (
    select
        place, bool_or(called <> 'normal') as has_lesion, coalesce(bit_or(bit), 0) as levels,
        coalesce(bit_or(bit) filter (called <> 'normal'), 0) as lesions
    from brief_vertebrae left join (values {bits}) as places(level, bit) using (level)
    where evaluable and called is not null
    group by place
)
select
    person as patient, study_date as day, max(age) as age, arg_max(age_group, age) as age_group, max(sex) as sex,
    bool_or(has_lesion) as has_lesion, bit_or(levels) as levels, bit_or(lesions) as lesions
from studies join placed using (place)
group by person, study_date;

-- One row per visit that another one of the patient follows: from `day` to `until_day`. `last_lesion` is the last day up
-- to `day` with a lesion; `negatives` and `positives` count the visits up to `day`. `newly_in_view`: every level with a
-- lesion on `until_day` was not evaluable before.
create or replace temp view steps as
with following as (
    select
        *,
        min(day) over (partition by patient) as first_day,
        lead(day) over ordered as until_day,
        lead(has_lesion) over ordered as becomes,
        lead(lesions) over ordered as found,
        max(day) filter (has_lesion) over so_far as last_lesion,
        count(*) filter (not has_lesion) over so_far as negatives,
        count(*) filter (has_lesion) over so_far as positives,
        bit_or(levels) over so_far as known
    from visits where day is not null
    window
        ordered as (partition by patient order by day),
        so_far as (partition by patient order by day rows between unbounded preceding and current row)
)
select *, becomes and found <> 0 and found & known = 0 as newly_in_view
from following where until_day is not null;
