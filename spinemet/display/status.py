"""The status of a results place on one page of a terminal, and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from spinemet.display import palette
from spinemet.results.schemas import Row, RunState
from spinemet.results.status import KILLED, Status, meaning

_STYLES = {RunState.DONE: "green", RunState.RUNNING: "cyan", RunState.FAILED: "bold red", KILLED: "bold red"}


def render_status(found: Status, max_age_h: float | None = None) -> RenderableType:
    """Last success, ledger, lease, runs, failures and drift. max_age_h: the success must not be older than this."""
    facts = Table.grid(padding=(0, 2, 0, 0))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    facts.add_row("last success", _success(found, max_age_h))
    counts = ", ".join(f"{count} {state}" for state, count in found.studies.items()) or "no study"
    facts.add_row("ledger", f"version {found.ledger_version}: {counts}")
    if found.published is not None:
        facts.add_row("published", f"model {found.published.model}, since {_minute(found.published.published_at)}")
    holder = found.lease
    facts.add_row(
        "lease", f"{holder.run_id} on {holder.host}, since {_minute(holder.since)}" if holder else "nobody holds it"
    )
    parts: list[RenderableType] = [Text(found.place, style="bold"), facts, Text(), _runs(found.runs), Text()]
    if found.failed:
        parts.append(_failed(found))
    parts += [Text(line, style=palette.WARNING) for line in _alarms(found.runs)]
    return Padding(Group(*parts), (1, 1))


def status_json(found: Status, max_age_h: float | None = None) -> str:
    """The same as JSON, with `too_old` if a greatest age is given."""
    about: dict[str, Any] = asdict(found) | {
        "published": found.published and found.published.model_dump(mode="json"),
        "lease": found.lease and found.lease.model_dump(mode="json"),
        "hours_since_success": found.hours_since_success,
    }
    if max_age_h is not None:
        about["too_old"] = found.is_too_old(max_age_h)
    return json.dumps(about, indent=2, default=lambda value: value.isoformat())


def _success(found: Status, max_age_h: float | None) -> Text:
    hours = found.hours_since_success
    if found.last_success is None or hours is None:
        return Text("never", style="bold red")
    text = Text(f"{_minute(found.last_success)}, {_age(hours)} ago")
    if max_age_h is not None and found.is_too_old(max_age_h):
        text.append(f": older than {_age(max_age_h)}", style="bold red")
    return text


def _runs(runs: list[Row]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    for title in ("started (UTC)", "state"):
        table.add_column(title, no_wrap=True)
    for title in ("took", "planned", "screened", "excluded", "failed", "waiting", "per hour"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("model", no_wrap=True)
    for run in runs:
        ended, rate = run["finished_at"], run["studies_per_hour"]
        table.add_row(
            _minute(run["started_at"]),
            Text(run["state"], style=_STYLES.get(run["state"], "")),
            _age((ended - run["started_at"]).total_seconds() / 3600) if ended else "",
            *("" if run[name] is None else f"{run[name]:,}" for name in ("planned", "screened", "excluded")),
            Text("" if run["failed"] is None else f"{run['failed']:,}", style="red" if run["failed"] else ""),
            "" if run["waiting"] is None else f"{run['waiting']:,}",
            "" if rate is None else f"{rate:,.0f}",
            run["model_digest"],
        )
    return table


def _failed(found: Status) -> RenderableType:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(justify="right", style="red")
    table.add_column()
    table.add_column(style="dim")
    for reason, count in sorted(found.failed.items(), key=lambda one: (-one[1], one[0])):
        table.add_row(f"{count:,}", reason, meaning(reason))
    named = [Text(f"  {place}") for place in found.failed_studies.values()]
    more = sum(found.failed.values()) - len(named)
    if named and more:
        named.append(Text(f"  and {more:,} more", style="dim"))
    return Group(Text("failed studies of these runs", style="bold"), table, *named, Text())


def _alarms(runs: list[Row]) -> list[str]:
    return [
        f"out of control in the run of {_minute(run['started_at'])}: {run['drift']}" for run in runs if run["drift"]
    ]


def _minute(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M}"


def _age(hours: float) -> str:
    if hours >= 48:
        return f"{hours / 24:.0f} days"
    return f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.0f} min"
