-- The vertebrae that a sample can draw: those evaluable under the population's rule that have a picture.
-- likeness: probability of the side that was called, normal or any lesion. error: probability of another class.
create or replace temp view sampling_frame as
with judged as (
    select
        v.*, if(called = 'normal', p_normal, 1 - p_normal) as likeness,
        1 - case called when 'normal' then p_normal when 'blastic' then p_only_blastic when 'mixed' then p_mixed
                        else p_only_lytic end as error
    from evaluable v where called is not null
)
select
    *, concat_ws(' ', called, if(likeness >= {clear}, 'clear', 'close'), region) as stratum,
    source_key in (select source_key from pictures p, asked a
                   where p.model_digest = a.model and p.config_digest = a.configuration) as has_picture
from judged;
