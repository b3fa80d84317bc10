"""Whether the values of a volume can be HU.

Headers leave it open: a NIfTI file names no unit, and an unmarked map of a spectral scanner, a normalised copy or a
display window looks like CT. A body in HU has air at -1000, fat near -100, soft tissue near 40 and bone above 200, and
nothing cuts its range. The limits stand well outside what 17 real volumes show: heads, chests, abdomens, and three
vertebrae without any air. Unnoticed are factors from 0.75 to 1.4, and smaller or larger ones if the view has no air or
no fat that tells them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from spinemet.dicom.pixels import PixelArray
from spinemet.errors import Reason, StudyExcluded
from spinemet.types import AIR_HU

LEAST_VOXELS = 100_000
"""A smaller volume may lie within bone or within muscle, so only the width of its range is judged."""
NOISE_HU = 20.0
"""A range narrower than this is no scan of any size; noise alone makes it 60 or more."""
ALL_VOXELS = 1 << 22
"""Of a larger volume every second slice, fourth row and fourth column are judged."""
BODY_HU, LEAST_BODY = -500.0, 0.02
"""What lies above is body, bed or whatever is no air: 14 % or more of the voxels that have a value."""
SOFT_HU, LEAST_SOFT = (-20.0, 120.0), 0.1
"""Soft tissue and its share of the body, really 21 to 63 %."""
FAT_AND_SOFT_HU = (-200.0, 120.0)
"""More of the body than lies between air and fat, unless 1024 was subtracted twice."""
BONE_HU, LEAST_BONE = 200.0, 0.001
"""Bone and its share of the body, really 2.7 to 56 %."""
DENSE_HU, MOST_DENSE, METAL_HU, MOST_METAL = 800.0, 0.25, 2000.0, 0.005
"""Dense bone and metal, and their shares of the body, really up to 2.2 % and 0.06 %. More metal is real only beside
more soft tissue than bone."""
SHIFTED_HU, LEAST_SHIFTED = (1044.0, 1144.0), 0.02
"""Soft tissue in HU + 1024 and its least share of all voxels; really at most 0.14 % lie there."""
SHIFTED_BONE_HU, SOFT_TO_BONE = (1244.0, 1344.0), 4.0
"""200 HU higher, where HU + 1024 has so many times fewer voxels."""
AIR_CUT_HU, BONE_CUT_HU, LEAST_CUT = -900.0, 1000.0, 0.0005
"""A range that ends between these two, with at least so many voxels on the very end, is a display window. Many archives
cut at -1000 or 1000, which changes no vertebra."""
EDGES_HU, LEAST_AIR = -300.0, 0.5
"""Lung and the edges of the body lie from AIR_CUT_HU to EDGES_HU. With LEAST_AIR times as many voxels below, air is in
view; really 1.0 to 8 times as many in whole volumes, and none in some small views of the lung."""
HIGH_AIR_HU, AIR_STEP_HU, AIR_PEAK, LEAST_LOW = -750.0, 20.0, 0.25, 0.01
"""A step of the histogram above HIGH_AIR_HU with so large a share of all below EDGES_HU is air with a wrong factor. In
views without air, lung has a share of at most 0.09 there, and of 0.23 near -780. Judged if LEAST_LOW of the voxels
lie below EDGES_HU."""
FAT_HU, FAT_STEP_HU, FAT_TO_VALLEY = -140.0, 10.0, 1.5
"""Fat peaks above FAT_HU, really from -105 to -75. A peak is FAT_TO_VALLEY times as high as the valley between it and
water, in a histogram of FAT_STEP_HU."""
CUT_TO_NEXT = 10.0
"""The end of a window has so many times the voxels of the values within 20 HU of it, one for one."""


def check_hu(hu_DHW: PixelArray) -> None:
    """Raises StudyExcluded(NOT_HU), with a sentence that names the oddity, for values that cannot be HU."""
    odd = next(_oddities(hu_DHW), None)
    if odd is not None:
        raise StudyExcluded(Reason.NOT_HU, f"expected HU, found {odd}.")


def _oddities(hu_DHW: PixelArray) -> Iterator[str]:
    lowest, highest = float(hu_DHW.min()), float(hu_DHW.max())
    if highest - lowest < NOISE_HU:
        range_ = f"values from {lowest:.4g} to {highest:.4g}, less than the noise of a scan"
        yield range_ if highest > lowest else f"the one value {lowest:.4g} everywhere"
    if hu_DHW.size < LEAST_VOXELS:
        return
    if lowest >= 0:
        yield "no value below 0, although air and fat are"
    values = (hu_DHW if hu_DHW.size <= ALL_VOXELS else hu_DHW[::2, ::4, ::4]).ravel()
    known = values[values > AIR_HU]
    body = known[known > BODY_HU]
    if len(body) <= LEAST_BODY * len(known):
        yield f"hardly a value above {BODY_HU:.0f}, as a body has"
        return
    soft, shifted, above = (_share(body, *between) for between in (SOFT_HU, SHIFTED_HU, SHIFTED_BONE_HU))
    bone, dense, metal = (float((body > least).mean()) for least in (BONE_HU, DENSE_HU, METAL_HU))
    if shifted * len(body) > LEAST_SHIFTED * len(values) and shifted > SOFT_TO_BONE * above:
        yield "soft tissue 1024 higher than from 20 to 120"
    bottom, top = float(known.min()), float(known.max())
    if bottom > AIR_CUT_HU and _is_cut(known, bottom, 1):
        yield f"values cut off at {bottom:.4g}, as in a display window"
    if top < BONE_CUT_HU and _is_cut(known, top, -1):
        yield f"values cut off at {top:.4g}, as in a display window"
    if (peak := _odd_peak(hu_DHW, known)) is not None:
        yield f"many values near {peak:.0f}, where there is neither air (-1000) nor fat (-100)"
    if highest - lowest < BONE_HU:
        yield f"values from {lowest:.4g} to {highest:.4g}, too narrow a range for a body"
    if bone < LEAST_BONE:
        yield f"hardly a value above {BONE_HU:.0f}, as bone has"
    if soft < LEAST_SOFT or _share(body, *FAT_AND_SOFT_HU) < _share(body, BODY_HU, FAT_AND_SOFT_HU[0]):
        yield f"hardly a value from {SOFT_HU[0]:.0f} to {SOFT_HU[1]:.0f}, as soft tissue has"
    if dense > MOST_DENSE or (metal > MOST_METAL and soft < bone):
        yield f"more values above {DENSE_HU:.0f} than bone and metal have"


def _share(values: PixelArray, low: float, high: float) -> float:
    return float(((values > low) & (values < high)).mean())


def _is_cut(known: PixelArray, end: float, inward: int) -> bool:
    """Whether `known` piles up on its end: more voxels there than further in."""
    on_end = float((known == end).mean())
    distance = (known.astype(np.float32) - end) * inward
    next_to_it = _share(distance, 0.0, 20.5) / 20
    return on_end > max(LEAST_CUT, CUT_TO_NEXT * next_to_it)


def _odd_peak(hu_DHW: PixelArray, known: PixelArray) -> float | None:
    """The peak of air or fat if it lies where a wrong factor or shift has put it."""
    air_peak = _air_peak(known)
    if air_peak > HIGH_AIR_HU:
        return air_peak
    edges, air = _share(known, AIR_CUT_HU, EDGES_HU), float((known <= AIR_CUT_HU).mean())
    fat_peak = _fat_peak(hu_DHW) if air <= LEAST_AIR * edges else 0.0
    return fat_peak if fat_peak < FAT_HU else None


def _air_peak(known: PixelArray) -> float:
    """The most frequent value below EDGES_HU if it stands out; AIR_HU if none does."""
    counts, ends = np.histogram(known, np.arange(AIR_HU, EDGES_HU, AIR_STEP_HU))
    peak = int(counts.argmax())
    is_clear = counts.sum() > LEAST_LOW * len(known) and counts[peak] > AIR_PEAK * counts.sum()
    return float(ends[peak] + AIR_STEP_HU / 2) if is_clear else AIR_HU


def _fat_peak(hu_DHW: PixelArray) -> float:
    """The most frequent value below 0 of groups of four pixels, which have less noise; 0 if none stands out."""
    even_DHW = hu_DHW[:: max(1, round(hu_DHW.size / ALL_VOXELS)), : -1 if hu_DHW.shape[1] % 2 else None]
    even_DHW = even_DHW[:, :, : -1 if hu_DHW.shape[2] % 2 else None]
    four = np.stack([even_DHW[:, h::2, w::2] for h in (0, 1) for w in (0, 1)])
    means = four.mean(axis=0, dtype=np.float32)[four.min(axis=0) > BODY_HU]
    counts, ends = np.histogram(means, np.arange(BODY_HU, FAT_STEP_HU, FAT_STEP_HU))
    smooth = np.convolve(counts, np.ones(3), "valid")
    peak = int(smooth.argmax())
    stands_out = smooth[peak] > FAT_TO_VALLEY * smooth[peak:].min()
    return float(ends[peak + 1] + FAT_STEP_HU / 2) if stands_out else 0.0
