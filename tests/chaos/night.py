"""jobs/screen.py with small waves and batches, so that a short night has many commits: `-m tests.chaos.night …`."""

from __future__ import annotations

import sys

from jobs.screen import main
from spinemet.on_ray import screen

if __name__ == "__main__":
    screen.WAVE, screen.BATCH = 2, 2
    sys.exit(main())
