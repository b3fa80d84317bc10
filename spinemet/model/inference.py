"""DenseNet features fast on a CPU: batch normalisation becomes part of the convolutions, and nothing is copied.

A dense layer is relu(norm1) -> conv1 -> relu(norm2) -> conv2, and reads all channels before it. In torchvision half of
the time goes into moving these channels: concatenate, normalise, clip. Here the channels of a block share one buffer,
norm2 is part of conv1, and norm1 with its relu is one pass: relu(s x + b) = s clamp(x, low, high) + b, with -b / s as
the lower bound if s > 0 and as the upper bound if s < 0; the scale s and shift b outside the clamp are part of conv1.
Memory is channels-last: N slices, H rows, W columns, C channels. At the end: the device and its fastest number format.
"""

import os

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.densenet import _DenseBlock, _DenseLayer, _Transition

from spinemet.machine import usable_cores
from spinemet.model.backbone import Trunk
from spinemet.model.multitask import MultiTask


def fold(model: MultiTask, dtype: torch.dtype) -> None:
    """Make `model` compute its features in the folded form, in `dtype`; it can no longer be trained.

    Coupled trunks (soft sharing) stay as they are, because they exchange features between the blocks.
    """
    if isinstance(model.trunk, Trunk):
        model.trunk = FoldedTrunk(model.trunk, dtype)  # type: ignore[assignment]


class FoldedTrunk(nn.Module):
    """Computes the features of `trunk` in evaluation mode, in `dtype`; equal to them up to rounding."""

    def __init__(self, trunk: Trunk, dtype: torch.dtype) -> None:
        super().__init__()
        layers = trunk.features
        self.width = trunk.width
        self.dtype = dtype
        self.stem = _Convolution(layers.conv0, dtype, after=layers.norm0)
        self.stages = nn.ModuleList(
            _Block(layer, dtype) if isinstance(layer, _DenseBlock) else _Halving(layer, dtype)
            for layer in layers
            if isinstance(layer, _DenseBlock | _Transition)
        )
        scale_C, shift_C = _affine(layers.norm5)
        self.register_buffer("scale", scale_C)
        self.register_buffer("shift", shift_C)

    def forward(self, image_NCHW: Tensor) -> Tensor:
        """(N, width) float32 features of (N, 3, H, W) images; H and W at least 32."""
        flow = _max_pooled(self.stem(image_NCHW.to(self.dtype)))
        for stage in self.stages:
            flow = stage(flow)
        flow = flow.float() * self.get_buffer("scale")[:, None, None] + self.get_buffer("shift")[:, None, None]
        return torch.relu(flow).mean(dim=(2, 3))


class _Block(nn.Module):
    """A dense block that appends its channels in place, in one buffer."""

    def __init__(self, block: _DenseBlock, dtype: torch.dtype) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(layer, dtype) for layer in block.values())
        self.growths: list[int] = [layer.conv2.out_channels for layer in block.values()]

    def forward(self, x_NCHW: Tensor) -> Tensor:
        count, channels, height, width = x_NCHW.shape
        total = channels + sum(self.growths)
        grown_NCHW = x_NCHW.new_empty((count, height, width, total)).permute(0, 3, 1, 2)
        grown_NCHW[:, :channels] = x_NCHW
        for layer, growth in zip(self.layers, self.growths, strict=True):
            grown_NCHW[:, channels : channels + growth] = layer(grown_NCHW[:, :channels])
            channels += growth
        return grown_NCHW


class _Layer(nn.Module):
    def __init__(self, layer: _DenseLayer, dtype: torch.dtype) -> None:
        super().__init__()
        self.clip = _Clip(layer.norm1, dtype)
        self.squeeze = _Convolution(layer.conv1, dtype, before=layer.norm1, after=layer.norm2)
        self.grow = _Convolution(layer.conv2, dtype)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.grow(self.squeeze(self.clip(x_NCHW)))


class _Halving(nn.Module):
    """A transition that pools first: the convolution is linear, so a quarter of the pixels gives the same result."""

    def __init__(self, transition: _Transition, dtype: torch.dtype) -> None:
        super().__init__()
        self.clip = _Clip(transition.norm, dtype)
        self.squeeze = _Convolution(transition.conv, dtype, before=transition.norm)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.squeeze(functional.avg_pool2d(self.clip(x_NCHW), 2))


