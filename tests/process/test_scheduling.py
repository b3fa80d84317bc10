"""Long turns on a core are asked for, inherited, and asked for before Ray starts."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from spinemet.process.scheduling import TURN_NS

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"), reason="only Linux has these turns"
)

TELL = """
import ctypes, os, platform, struct
attributes = ctypes.create_string_buffer(48)
number = {"x86_64": 315, "aarch64": 275}[platform.machine()]  # sched_getattr
assert ctypes.CDLL(None).syscall(number, 0, attributes, 48, 0) == 0
print(os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0), struct.unpack("=IIQiIQQQ", attributes.raw)[5])
"""
BEGIN = """
import subprocess, sys
{}
subprocess.run([sys.executable, "-c", sys.argv[1]], check=True)
"""
ALONE = "from spinemet.process.scheduling import take_long_turns; take_long_turns()"
BEFORE_RAY = """
import ray
from spinemet.on_ray.cluster import connect
ray.init = lambda **settings: None
connect()
"""


@pytest.mark.parametrize("begin", [ALONE, BEFORE_RAY])
def test_a_process_started_later_takes_long_turns_too(begin: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = ["nice", "-n", "3", sys.executable, "-c", BEGIN.format(begin), TELL]
    told = subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout
    policy, nice, turn_ns = map(int, told.split())
    assert policy == os.SCHED_BATCH
    assert nice == os.getpriority(os.PRIO_PROCESS, 0) + 3  # as before
    assert turn_ns in (TURN_NS, 0)  # 0 from kernels before 6.12
