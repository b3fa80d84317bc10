"""Where the arithmetic runs: the device and its number format."""

from __future__ import annotations

import torch


def best_device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def has_fast_bf16(device: torch.device) -> bool:
    """Whether `device` multiplies bfloat16 in hardware; elsewhere it is emulated and slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported())
    return False


def autocast(device: torch.device) -> torch.autocast:
    """A context in which convolutions and matrix products run in bfloat16 where `device` has it, else as they are."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=has_fast_bf16(device))
