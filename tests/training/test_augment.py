"""Augmentation: random changes are drawn once and applied as drawn."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from spinemet.config import changed
from spinemet.training.augment import apply, draw
from spinemet.training.config import AugmentConfig

STILL = AugmentConfig(
    rotation_deg=0,
    scale=0,
    shift=0,
    flip=False,
    offset_hu=0,
    gain=0,
    noise_hu=0,
    grain_mm=0,
    density=0,
    blur_mm=0,
    edge=0,
)


def image(count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(-500, 1500, (count, 32, 32), dtype=torch.int16, generator=generator)


def only(**limits: float | bool) -> AugmentConfig:
    return changed(STILL, **limits)


def test_without_limits_nothing_changes() -> None:
    assert torch.allclose(apply(image(), draw(2, STILL, 0, 1.0)), image().float(), atol=0.1)


def test_the_seed_decides_everything() -> None:
    hu = image(4)
    first, again = (apply(hu, draw(4, AugmentConfig(), 7, 1.0)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, apply(hu, draw(4, AugmentConfig(), 8, 1.0)))


def test_each_slice_gets_its_own_changes() -> None:
    hu = image(1).expand(3, -1, -1)
    changed = apply(hu, draw(3, AugmentConfig(), 0, 1.0))
    assert not torch.allclose(changed[0], changed[1])


def test_about_half_of_the_slices_are_flipped() -> None:
    hu = image(64)
    flipped = apply(hu, draw(64, only(flip=True), 0, 1.0))
    mirrored = [torch.allclose(new, old.float().flip(1), atol=0.1) for new, old in zip(flipped, hu, strict=True)]
    same = [torch.allclose(new, old.float(), atol=0.1) for new, old in zip(flipped, hu, strict=True)]
    assert all(one != other for one, other in zip(mirrored, same, strict=True))
    assert 20 <= sum(mirrored) <= 44


def test_geometry_stays_within_its_limits() -> None:
    dot = torch.zeros(200, 65, 65)
    dot[:, 32, 48] = 1000  # 16 px right of the centre
    moved = apply(dot, draw(200, only(rotation_deg=10.0, scale=0.1), 0, 1.0))
    rows, columns = torch.meshgrid(torch.arange(65.0) - 32, torch.arange(65.0) - 32, indexing="ij")
    mass = moved.sum(dim=(1, 2))
    row, column = (moved * rows).sum(dim=(1, 2)) / mass, (moved * columns).sum(dim=(1, 2)) / mass
    radius, angle = torch.hypot(row, column), torch.rad2deg(torch.atan2(row, column)).abs()
    assert 14.2 < float(radius.min()) < 15
    assert 17 < float(radius.max()) < 18.2
    assert 8 < float(angle.max()) < 10.5


def test_the_sampling_grid_equals_that_of_torch() -> None:
    hu = image(4)[:, :20].float()
    drawn = draw(4, only(rotation_deg=30, scale=0.2, shift=0.2, flip=True), 3, 1.0)
    grid = functional.affine_grid(drawn.affine_N23, [4, 1, 20, 32], align_corners=False)
    wanted = functional.grid_sample(hu[:, None], grid, padding_mode="border", align_corners=False)[:, 0]
    assert torch.allclose(apply(hu, drawn), wanted, atol=0.1)


def test_hu_changes_stay_within_their_limits() -> None:
    flat = torch.full((500, 8, 8), 400.0)
    means = apply(flat, draw(500, only(offset_hu=20.0, gain=0.05), 0, 1.0)).mean(dim=(1, 2))
    assert 360 <= float(means.min()) < 370
    assert 430 < float(means.max()) <= 440
    noisy = apply(flat, draw(500, only(noise_hu=30.0), 0, 1.0))
    assert 25 < float(noisy.std(dim=(1, 2)).max()) < 45
    assert float(noisy.mean()) == pytest.approx(400, abs=1)


def test_a_blurred_point_has_the_drawn_width_and_keeps_its_sum() -> None:
    dot = torch.zeros(400, 33, 33)
    dot[:, 16, 16] = 1000
    drawn = draw(400, only(blur_mm=1.8), 0, 0.75)
    soft = apply(dot, drawn)
    assert torch.allclose(soft.sum(dim=(1, 2)), torch.tensor(1000.0), rtol=1e-3)
    places = torch.arange(33.0) - 16
    variance = (soft.sum(dim=1) * places**2).sum(dim=1) / 1000
    wide = drawn.blur_N > 0.5
    # A pixel is an average over its own width, which has the variance 1/12.
    assert torch.allclose((variance - 1 / 12)[wide].sqrt(), drawn.blur_N[wide], rtol=0.03)
    assert float(variance[drawn.blur_N == 0].max()) < 1e-3
    assert 2.2 < float(drawn.blur_N.max()) <= 2.4  # 1.8 mm
    assert 0.2 < float((drawn.blur_N > 0).float().mean()) < 0.3


def test_a_sharp_kernel_raises_edges_and_leaves_even_places() -> None:
    step = torch.full((200, 32, 32), 100.0)
    step[:, :, 16:] = 500
    drawn = draw(200, only(edge=1.0), 0, 1.0)
    sharp = apply(step, drawn)[drawn.edge_N > 0.3]
    assert float(sharp[:, 16, 16].min()) > 520
    assert float(sharp[:, 16, 15].max()) < 80
    assert torch.allclose(sharp[:, 16, 28], torch.tensor(500.0), atol=1)


def test_density_changes_bone_and_leaves_soft_tissue() -> None:
    flat = torch.full((200, 8, 8), 250.0)
    flat[:, :, :4] = -100
    drawn = apply(flat, draw(200, only(density=0.6), 0, 1.0))
    assert torch.allclose(drawn[:, :, :4], torch.tensor(-100.0), atol=0.1)
    assert 50 + 200 / 1.6 - 1 <= float(drawn[:, :, 6].min()) < 50 + 200 / 1.5
    assert 50 + 200 * 1.5 < float(drawn[:, :, 6].max()) <= 50 + 200 * 1.6 + 1


def test_neighbours_have_noise_in_common() -> None:
    flat = torch.zeros(50, 48, 48)

    def correlation(grain_mm: float) -> float:
        noise = apply(flat, draw(50, only(noise_hu=30.0, grain_mm=grain_mm), 0, 1.0))
        return float((noise[:, :, 1:] * noise[:, :, :-1]).mean() / noise.square().mean())

    assert abs(correlation(0)) < 0.02
    assert correlation(1.5) > 0.3
