"""One self-contained HTML file about the results of a screening job; a browser fetches nothing to show it.

It holds pseudonyms (shortened), technical facts and pictures of straightened spines; no identifier.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spinemet import __version__
from spinemet.cohort.flow import study_flow
from spinemet.cohort.population import Population
from spinemet.cohort.prevalence import TASK, notes
from spinemet.cohort.views import asked, open_cohort, records, trained_on
from spinemet.display import palette
from spinemet.errors import BadInput
from spinemet.files import join, read_bytes, write_bytes
from spinemet.model.card import caution
from spinemet.report.pages import flow_facts, galleries, spine_map
from spinemet.report.shares import characteristics, further_rows, overall, prevalence_rows
from spinemet.results.schemas import Row
from spinemet.statistics.intervals import format_interval

if TYPE_CHECKING:
    import duckdb

GALLERY_LIMIT = 6
"""Studies of each of the two galleries, about 100 KB each: the file stays small enough to send."""

_RUNS = 20


def write_report(
    results: str,
    out: str | Path,
    *,
    evaluation: str | None = None,
    as_of: datetime | None = None,
    population: Population | None = None,
    title: str = "Spinal metastases in archived CT",
) -> None:
    """Write the report on the result tables at `results` to the file `out` (local, or `s3://`).

    evaluation: the folder that jobs/evaluate.py wrote, for a section on how good the model is and for shares corrected
    for its errors. as_of: the tables as
    they were at that moment (with its time zone). population: what every count is about, by default all studies. Raises
    BadInput as `open_cohort` does, if there is no evaluation there, or if `out` cannot be written.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    measured = _evaluation(evaluation) if evaluation is not None else None
    connection = open_cohort(results, as_of, population)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["interval"] = _interval
    page = environment.get_template("report.html.j2").render(
        title=title, evaluation=measured, **_content(connection, evaluation)
    )
    write_bytes(str(out), page.encode())


def _content(connection: duckdb.DuckDBPyConnection, evaluation: str | None) -> dict[str, Any]:
    return {
        "flow": flow_facts(study_flow(connection)),
        "characteristics": characteristics(connection),
        **_prevalences(connection, evaluation),
        "map": spine_map(connection),
        "galleries": galleries(connection, GALLERY_LIMIT),
        "colours": palette.LIGHT,
        "dark": palette.DARK,
        "pale": palette.PALE_NORMAL,
        "uncalled": palette.UNCALLED["dark"],
        "letters": palette.LETTERS,
        "question": palette.QUESTION,
        "provenance": _provenance(connection),
        "notes": [one for one in notes(connection)[1:] if one != caution(trained_on(connection))],
        "notice": caution(trained_on(connection)),
        "runs": _runs(connection),
        "version": __version__,
        "now": _moment(datetime.now(UTC)),
    }


def _prevalences(connection: duckdb.DuckDBPyConnection, evaluation: str | None) -> Row:
    """The tables of the section "How often"; a model without the task bone quality has only the further ones."""
    found = overall(connection, evaluation) | {"further": further_rows(connection)}
    if not found["overall"]:
        return found
    return found | {
        "by_level": prevalence_rows(connection, ["level"], "vertebra"),
        "by_person": prevalence_rows(connection, ["sex", "age_group"], "patient"),
    }


def _provenance(connection: duckdb.DuckDBPyConnection) -> Row:
    """What read the studies, what the counts are about, and the version of the ledger that they come from."""
    row = records(
        connection,
        "select string_agg(distinct software_version, ', ') as software, string_agg(distinct localizer, ', ') as"
        " localizers, (select count(distinct (model_digest, config_digest)) from studies) - 1 as others from current",
    )[0]
    about = asked(connection) | row
    words = {name: "–" if value is None else value for name, value in about.items()}
    return words | {"as_of": _moment(about["committed_at"]), "others": max(row["others"], 0)}


def _runs(connection: duckdb.DuckDBPyConnection) -> list[Row]:
    rows = records(
        connection,
        "select run_id, state, started_at, finished_at, planned, screened, excluded, failed, vertebrae,"
        f" studies_per_hour, model_digest, software_version from runs order by started_at desc limit {_RUNS}",
    )
    return [
        row | {"started_at": _moment(row["started_at"]), "took": _took(row["started_at"], row["finished_at"])}
        for row in rows
    ]


def _moment(when: datetime | None) -> str:
    return "–" if when is None else when.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def _took(start: datetime | None, end: datetime | None) -> str:
    if start is None or end is None:
        return "–"
    minutes, seconds = divmod(round((end - start).total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


# ---- evaluation -----------------------------------------------------------------------------------------------


def _evaluation(uri: str) -> Row:
    """Measures (task, label, measure) and confusions of bone quality (truth, call) per vertebra, of evaluation.json."""
    place = join(uri, "evaluation.json")
    content = json.loads(read_bytes(place))
    tasks: dict[str, dict[str, Row]] = {}
    confusion: dict[str, dict[str, int]] = {}
    try:
        for row in content["measures"]:
            if row["unit"] == "vertebra":
                tasks.setdefault(row["task"], {}).setdefault(row["label"], {})[row["measure"]] = row
        for row in content["confusions"]:
            if (row["unit"], row["task"]) == ("vertebra", TASK):
                confusion.setdefault(row["truth"], {})[row["predicted"]] = row["count"]
        return {"facts": content["facts"], "tasks": tasks, "confusion": confusion}
    except (KeyError, TypeError) as error:
        raise BadInput(f"{place} is not an evaluation that jobs/evaluate.py wrote.") from error


def _interval(measure: Mapping[str, Any]) -> str:
    return format_interval(*(measure.get(end) for end in ("value", "low", "high")))
