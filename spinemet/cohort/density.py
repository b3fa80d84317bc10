"""How dense the spongy bone of vertebrae without a lesion is, and how it changes with age."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import numpy as np
import pandas as pd

from spinemet.cohort.grouping import check_groups, counted_in, in_order, with_source, words
from spinemet.results.schemas import Row
from spinemet.statistics.clusters import clustered_mean, clustered_slope

USUAL_HU, USUAL_AGE = 150.0, 60.0
"""Sums are taken of distances from these, so that no digit is lost."""

_VALUES = ("n", "y", "yy", "aged", "x", "xy", "xx", "ay")


def density(connection: duckdb.DuckDBPyConnection, by: Sequence[str] = ("sex",)) -> pd.DataFrame:
    """One row per group: mean trabecular HU with its 95 % interval, SD, and the change of HU per ten years of age.

    connection: from `open_cohort`. by: columns of GROUPS. Each patient gives each level once, as in `prevalence`, with
    the age at that study. Vertebrae called positive are left out, and so are those that are cut or unsure or whose HU
    were not measured. Contrast medium raises HU: group by `contrast`.

    Columns: the groups, `n_patients`, `n_vertebrae`, `n_lesions` and `n_unmeasured` (evaluable, but left out for this
    reason), `mean_hu`, `ci_low`, `ci_high`, `sd_hu` (of vertebrae), `n_aged` (vertebrae of a known age),
    `hu_per_decade`, `decade_low`, `decade_high` (least squares; intervals count patients, see `statistics.clusters`),
    and SOURCE. NaN if the data cannot tell. Raises BadInput for an unknown column, and for years if the dates are
    shifted.
    """
    check_groups(connection, by)
    seen = counted_in(connection, by)
    named = "".join(f"{name}, " for name in by)
    sums = connection.execute(
        f"""with counted as (
            select {words(by)}person, place, vertebra, age - {USUAL_AGE} as x, called <> 'normal' as is_lesion
            from {seen} where is_distinct and evaluable
        ), measured as (
            select c.*, if(is_lesion, null, v.trabecular_hu - {USUAL_HU}) as y
            from counted c join brief_vertebrae v using (place, vertebra)
        )
        select {named}person, count(*) filter (is_lesion) as lesions,
            count(*) filter (not is_lesion and y is null) as bare,
            count(y)::double as n, coalesce(sum(y), 0) as y, coalesce(sum(y * y), 0) as yy,
            (count(*) filter (y is not null and x is not null))::double as aged,
            coalesce(sum(x) filter (y is not null), 0) as x, coalesce(sum(x * y), 0) as xy,
            coalesce(sum(x * x) filter (y is not null), 0) as xx, coalesce(sum(y) filter (x is not null), 0) as ay
        from measured group by {named}person"""
    ).df()
    rows = []
    for key, part in in_order(sums, by).groupby(list(by), observed=True, sort=True) if by else [((), sums)]:
        rows.append(dict(zip(by, key if isinstance(key, tuple) else (key,), strict=True)) | _row(part))
    return with_source(connection, pd.DataFrame(rows, columns=None if rows else [*by, *_row(sums)]))


def _row(part: pd.DataFrame) -> Row:
    """The columns of one group, of one row of sums per patient."""
    measured = part[part["n"] > 0]
    n, y, yy, aged, x, xy, xx, ay = (measured[name].to_numpy(np.float64) for name in _VALUES)
    total = n.sum()
    mean, has_age = clustered_mean(n, y), aged > 0
    slope = clustered_slope(*(values[has_age] for values in (aged, x, ay, xx, xy)))
    return {
        "n_patients": len(measured),
        "n_vertebrae": int(total),
        "n_lesions": int(part["lesions"].sum()),
        "n_unmeasured": int(part["bare"].sum()),
        "mean_hu": mean.value + USUAL_HU,
        "ci_low": mean.low + USUAL_HU,
        "ci_high": mean.high + USUAL_HU,
        "sd_hu": float(np.sqrt(max(yy.sum() - total * mean.value**2, 0) / (total - 1))) if total > 1 else np.nan,
        "n_aged": int(aged.sum()),
        "hu_per_decade": 10 * slope.value,
        "decade_low": 10 * slope.low,
        "decade_high": 10 * slope.high,
    }
