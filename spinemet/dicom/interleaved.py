"""Two passes of the scanner in one stack, slice by slice in turn, which the headers do not tell apart.

Passes half a step apart make one even stack. If their headers have no time or number of their own, only the pixels show
that every second slice belongs to another pass: the patient moved in between, or the contrast medium did. The limits
were set on 14 real volumes, and on the same volumes with every second slice moved or brightened.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from spinemet.dicom.pixels import PixelArray
from spinemet.types import Array32, Flag, Volume

LEAST_SLICES, MOST_SLICES = 12, 64
"""Of a longer stack the middle is judged."""
BLOCKS, SAMPLES = 64, 4
"""Slices are compared in so many blocks along their shorter side, each the mean of up to SAMPLES x SAMPLES pixels or a
few more, against noise."""
BODY_HU, MOST_HU = -200.0, 500.0
"""Slices are compared up to MOST_HU; brightness, in blocks above BODY_HU."""
MOST_UNLIKE = 1.05
"""Neighbours differ so many times as much as slices two apart; really 0.54 to 0.92, and 1.1 to 1.8 after
motion by 10 mm."""
LEAST_HU, LEAST_SHARE, LEAST_T = 2.0, 0.8, 6.0
"""Every second slice is brighter than its neighbours by LEAST_HU, in LEAST_SHARE of the slices, at so many standard
errors. Really at most 1.2, 0.58 and 4; with 10 HU more contrast in every second slice 3.1, 0.86 and 7."""


def one_pass(volume: Volume) -> Volume:
    """`volume`, or every second slice of it, flagged LEFT_OUT, if its slices come from two passes in turn."""
    if not _alternates(volume.hu_DHW):
        return volume
    affine = volume.affine.copy()
    affine[:, 0] *= 2
    kept_DHW: PixelArray = volume.hu_DHW[::2].copy()
    flags = tuple(dict.fromkeys((*volume.flags, Flag.LEFT_OUT)))
    left_out = volume.left_out + len(volume.hu_DHW) - len(kept_DHW)
    return replace(volume, hu_DHW=kept_DHW, affine=affine, flags=flags, left_out=left_out)


def _alternates(hu_DHW: PixelArray) -> bool:
    if len(hu_DHW) < LEAST_SLICES:
        return False
    start = max(0, len(hu_DHW) - MOST_SLICES) // 2
    means_DHW = _block_means(hu_DHW[start : start + MOST_SLICES])
    before, here, after = means_DHW[:-2], means_DHW[1:-1], means_DHW[2:]
    to_next = np.abs(here - before).mean() + np.abs(after - here).mean()
    if to_next > MOST_UNLIKE * 2 * np.abs(after - before).mean():
        return True
    is_body = np.minimum(np.minimum(before, here), after) > BODY_HU
    voxels = np.maximum(is_body.sum(axis=(1, 2)), 1)
    brighter = ((here - (before + after) / 2) * is_body).sum(axis=(1, 2)) / voxels
    in_turn = brighter * np.where(np.arange(len(brighter)) % 2, -1, 1)
    mean = float(in_turn.mean())
    share = float((in_turn * np.sign(mean) > 0).mean())
    error = float(in_turn.std()) / len(in_turn) ** 0.5
    return abs(mean) > max(LEAST_HU, LEAST_T * error) and share > LEAST_SHARE


def _block_means(hu_DHW: PixelArray) -> Array32:
    """(D, rows, columns) means of square blocks, clipped to MOST_HU."""
    depth, height, width = hu_DHW.shape
    apart = max(1, min(height, width) // (BLOCKS * SAMPLES))
    sampled_DHW = np.minimum(hu_DHW[:, ::apart, ::apart], MOST_HU, dtype=np.float32)
    height, width = sampled_DHW.shape[1:]
    side = max(1, min(height, width) // BLOCKS)
    rows, columns = height // side, width // side
    blocks = sampled_DHW[:, : rows * side, : columns * side].reshape(depth, rows, side, columns, side)
    return blocks.mean(axis=4).mean(axis=2)
