"""Fixtures of the tests of training."""

from __future__ import annotations

import pytest

from spinemet.spine.geometric import geometric_spine
from spinemet.types import Spine, Volume
from tests.phantom.scans import phantom_scan


@pytest.fixture(scope="session")
def healthy() -> tuple[Volume, Spine]:
    """A phantom without disease, and its spine."""
    volume = phantom_scan(3, spacing=(2.5, 1.2, 1.2), matrix=160).volume
    return volume, geometric_spine(volume)
