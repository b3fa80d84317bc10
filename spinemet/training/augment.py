"""Augmentation of training slices, in batches and on the device: one step draws random changes, another applies them.

N slices, H rows, W columns, square pixels. Left and right may be swapped because no class names the involved side.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from spinemet.training.config import AugmentConfig

SHARPNESS_MM = 1.0
"""An edge-enhancing kernel adds a multiple of what a blur of this standard deviation takes away."""
SOFT_HU = 50.0
"""HU of muscle and marrow: bone of another density differs from it by another factor."""


@dataclass(frozen=True, eq=False)
class AugmentDraw:
    """The changes of each slice of a batch.

    affine_N23: from output to input, in grid_sample's coordinates (-1 to 1). density_N: factor of the HU above SOFT_HU.
    gain_N, offset_N: HU' = HU * gain + offset. blur_N: standard deviation of the blur in pixels. edge_N: strength of
    edge enhancement. sharpness_px: SHARPNESS_MM in pixels. noise_N: standard deviation of the noise in HU, grain_N: of
    its blur in pixels. noise_seed: seed of the noise itself.
    """

    affine_N23: Tensor
    density_N: Tensor
    gain_N: Tensor
    offset_N: Tensor
    blur_N: Tensor
    edge_N: Tensor
    sharpness_px: float
    noise_N: Tensor
    grain_N: Tensor
    noise_seed: int


def draw(count: int, config: AugmentConfig, seed: int, pixel_mm: float) -> AugmentDraw:
    """Random changes for `count` slices with pixels of `pixel_mm`, on the CPU; the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(limit: float) -> Tensor:
        return (share() * 2 - 1) * limit

    def share() -> Tensor:
        return torch.rand(count, generator=generator)

    angle = torch.deg2rad(uniform(config.rotation_deg))
    zoom = 1 + uniform(config.scale)
    mirror = torch.where(share() < 0.5, -1.0, 1.0) if config.flip else torch.ones(count)
    # A shift of the whole width is 2 in grid_sample's coordinates.
    right, down = uniform(2 * config.shift), uniform(2 * config.shift)
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    rows = (torch.stack([cos * mirror, -sin, right], dim=1), torch.stack([sin * mirror, cos, down], dim=1))
    kernel = share()
    return AugmentDraw(
        affine_N23=torch.stack(rows, dim=1),
        density_N=torch.exp(uniform(math.log1p(config.density))),
        gain_N=1 + uniform(config.gain),
        offset_N=uniform(config.offset_hu),
        # Half of the slices keep their kernel, a quarter gets a smooth one and a quarter a sharp one.
        blur_N=torch.where(kernel < 0.25, share() * config.blur_mm / pixel_mm, 0.0),
        edge_N=torch.where(kernel > 0.75, share() * config.edge, 0.0),
        sharpness_px=SHARPNESS_MM / pixel_mm,
        noise_N=share() * config.noise_hu,
        grain_N=share() * config.grain_mm / pixel_mm,
        noise_seed=int(torch.randint(2**31, (1,), generator=generator)),
    )


def apply(hu_NHW: Tensor, drawn: AugmentDraw) -> Tensor:
    """(N, H, W) float32 HU: `hu_NHW` (int16 or float, any device) changed as `drawn`; outside, border pixels repeat."""
    device = hu_NHW.device
    grid = _grid(drawn.affine_N23.to(device), *hu_NHW.shape[1:])
    hu = functional.grid_sample(hu_NHW.float().unsqueeze(1), grid, padding_mode="border", align_corners=False)[:, 0]

    def per_slice(values_N: Tensor) -> Tensor:
        return values_N.to(device)[:, None, None]

    hu = torch.where(hu > SOFT_HU, SOFT_HU + (hu - SOFT_HU) * per_slice(drawn.density_N), hu)
    hu = _blurred(hu, drawn.blur_N.to(device))
    if bool((drawn.edge_N > 0).any()):
        smooth = _blurred(hu, torch.full_like(drawn.edge_N, drawn.sharpness_px).to(device))
        hu = hu + (hu - smooth) * per_slice(drawn.edge_N)
    generator = torch.Generator(device).manual_seed(drawn.noise_seed)
    noise_NHW = _blurred(torch.randn(hu.shape, generator=generator, device=device), drawn.grain_N.to(device))
    noise_NHW = noise_NHW * (per_slice(drawn.noise_N) / noise_NHW.std(dim=(1, 2), keepdim=True))
    return hu * per_slice(drawn.gain_N) + per_slice(drawn.offset_N) + noise_NHW


def _grid(affine_N23: Tensor, height: int, width: int) -> Tensor:
    """(N, H, W, 2), like torch's affine_grid with align_corners=False, which takes as long as the sampling itself."""
    x_W, y_H = ((2 * torch.arange(size, device=affine_N23.device) + 1) / size - 1 for size in (width, height))
    along_N2W = affine_N23[:, :, 0, None] * x_W + affine_N23[:, :, 2, None]
    down_N2H = affine_N23[:, :, 1, None] * y_H
    return along_N2W.mT[:, None] + down_N2H.mT[:, :, None]


def _blurred(hu_NHW: Tensor, sigma_N: Tensor) -> Tensor:
    """`hu_NHW` blurred along rows and columns by a Gaussian of each slice's own standard deviation, in pixels."""
    radius = math.ceil(3 * float(sigma_N.max()))
    if radius == 0:
        return hu_NHW
    steps_K = torch.arange(-radius, radius + 1, device=hu_NHW.device)
    # Gaussians narrower than the pixels lose part of their weight between them; the area keeps it.
    edges_K1 = torch.cat([steps_K - 0.5, steps_K[-1:] + 0.5])
    area_NK = torch.special.ndtr(edges_K1 / sigma_N.clamp_min(1e-3)[:, None]).diff(dim=1)
    taps_NK = area_NK / area_NK.sum(dim=1, keepdim=True)
    count = len(hu_NHW)
    image_1NHW = hu_NHW[None]
    for shape, pad in (((count, 1, -1, 1), (0, 0, radius, radius)), ((count, 1, 1, -1), (radius, radius, 0, 0))):
        wide = functional.pad(image_1NHW, pad, mode="replicate")
        image_1NHW = functional.conv2d(wide, taps_NK.reshape(shape), groups=count)
    return image_1NHW[0]
