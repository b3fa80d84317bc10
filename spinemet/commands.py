"""Running a command of `spinemet` or of jobs/: its options, its exit code, its errors."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import typer

from spinemet.errors import JobFailed, SpineMetError

if TYPE_CHECKING:
    from rich.console import Console

_OF_SQL = {"BinderException", "CatalogException", "ParserException", "SyntaxException"}
_PARQUET = re.compile(r"parquet|thrift|deserializing page", re.IGNORECASE)


def one_command(work: Callable[..., None]) -> typer.Typer:
    """A command line whose only command is `work`: its parameters are the options, its docstring is the help."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(work)
    return app


def run_command(app: typer.Typer, name: str, argv: list[str] | None = None) -> int:
    """Run `app` with `argv` (default: the arguments of this process) and return its exit code.

    0: done. 1: JobFailed. 2: another SpineMetError, wrong usage, or a data file of a table that is damaged inside.
    `typer.Exit` and SystemExit keep their code. Errors are printed as one sentence that starts with `name`.
    """
    try:
        app(args=argv, prog_name=name)
    except SystemExit as ended:  # typer ends so, also after success
        return int(ended.code or 0)
    except SpineMetError as error:
        typer.echo(f"{name}: {error}", err=True)
        return 1 if isinstance(error, JobFailed) else 2
    except Exception as error:
        if not _is_of_data(error):
            raise
        last = str(error).strip().splitlines()[-1].rstrip(".")
        typer.echo(f"{name}: a data file of the tables seems damaged ({last}): put it back from a copy.", err=True)
        return 2
    return 0


def _is_of_data(error: Exception) -> bool:
    """Whether Arrow or DuckDB found a data file whose size is right and whose content is not."""
    library = type(error).__module__.lstrip("_").partition(".")[0]
    of_library = library in {"duckdb", "pyarrow"} and type(error).__name__ not in _OF_SQL
    return of_library or (isinstance(error, OSError) and bool(_PARQUET.search(str(error))))


def console() -> Console:
    """A console on standard output, 130 columns wide if that is not a terminal."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=130)
