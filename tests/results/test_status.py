"""The status of a results place: last runs, failures by reason and place, the lease, the age of the last success."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from spinemet.cli import main
from spinemet.errors import BadInput
from spinemet.results.lease import hold_lease
from spinemet.results.status import KILLED, status
from spinemet.results.tables import open_results
from tests.cohort.cases import Study, write_results


@pytest.fixture
def place(tmp_path: Path) -> str:
    """A night of 2025 with two studies that failed."""
    return write_results(
        str(tmp_path / "results"),
        [
            Study("p1", levels="T12=lytic L1"),
            Study("p2", state="failed", reason="truncated"),
            Study("p3", state="failed", reason="time_limit"),
            Study("p4", state="excluded", reason="not_ct"),
        ],
    )


def another_run(place: str, run_id: str, **changes: Any) -> None:
    results = open_results(place)
    (first,) = (row for row in results.runs() if row["run_id"] == "run-1")
    now = datetime.now(UTC)
    results.write_run(first | {"run_id": run_id, "started_at": now, "finished_at": now} | changes)


def test_failures_have_reasons_and_with_linkage_names(place: str, tmp_path: Path) -> None:
    found = status(place)
    assert found.studies == {"excluded": 1, "failed": 2, "screened": 1}
    assert found.failed == {"truncated": 1, "time_limit": 1}
    assert found.failed_studies == {}
    (tmp_path / "linkage").mkdir()
    linked = pd.DataFrame(
        {"source_key": ["src0010", "src0000"], "source": ["s3://archive/A/2.zip", "s3://archive/A/1.zip"]}
    )
    linked.to_parquet(tmp_path / "linkage" / "linkage-1.parquet")
    assert status(place, str(tmp_path / "linkage")).failed_studies == {"src0010": "s3://archive/A/2.zip"}
    with pytest.raises(BadInput, match="no linkage table can be read"):
        status(place, str(tmp_path / "nowhere"))


def test_a_success_too_old_has_exit_code_1(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", place]) == 0
    assert main(["status", place, "--max-age", "26"]) == 1
    assert "older than 26.0 h" in capsys.readouterr().out
    another_run(place, "run-2")
    assert main(["status", place, "--max-age", "26", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["too_old"], said["failed"], len(said["runs"])) == (False, {"truncated": 1, "time_limit": 1}, 2)
    assert main(["status", place, "--max-age", "0"]) == 2


@pytest.mark.parametrize(
    "changes", [{"state": "failed"}, {"state": "stopped"}, {"planned": 27, "screened": 0, "excluded": 0, "failed": 0}]
)
def test_a_run_that_failed_or_did_nothing_is_no_success(place: str, changes: dict[str, Any]) -> None:
    first = status(place).last_success
    another_run(place, "run-2", **changes)
    assert status(place).last_success == first
    another_run(place, "run-3", planned=0, screened=0, excluded=0, failed=0)  # a quiet night
    assert not status(place).is_too_old(1)


def test_a_run_that_holds_no_lease_any_more_was_killed(place: str) -> None:
    another_run(place, "run-2", state="running", finished_at=None)
    assert [row["state"] for row in status(place).runs] == [KILLED, "done"]
    with hold_lease(place, "run-2", timedelta(seconds=30)):
        found = status(place)
    assert found.runs[0]["state"] == "running"
    assert found.lease is not None
    assert found.lease.run_id == "run-2"
    assert status(place).lease is None
