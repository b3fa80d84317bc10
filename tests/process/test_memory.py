"""Settings for malloc reach the threads of a process that starts with them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from spinemet.process.memory import KEEPING_ENVIRONMENT

# The page faults of a second thread for 12 arrays of 4 MB, after it freed 12 such arrays.
SECOND_THREAD = """
import resource, threading
import numpy as np
def work():
    def arrays():
        return [np.ones(4_000_000, np.uint8) for _ in range(12)]
    arrays()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    arrays()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc has these settings")
def test_a_second_thread_keeps_its_memory_if_the_process_started_with_the_settings() -> None:
    def faults(settings: dict[str, str]) -> int:
        command = [sys.executable, "-c", SECOND_THREAD]
        environment = {**os.environ, **settings}
        return int(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)

    if faults({}) < 10_000:  # of 11,700 pages of 4 kB
        pytest.skip("this machine keeps freed memory anyway, or uses huge pages")
    assert faults(KEEPING_ENVIRONMENT) < 1000
