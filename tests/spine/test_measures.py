"""Trabecular HU and completeness of an artificial body."""

from __future__ import annotations

import numpy as np

from spinemet.spine.measures import completeness, measure_body, trabecular_hu
from spinemet.types import AIR_HU, MEASURES, Completeness, Volume
from tests.spine.volumes import affine_of

HALF = (20.0, 15.0, 12.0)


def _body(center_z: float = 0.0) -> Volume:
    """An elliptic cylinder of 140 HU in a 400 HU shell, with a dark vein behind its middle and one bone island."""
    volume = Volume(np.full((60, 60, 60), 30, np.int16), affine_of((1.0, 1.0, 1.0), origin=(-30.0, -30.0, -30.0)))
    x, y, z = np.moveaxis(volume.to_lps(np.moveaxis(np.indices((60, 60, 60)), 0, -1)), -1, 0)
    z = z - center_z
    radius = np.hypot(x / HALF[0], y / HALF[1])
    hu = volume.hu_DHW
    hu[(radius < 1) & (np.abs(z) < HALF[2])] = 400
    hu[(radius < 0.88) & (np.abs(z) < HALF[2] - 2)] = 140
    hu[(np.abs(x) < 2) & (y > 0) & (y < 14) & (np.abs(z) < 2)] = -20
    hu[np.sqrt((x - 5) ** 2 + y**2 + (z - 4) ** 2) < 2] = 900
    return volume


def test_core_leaves_out_cortex_vein_and_island() -> None:
    hu = trabecular_hu(_body(), (0, 0, 0), np.eye(3), HALF)
    assert hu is not None
    assert abs(hu - 140) < 5


def test_every_declared_measure_is_computed() -> None:
    measured = measure_body(_body(), (0, 0, 0), np.eye(3), HALF)
    assert list(measured) == [measure.name for measure in MEASURES]
    assert measured["trabecular_hu"] == trabecular_hu(_body(), (0, 0, 0), np.eye(3), HALF)


def test_less_than_half_in_view_gives_none() -> None:
    assert trabecular_hu(_body(32.0), (0, 0, 32.0), np.eye(3), HALF) is None


def test_air_is_not_bone() -> None:
    empty = Volume(np.full((60, 60, 60), AIR_HU, np.int16), _body().affine)
    assert trabecular_hu(empty, (0, 0, 0), np.eye(3), HALF) is None


def test_completeness_follows_the_endplates() -> None:
    volume = _body()  # z from -30.5 to 29.5
    assert completeness(volume, (0, 0, 17.0), np.eye(3), HALF) is Completeness.WHOLE
    assert completeness(volume, (0, 0, 18.0), np.eye(3), HALF) is Completeness.CUT
    assert completeness(volume, (20.0, 0, 0), np.eye(3), HALF) is Completeness.CUT
