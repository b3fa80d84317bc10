"""jobs/screen.py with small waves and slow studies, which makes a small archive last: `-m tests.chaos.night …`."""

from __future__ import annotations

import sys
import time
from typing import Any

from jobs.screen import main
from spinemet.config import StudyConfig
from spinemet.on_ray import screen
from spinemet.screening import night

PAUSE_S = 1.0
_read_row = screen.read_row


def slow_row(row: dict[str, Any], config: StudyConfig, views: bool) -> dict[str, Any]:
    """Like `read_row`, but a second slower: small phantoms are read faster than a test can watch."""
    time.sleep(PAUSE_S)
    return _read_row(row, config, views)


if __name__ == "__main__":
    night.WAVE, screen.BATCH, screen.read_row = 2, 2, slow_row
    sys.exit(main())
