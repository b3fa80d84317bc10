"""Augmentation of training slices, in batches and on the device: one step draws random changes, another applies them.

N slices, H rows, W columns, square pixels. Left and right may be swapped because no class names the involved side.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from spinemet.training.config import AugmentConfig


@dataclass(frozen=True, eq=False)
class AugmentDraw:
    """The changes of each slice of a batch.

    affine_N23: from output to input, in grid_sample's coordinates (-1 to 1). gain_N, offset_N: HU' = HU * gain +
    offset. blur_N: standard deviation of the blur in pixels. noise_N: standard deviation of the noise in HU.
    noise_seed: seed of the noise itself.
    """

    affine_N23: Tensor
    gain_N: Tensor
    offset_N: Tensor
    blur_N: Tensor
    noise_N: Tensor
    noise_seed: int


def draw(count: int, config: AugmentConfig, seed: int) -> AugmentDraw:
    """Random changes for `count` slices, on the CPU; the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(limit: float) -> Tensor:
        return (torch.rand(count, generator=generator) * 2 - 1) * limit

    angle = torch.deg2rad(uniform(config.rotation_deg))
    zoom = 1 + uniform(config.scale)
    mirror = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0) if config.flip else torch.ones(count)
    # A shift of the whole width is 2 in grid_sample's coordinates.
    right, down = uniform(2 * config.shift), uniform(2 * config.shift)
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    rows = (torch.stack([cos * mirror, -sin, right], dim=1), torch.stack([sin * mirror, cos, down], dim=1))
    return AugmentDraw(
        affine_N23=torch.stack(rows, dim=1),
        gain_N=1 + uniform(config.gain),
        offset_N=uniform(config.offset_hu),
        blur_N=torch.rand(count, generator=generator) * config.blur_px,
        noise_N=torch.rand(count, generator=generator) * config.noise_hu,
        noise_seed=int(torch.randint(2**31, (1,), generator=generator)),
    )


def apply(hu_NHW: Tensor, drawn: AugmentDraw) -> Tensor:
    """(N, H, W) float32 HU: `hu_NHW` (int16 or float, any device) changed as `drawn`; outside, border pixels repeat."""
    device = hu_NHW.device
    grid = _grid(drawn.affine_N23.to(device), *hu_NHW.shape[1:])
    moved = functional.grid_sample(hu_NHW.float().unsqueeze(1), grid, padding_mode="border", align_corners=False)[:, 0]
    moved = _blurred(moved, drawn.blur_N.to(device))
    generator = torch.Generator(device).manual_seed(drawn.noise_seed)
    noise_NHW = torch.randn(moved.shape, generator=generator, device=device)

    def per_slice(values_N: Tensor) -> Tensor:
        return values_N.to(device)[:, None, None]

    return moved * per_slice(drawn.gain_N) + per_slice(drawn.offset_N) + noise_NHW * per_slice(drawn.noise_N)


def _grid(affine_N23: Tensor, height: int, width: int) -> Tensor:
    """(N, H, W, 2), like torch's affine_grid with align_corners=False, which takes as long as the sampling itself."""
    x_W, y_H = ((2 * torch.arange(size, device=affine_N23.device) + 1) / size - 1 for size in (width, height))
    along_N2W = affine_N23[:, :, 0, None] * x_W + affine_N23[:, :, 2, None]
    down_N2H = affine_N23[:, :, 1, None] * y_H
    return along_N2W.mT[:, None] + down_N2H.mT[:, :, None]


def _blurred(hu_NHW: Tensor, sigma_N: Tensor) -> Tensor:
    """`hu_NHW` blurred along rows and columns by the taps (a, 1 - 2a, a); their variance 2a is sigma squared."""
    side_N = (sigma_N**2 / 2)[:, None, None]
    for axis in (1, 2):
        size = hu_NHW.shape[axis]
        first, last = hu_NHW.narrow(axis, 0, 1), hu_NHW.narrow(axis, size - 1, 1)
        wide = torch.cat([first, hu_NHW, last], dim=axis)
        beside = wide.narrow(axis, 0, size) + wide.narrow(axis, 2, size)
        hu_NHW = torch.lerp(hu_NHW, beside / 2, 2 * side_N)
    return hu_NHW
