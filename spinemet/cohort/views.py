"""The result tables opened for questions: the analysis views that every cohort answer starts from.

On top of the tables (`studies`, `vertebrae`, `calls`, `slices`, `pictures`, `runs`) stand these views (views.sql), all
limited to one model and one reading configuration, the ones that screened last: a rate over two models means nothing.

    current            one row per study, in whatever state; a study that lies twice in the archive counts once
    current_vertebrae  one row per vertebra of each screened study, follow-ups included, with the study's facts
    current_calls      one row per classified vertebra of these and task: the most probable class (`label`), its
                       `probability`, and `is_positive` (any class but the task's first, negative one)
    imaged             one row per patient and level in view: from the latest study in which that level is
                       evaluable, else from the latest in which it is in view at all
    evaluable          the rows of `imaged` that are whole, classified and sure: the denominator

`imaged` has the bone quality as booleans: `any_lesion`, `blastic`, `mixed`, `lytic`, null if the vertebra is not
evaluable. Every other task joins it by (source_key, vertebra) from `current_calls`. A vertebra without a name (`?1`)
cannot be matched between studies: if the latest study of a patient has such vertebrae, only that study counts, and the
unnamed vertebrae of other studies never count. A study without a patient key counts as a patient of its own.
"""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import duckdb
import pandas as pd

from spinemet.errors import BadInput
from spinemet.results.schemas import Row
from spinemet.results.tables import connect


def open_cohort(results: str, as_of: datetime | None = None) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection with the result tables and the analysis views of this module.

    results: the results place of a screening job. as_of: the tables as they were at that moment (with its time zone).
    Raises BadInput if there are no result tables, or were none at that moment.
    """
    connection = connect(results, as_of)
    connection.execute(Path(__file__).with_suffix(".sql").read_text())
    return connection


def trained_on(connection: duckdb.DuckDBPyConnection) -> str | None:
    """What the model that screened last was trained on, if not on patients alone; None if its card did not say."""
    query = "select max(r.trained_on) as words from runs r semi join current using (model_digest)"
    words: str | None = records(connection, query)[0]["words"]
    return words


def records(connection: duckdb.DuckDBPyConnection, query: str, values: Sequence[object] = ()) -> list[Row]:
    """The answer to `query` as one dictionary per row, with `values` in place of its question marks."""
    # By Arrow: DuckDB's own rows need pytz for a time with a zone.
    rows: list[Row] = connection.sql(query, params=list(values)).to_arrow_table().to_pylist()
    return rows


def run_sql(results: str, query: str, as_of: datetime | None = None) -> pd.DataFrame:
    """The answer to one SELECT over the tables and analysis views of `results`, as they were at `as_of`.

    Raises BadInput if there are no result tables, the query is not exactly one SELECT, or DuckDB refuses it.
    """
    connection = open_cohort(results, as_of)
    try:
        statements = connection.extract_statements(query)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            kinds = ", ".join(statement.type.name for statement in statements) or "nothing"
            raise BadInput(f"expected one SELECT, found {kinds}; this command only reads the result tables.")
        return connection.execute(statements[0]).df()
    except duckdb.Error as error:
        raise BadInput(f"DuckDB does not accept the query: {str(error).splitlines()[0]}") from error
