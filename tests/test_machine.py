"""In a container its limits count, not the size of the host."""

from pathlib import Path

import pytest

from spinemet import machine
from spinemet.machine import available_cores, available_memory_gb, usable_cores


def test_the_limits_of_a_container_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    cores, memory = available_cores(), available_memory_gb()
    for unlimited in ("max", "max 100000"):
        (tmp_path / "memory.max").write_text("max\n")
        (tmp_path / "cpu.max").write_text(unlimited)
        assert (available_cores(), available_memory_gb()) == (cores, memory)
    (tmp_path / "memory.max").write_text(f"{500 * 10**6}\n")
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert (available_cores(), available_memory_gb()) == (0.5, 0.5)


@pytest.mark.parametrize(("quota", "cores"), [("50000", 1), ("100000", 1), ("250000", 2), ("400000", 4), ("max", 8)])
def test_a_process_uses_whole_cores_of_its_part(
    quota: str, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)), raising=False)
    (tmp_path / "cpu.max").write_text(f"{quota} 100000\n")
    assert usable_cores() == cores
