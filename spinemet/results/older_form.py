"""Result tables of the older form, and the queries that give their rows in the present form.

In the older form `flags` was text with a space between two words, there was no table `calls`, and `vertebrae` held the
tasks that have no column of their own as JSON in `further_tasks`. `maintenance.migrate` rewrites such tables with these
queries; `tables.connect` uses the same queries for a moment before the migration.
"""

from collections.abc import Collection

import pyarrow as pa

from spinemet.results.schemas import PROBABILITY_COLUMNS, SCHEMAS

FLAGGED: tuple[str, ...] = ("studies", "vertebrae")
"""The tables with a column `flags`, whose type shows the form."""

_SAID = ("task", "class", "class_number", "probability")
_UNKNOWN = "in_set"
"""The column of `calls` of which the older form says nothing."""
_FURTHER = """coalesce(flatten(list_transform(
    map_entries(further_tasks::json::map(varchar, map(varchar, double))),
    lambda t: list_transform(map_entries(t.value), lambda c, number: {
        'task': t.key, 'class': c.key, 'class_number': (number - 1)::integer, 'probability': c.value
    })
)), [])"""


def is_older(schema: pa.Schema) -> bool:
    """Whether a table of FLAGGED with this schema has the older form."""
    return not pa.types.is_list(schema.field("flags").type)


def in_present_form(table: str, columns: Collection[str]) -> str:
    """The query for the rows of `table`, one of FLAGGED. columns: those that it has."""
    dropped = "exclude (further_tasks)" if "further_tasks" in columns else ""
    flags = "if(flags = '', []::varchar[], string_split(flags, ' ')) as flags"
    return f"select * {dropped} replace ({flags}) from {table}"


def calls_of(vertebrae: str, columns: Collection[str]) -> str:
    """The query for the rows of `calls` that the older table `vertebrae` implies. columns: those that it has."""
    kept = ", ".join(name for name in SCHEMAS["calls"].names if name not in {*_SAID, _UNKNOWN})
    said = f"[{', '.join(_with_columns())}]" + (f" || {_FURTHER}" if "further_tasks" in columns else "")
    sources = {**{name: f"said.{name}" for name in _SAID}, _UNKNOWN: f"null::boolean as {_UNKNOWN}"}
    columns_of_calls = ", ".join(sources.get(name, name) for name in SCHEMAS["calls"].names)
    return (
        f"select {columns_of_calls} from (select {kept}, unnest({said}) as said from {vertebrae}) "
        "where said.probability is not null"
    )


def _with_columns() -> list[str]:
    """A struct for each class of the tasks that have columns; of a no/yes task only `yes` has one."""
    tasks: dict[str, dict[str, str]] = {}
    for column, (task, name) in PROBABILITY_COLUMNS.items():
        if name == "yes":
            tasks[task] = {"no": f"1 - {column}"}
        tasks.setdefault(task, {})[name] = column
    return [
        f"{{'task': '{task}', 'class': '{name}', 'class_number': {number}::integer, 'probability': {value}}}"
        for task, classes in tasks.items()
        for number, (name, value) in enumerate(classes.items())
    ]
