"""Findings fit into a terminal, and the closing line says whether jobs can start."""

from __future__ import annotations

import json
from threading import Event

import pytest
from rich.console import Console

from spinemet.doctor.findings import Finding, Level, as_json, check, is_ready, render

FINDINGS = [
    Finding("cores", Level.OK, "2"),
    Finding("archive", Level.SKIPPED, "not checked; give --archive"),
    Finding("clock", Level.WARNING, "47 s ahead of the store; the lease of a run allows for 30 s", "Set the clock."),
    Finding("results", Level.PROBLEM, f"s3://{'long' * 20} " + "refuses to be written " * 5, "Allow it."),
]


def shown(findings: list[Finding], width: int) -> list[str]:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(render(findings))
    return capture.get().splitlines()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_wider_than_the_terminal_and_no_word_is_lost(width: int) -> None:
    lines = shown(FINDINGS, width)
    assert max(map(len, lines)) <= width
    words = "".join("".join(lines).split())
    for finding in FINDINGS:
        assert finding.subject in words
        if len(finding.found) < width // 2:
            assert finding.found.replace(" ", "") in words
    assert words.count("long") == 20


def test_the_closing_line_counts_problems_and_warnings() -> None:
    assert "1 problem would stop a job, 1 warning." in "\n".join(shown(FINDINGS, 80))
    assert "Nothing here would stop a job, 1 warning." in "\n".join(shown(FINDINGS[:3], 80))
    assert "Nothing here would stop a job." in "\n".join(shown(FINDINGS[:2], 80))


def test_only_a_problem_stops_a_job_and_json_says_so() -> None:
    assert is_ready(FINDINGS[:3])
    found = json.loads(json.dumps(as_json(FINDINGS)))
    assert found["ready"] is False
    assert [each["level"] for each in found["findings"]] == ["ok", "skipped", "warning", "problem"]
    assert found["findings"][2]["remedy"] == "Set the clock."


def test_a_check_that_hangs_is_a_problem_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spinemet.doctor.findings.WAIT_S", 0.1)
    end = Event()

    @check("archive", "Check --archive.")
    def hang() -> str:
        end.wait()
        return "readable"

    finding = hang()
    end.set()
    assert finding == Finding("archive", Level.PROBLEM, "no answer within 0.1 s", "Check --archive.")
