from __future__ import annotations

import pytest

from spinemet import progress


def test_a_log_gets_a_plain_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 1.0, 20.0, 20.0, 21.0, 30.0, 30.0, 30.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.progress_bar("Reading") as advance:
        advance(1, 10)
        advance(5, 10, "fine")
        advance(6, 10)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["Reading …", "Reading: 5/10 after 20 s fine", "Reading: done in 30 s"]
