"""The ring search's maxima over shifts equal those of a padded image, and a ring of bone is followed."""

from __future__ import annotations

import numpy as np
import pytest

from spinemet.spine.ring import _Shifts, find_canal, tissue_levels
from spinemet.types import Volume


@pytest.mark.parametrize("shape", [(1, 8, 9), (3, 7, 6), (2, 11, 11)])
def test_most_is_the_greatest_value_at_the_shifts_of_every_second_pixel(shape) -> None:
    image = np.random.default_rng(5).random(shape, np.float32)
    shifts = [(0, 0), (3, -2), (-12, 12), (12, 7), (-1, -11)]
    padded = np.pad(image, ((0, 0), (12, 12), (12, 12)))
    rows, columns = shape[1:]
    expected = np.max([padded[:, 12 + r : 12 + r + rows, 12 + c : 12 + c + columns] for r, c in shifts], axis=0)
    at = _Shifts(image)
    assert np.array_equal(at.picture(at.most(shifts)), expected[:, ::2, ::2])


def test_a_canal_is_followed_across_the_stacks_of_slices() -> None:
    affine = np.zeros((4, 4))
    affine[[2, 1, 0, 3], [0, 1, 2, 3]] = (2.0, 2.0, 2.0, 1.0)
    y, x = np.mgrid[0:80, 0:90]
    hu_DHW = np.full((21, 80, 90), 40.0, np.float32)
    for d, hu_HW in enumerate(hu_DHW):
        away = np.hypot((y - 44 - d / 4) * 1.2, x - 45)
        hu_HW[(away > 5) & (away < 8)] = 400.0
        hu_HW[np.hypot(y - 33 - d / 4, x - 45) < 8] = 300.0
    grid = Volume(hu_DHW, affine)
    canal, score = find_canal(grid, tissue_levels(hu_DHW))
    assert len(canal) == 21
    assert score > 0.9
    assert np.abs(canal[::-1, 1] - 2 * (44 + np.arange(21) / 4)).max() <= 6.0
    assert np.abs(canal[:, 0] - 90).max() <= 6.0
