"""Where a lesion's foci lie in a phantom scan: voxels per kind, the truth about single slices."""

import numpy as np

from spinemet.anatomy import LEVEL_INDEX
from spinemet.phantom.body.anatomy import Pose
from spinemet.phantom.body.vertebra import BonePatch
from spinemet.phantom.disease.lesions import Lesion, focus_distance
from spinemet.phantom.scan import PhantomScan
from spinemet.types import Volume

LEAST_MM2 = 15.0
"""A slice with less lesion than this is normal: 15 mm2 is a disc of 4 mm, a few pixels of a thick slice."""
FULL = 1000
"""Value of a voxel that a focus fills."""


def lesion_volumes(scan: PhantomScan, pose: Pose, lesion: Lesion) -> dict[str, Volume]:
    """Kind (lytic, blastic) -> a volume on the grid of `scan` that is FULL in the bone that its foci fill, else 0.

    Lytic foci win where both kinds overlap, as they do in the scan. Only bone of the vertebra at `pose` counts, so the
    mass that bulges out of a lytic focus does not.
    """
    voxels = np.nonzero(scan.labels.labels_DHW == 1 + LEVEL_INDEX[pose.level])
    local = (scan.volume.to_lps(np.stack(voxels, axis=-1)) - pose.center) @ np.asarray(pose.axes).T
    x, y, z = local.T.astype(np.float32)
    empty = np.zeros_like(x)
    patch = BonePatch(pose, x, y, z, bone=empty, body=empty, texture=empty, hu=empty)
    found = {kind: np.zeros(scan.volume.hu_DHW.shape, np.int16) for kind in ("lytic", "blastic")}
    for focus in sorted(lesion.foci, key=lambda focus: focus.kind):  # the order in which a lesion changes bone
        inside = focus_distance(patch, focus) < 0
        for kind, filled_DHW in found.items():
            filled_DHW[tuple(axis[inside] for axis in voxels)] = FULL if kind == focus.kind else 0
    return {kind: Volume(filled_DHW, scan.volume.affine) for kind, filled_DHW in found.items()}


def slice_quality(lytic_mm2: float, blastic_mm2: float) -> str:
    """The bone quality of a slice with these areas of lesion: normal below LEAST_MM2 in all, mixed if each kind has as
    much, else the larger kind."""
    if lytic_mm2 + blastic_mm2 < LEAST_MM2:
        return "normal"
    if min(lytic_mm2, blastic_mm2) >= LEAST_MM2:
        return "mixed"
    return "lytic" if lytic_mm2 > blastic_mm2 else "blastic"
