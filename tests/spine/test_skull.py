"""The foramen magnum on a bony tube that opens into a shell, and on shapes that only resemble one."""

from __future__ import annotations

import numpy as np
import pytest

from spinemet.spine.ring import GRID_MM, Tissue
from spinemet.spine.skull import foramen_magnum
from spinemet.types import Volume

TISSUE = Tissue(50.0, 450.0)
FORAMEN_MM = 60.0
"""Above the volume's lowest slice."""


def _neck(
    inside: float = 35.0, inner_mm: float = 55.0, above_mm: float = 60.0, open_behind: bool = False, noise: float = 0.0
) -> tuple[Volume, np.ndarray]:
    """A canal 24 mm wide that ends in a round cavity of `inner_mm`, with `above_mm` of it in view; and the canal."""
    shape = (round((FORAMEN_MM + above_mm) / GRID_MM), 80, 80)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, 0, 2], [0, 2, 0], [2, 0, 0]], float)
    affine[:3, 3] = (-80, -80, 0)
    z, y, x = (
        2.0 * np.arange(n).reshape([-1 if k == axis else 1 for k in range(3)]) + affine[2 - axis, 3]
        for axis, n in enumerate(shape)
    )
    across = np.hypot(x, y)
    hu = np.full(shape, 50.0)
    hu[(across > 12) & (across < 18) & (z < FORAMEN_MM - 2)] = 450
    radius = np.sqrt(across**2 + (z - FORAMEN_MM - 0.95 * inner_mm) ** 2)
    hu[(radius < inner_mm + 7) & (across > 15)] = 450
    hu[(radius < inner_mm) & (z > FORAMEN_MM - 2)] = inside
    if open_behind:
        hu[(np.abs(x) < 40) & (y > 20) & (hu > 400)] = 50
    hu += np.random.default_rng(1).normal(0, noise, shape) if noise else 0
    slices = np.arange(FORAMEN_MM - 10, 0, -GRID_MM)
    canal = np.stack([0 * slices + 2, 0 * slices - 3, slices], axis=1)
    return Volume(hu.astype(np.float32), affine), canal


def _found(volume: Volume, canal: np.ndarray) -> np.ndarray | None:
    return foramen_magnum(volume, TISSUE, canal)


@pytest.mark.parametrize("noise", [0.0, 50.0])
def test_the_canal_opens_into_the_skull(noise: float) -> None:
    found = _found(*_neck(noise=noise))
    assert found is not None
    assert found == pytest.approx((0, 0, FORAMEN_MM), abs=6)


def test_a_canal_path_that_strays_into_the_skull_is_followed_again_from_below() -> None:
    volume, canal = _neck()
    beyond = np.arange(FORAMEN_MM + 40, FORAMEN_MM - 10, -GRID_MM)
    astray = np.stack([0 * beyond, -3 - 0.9 * np.maximum(beyond - FORAMEN_MM, 0), beyond], axis=1)
    found = _found(volume, np.concatenate([astray, canal]))
    assert found == pytest.approx((0, 0, FORAMEN_MM), abs=6)


@pytest.mark.parametrize(
    "other",
    [{"inside": -100.0}, {"inside": -900.0}, {"inner_mm": 16.0}, {"above_mm": 12.0}, {"open_behind": True}],
    ids=["fat", "air", "narrow", "cut off", "open"],
)
def test_other_cavities_are_not_a_skull(other: dict[str, float]) -> None:
    assert _found(*_neck(**other)) is None
