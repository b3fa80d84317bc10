"""What SQL may reach. A query, or the condition of a population, can come from anybody who is asked to try one."""

import duckdb

from spinemet.files import is_s3

MEMORY_SHARE = 0.5
"""Part of the machine's memory that a query may take before it goes to disk or ends."""


def confine(connection: duckdb.DuckDBPyConnection, results: str) -> None:
    """Let `connection` read the result tables and nothing else: no other file, no network, no extension, no variable
    of this program. It cannot be undone.
    """
    allowed = "[]" if is_s3(results) else "['" + results.replace("'", "''") + "/']"
    for setting, value in (
        ("allowed_directories", allowed),
        ("memory_limit", f"'{MEMORY_SHARE:.0%}'"),
        ("autoinstall_known_extensions", "false"),
        ("autoload_known_extensions", "false"),
        ("python_enable_replacements", "false"),
        ("enable_external_access", "false"),
        ("lock_configuration", "true"),
    ):
        connection.execute(f"SET {setting} = {value}")
