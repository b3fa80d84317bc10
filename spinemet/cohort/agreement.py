"""How far two models, or two reading configurations, agree on the same vertebrae."""

from __future__ import annotations

import duckdb
import numpy as np
import pandas as pd

from spinemet.cohort.grouping import with_source
from spinemet.cohort.population import Population
from spinemet.cohort.views import asked, chosen
from spinemet.errors import BadInput
from spinemet.statistics.clusters import kappa
from spinemet.types import BONE_QUALITY


def agreement(connection: duckdb.DuckDBPyConnection, other: Population) -> pd.DataFrame:
    """One row per pair of calls of bone quality: by the population's model, and by that of `other`.

    connection: from `open_cohort`. other: its `model` and `configuration` choose the second reader; the rule and the
    studies are the population's. The same vertebra is the same level of the same study, evaluable for both readers;
    follow-ups count too.

    Columns: `first` and `second` (the calls), `n_patients`, `n_vertebrae`, `share` (of all compared), then the same in
    every row: `n_compared`, `agreement` (the share of equal calls), `kappa` (Cohen's) with `kappa_low` and `kappa_high`
    (patients as clusters), `second_model`, `second_configuration`, and SOURCE. Raises BadInput if the tables do not
    hold one such reader, or if it is the same.
    """
    about = asked(connection)
    second = chosen(connection, other)
    if (second.model, second.configuration) == (about["model"], about["configuration"]):
        raise BadInput("expected a second model or configuration that differs from the population's; found the same.")
    pairs = connection.execute(
        """with other as (
            select source_key, level, called
            from every_call semi join studies using (source_key, model_digest, config_digest, wave)
            where model_digest = ? and config_digest = ? and evaluable and level[1] <> '?'
        )
        select person, b.called as first, o.called as second, count(*) as n
        from brief_vertebrae b join placed using (place, person) join other o using (source_key, level)
        where b.evaluable and b.is_named group by all""",
        [second.model, second.configuration],
    ).df()
    classes = list(BONE_QUALITY)
    people, person_N = np.unique(pairs["person"], return_inverse=True)
    counts_PCC = np.zeros((len(people), len(classes), len(classes)))
    places = [pairs[side].map(classes.index).to_numpy(int) for side in ("first", "second")]
    np.add.at(counts_PCC, (person_N, *places), pairs["n"])
    total_CC = counts_PCC.sum(axis=0)
    compared, found = total_CC.sum(), kappa(counts_PCC)
    rows = [
        {
            "first": one,
            "second": two,
            "n_patients": int((counts_PCC[:, n, m] > 0).sum()),
            "n_vertebrae": int(total_CC[n, m]),
            "share": total_CC[n, m] / compared if compared else np.nan,
        }
        for n, one in enumerate(classes)
        for m, two in enumerate(classes)
    ]
    shared = {
        "n_compared": int(compared),
        "agreement": np.trace(total_CC) / compared if compared else np.nan,
        "kappa": found.value,
        "kappa_low": found.low,
        "kappa_high": found.high,
        "second_model": second.model,
        "second_configuration": second.configuration,
    }
    return with_source(connection, pd.DataFrame(rows).assign(**shared))
