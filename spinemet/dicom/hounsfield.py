"""Whether the values of a volume can be HU.

Headers leave it open: a NIfTI file names no unit, and an unmarked map of a spectral scanner, a normalised copy or a
display window looks like CT. A body in HU has soft tissue near 40 and bone above 200, and nothing cuts its range. The
limits stand well outside what 17 real volumes show: heads, chests, abdomens, and three vertebrae without any air. A
wrong factor of 2 goes unnoticed.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from spinemet.dicom.pixels import PixelArray
from spinemet.errors import Reason, StudyExcluded
from spinemet.types import AIR_HU

LEAST_VOXELS = 100_000
"""A smaller volume may lie within bone or within muscle, so only its being all one value is judged."""
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
CUT_TO_NEXT = 10.0
"""The end of a window has so many times the voxels of the values within 20 HU of it, one for one."""


def check_hu(hu_DHW: PixelArray) -> None:
    """Raises StudyExcluded(NOT_HU), with a sentence that names the oddity, for values that cannot be HU."""
    odd = next(_oddities(hu_DHW), None)
    if odd is not None:
        raise StudyExcluded(Reason.NOT_HU, f"expected HU, found {odd}.")


def _oddities(hu_DHW: PixelArray) -> Iterator[str]:
    lowest, highest = float(hu_DHW.min()), float(hu_DHW.max())
    if lowest == highest:
        yield f"the one value {lowest:.4g} everywhere"
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
