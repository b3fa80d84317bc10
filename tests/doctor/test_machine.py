"""What the doctor says of machines of several sizes, and of this one."""

from __future__ import annotations

import sys

import pytest

from spinemet.doctor import examine
from spinemet.doctor.findings import Level
from spinemet.doctor.machine import (
    check_cores,
    check_memory,
    check_python,
)


@pytest.mark.parametrize(
    ("version", "level"),
    [((3, 10), Level.PROBLEM), ((3, 11), Level.OK), ((3, 13), Level.OK), ((3, 14), Level.WARNING)],
)
def test_python(version: tuple[int, int], level: Level) -> None:
    assert check_python(version).level is level


@pytest.mark.parametrize(("cores", "level"), [(1, Level.WARNING), (1.5, Level.WARNING), (2, Level.OK)])
def test_cores(cores: float, level: Level) -> None:
    assert check_cores(cores).level is level


@pytest.mark.parametrize(
    ("gigabytes", "cores", "level"),
    [(2.0, 1, Level.PROBLEM), (3.0, 1, Level.OK), (4.5, 2, Level.WARNING), (5.0, 2, Level.OK), (24, 8, Level.OK)],
)
def test_memory_must_hold_a_study_and_should_hold_one_per_core(gigabytes: float, cores: float, level: Level) -> None:
    assert check_memory(gigabytes, cores).level is level


def test_this_machine_runs_the_tests() -> None:
    findings = list(examine(None, None, None, None, None))[:4]
    assert [finding.subject for finding in findings] == ["Python", "cores", "memory", "GPU"]
    assert findings[0].found == f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert all(finding.level is not Level.PROBLEM for finding in findings)