class _Clip(nn.Module):
    """The clamp of a normalisation with relu, whose scale and shift are part of the next convolution."""

    low: Tensor
    high: Tensor

    def __init__(self, norm: nn.BatchNorm2d, dtype: torch.dtype) -> None:
        super().__init__()
        scale_C, shift_C = _affine(norm)
        bound_C = torch.where(scale_C == 0, 0.0, -shift_C / scale_C)
        infinite = torch.full_like(bound_C, torch.inf)
        self.register_buffer("low", torch.where(scale_C > 0, bound_C, -infinite).to(dtype))
        self.register_buffer("high", torch.where(scale_C < 0, bound_C, infinite).to(dtype))
        self.bounded_above = bool((scale_C <= 0).any())

    def forward(self, x_NCHW: Tensor) -> Tensor:
        x_NHWC = x_NCHW.permute(0, 2, 3, 1)
        clipped = torch.maximum(x_NHWC, self.low)
        if self.bounded_above:
            clipped = torch.minimum(clipped, self.high, out=clipped)
        return clipped.permute(0, 3, 1, 2)


class _Convolution(nn.Module):
    """A convolution that includes the scale and shift of the norm `before` it and the norm `after` it with its relu."""

    def __init__(
        self,
        conv: nn.Conv2d,
        dtype: torch.dtype,
        before: nn.BatchNorm2d | None = None,
        after: nn.BatchNorm2d | None = None,
    ) -> None:
        super().__init__()
        weight_OIHW = conv.weight.detach().double()
        bias_O = torch.zeros(conv.out_channels, dtype=torch.float64)
        if before is not None:
            scale_I, shift_I = (part.double() for part in _affine(before))
            constant_I = torch.relu(shift_I)
            bias_O = weight_OIHW.sum(dim=(2, 3)) @ torch.where(scale_I == 0, constant_I, shift_I)
            weight_OIHW = weight_OIHW * scale_I[:, None, None]
        if after is not None:
            scale_O, shift_O = (part.double() for part in _affine(after))
            weight_OIHW, bias_O = weight_OIHW * scale_O[:, None, None, None], bias_O * scale_O + shift_O
        self.register_buffer("weight", weight_OIHW.to(dtype).contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", bias_O.to(dtype))
        self.stride, self.padding, self.relu = conv.stride, conv.padding, after is not None

    def forward(self, x_NCHW: Tensor) -> Tensor:
        y_NCHW = functional.conv2d(
            x_NCHW, self.get_buffer("weight"), self.get_buffer("bias"), self.stride, self.padding
        )
        return y_NCHW.relu_() if self.relu else y_NCHW


def _max_pooled(x_NCHW: Tensor) -> Tensor:
    """MaxPool2d(3, 2, 1) for values of at least 0; faster than torch, which also computes indices."""
    padded = functional.pad(x_NCHW, (1, 1, 1, 1))
    height, width = x_NCHW.shape[2:]
    rows = torch.maximum(padded[:, :, 0:height:2], padded[:, :, 2 : height + 2 : 2])
    rows = torch.maximum(rows, padded[:, :, 1 : height + 1 : 2])
    columns = torch.maximum(rows[..., 0:width:2], rows[..., 2 : width + 2 : 2])
    return torch.maximum(columns, rows[..., 1 : width + 1 : 2])


def _affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Scale and shift per channel of a batch normalisation in evaluation mode."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale_C = norm.weight.detach() / torch.sqrt(norm.running_var + norm.eps)
    return scale_C, norm.bias.detach() - norm.running_mean * scale_C


# ---- device and number format -------------------------------------------------------------------------------


def best_device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def use_free_cores() -> None:
    """Compute with as many threads as there are free cores by the machine's load of the last minute, at least one.

    Threads on busy cores wait for each other at every layer: at a load of 4 to 5 on 2 cores, 96 small slices took two
    threads 0.6 to 4.0 s and one thread 0.2 s. OMP_NUM_THREADS, which Ray sets for its workers, has the last word.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        free = (os.cpu_count() or 1) - round(os.getloadavg()[0])
        torch.set_num_threads(max(1, min(torch.get_num_threads(), usable_cores(), free)))


def has_fast_bf16(device: torch.device) -> bool:
    """True if `device` multiplies bfloat16 in hardware; emulated it is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported())
    return False


def autocast(device: torch.device) -> torch.autocast:
    """A context that runs convolutions and matrix products in bfloat16 if that is fast on `device`."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=has_fast_bf16(device))
