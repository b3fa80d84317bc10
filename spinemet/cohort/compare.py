"""Two models on the same studies: how often they call the same vertebrae alike."""

import duckdb
import pandas as pd

from spinemet.errors import BadInput
from spinemet.results.tables import connect

_CALLED = """
    SELECT model_digest, source_key, vertebra, level, task, arg_max(class, probability) AS label,
        arg_max(class_number, probability) > 0 AS is_positive
    FROM calls WHERE model_digest IN (?, ?) GROUP BY ALL
"""
_COMPARED = f"""
    WITH called AS ({_CALLED}),
        old AS (SELECT * FROM called WHERE model_digest = ?),
        new AS (SELECT * FROM called WHERE model_digest = ?)
    SELECT task, count(DISTINCT old.source_key) AS n_studies, count(*) AS n_vertebrae,
        count(*) FILTER (old.label = new.label) AS n_same_class,
        count(*) FILTER (old.is_positive AND new.is_positive) AS n_both_positive,
        count(*) FILTER (old.is_positive AND NOT new.is_positive) AS n_only_old,
        count(*) FILTER (new.is_positive AND NOT old.is_positive) AS n_only_new,
        count(*) FILTER (NOT old.is_positive AND NOT new.is_positive) AS n_both_negative
    FROM old JOIN new USING (source_key, vertebra, level, task) GROUP BY task ORDER BY task
"""


def compare(results: str, old: str, new: str) -> pd.DataFrame:
    """One row per task of both models, over the vertebrae that both classified in the same studies.

    old, new: the first digits of their digests. Columns: task, `n_studies`, `n_vertebrae`, `n_same_class`, the four
    counts of positive by old and new (positive: any class but the task's first), and the digests. Raises BadInput if
    not exactly one model fits each, or they have no classified vertebra in common.
    """
    connection = connect(results)
    models = [_whole(connection, digits) for digits in (old, new)]
    if models[0] == models[1]:
        raise BadInput(f"expected two models, found {models[0]} twice.")
    table = connection.execute(_COMPARED, [*models, *models]).df()
    if table.empty:
        raise BadInput(
            f"models {models[0]} and {models[1]} have classified no vertebra in common: screen the same studies with "
            "both (--rescreen stale)."
        )
    return table.assign(old_model=models[0], new_model=models[1])


def _whole(connection: duckdb.DuckDBPyConnection, digits: str) -> str:
    rows = connection.sql("SELECT DISTINCT model_digest FROM studies WHERE state = 'screened' ORDER BY 1").fetchall()
    known: list[str] = [model for (model,) in rows]
    fits = [model for model in known if model.startswith(digits)]
    if len(fits) != 1:
        raise BadInput(
            f"expected the first digits of one of the models {', '.join(known) or '(none)'}, found {digits}."
        )
    return fits[0]
