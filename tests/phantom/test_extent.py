"""Where lesions lie: the voxels of their foci, and the bone quality of a slice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from spinemet.anatomy import LEVEL_INDEX
from spinemet.evaluation.benchmark import Case, draw_case
from spinemet.phantom.body.anatomy import place_spine
from spinemet.phantom.extent import FULL, lesion_volumes, slice_quality
from spinemet.phantom.scan import PhantomScan, render


@pytest.fixture(scope="module")
def case() -> Case:
    """A patient of whom one vertebra is mixed; only this vertebra is scanned."""
    for number in range(200):
        found = draw_case(0, "test", number)
        if any(lesion.bone_quality == "mixed" for lesion in found.lesions.values()):
            return found
    raise AssertionError


@pytest.fixture(scope="module")
def scan(case: Case) -> PhantomScan:
    return render(case.anatomy, replace(case.scan, noise_hu=0.0, blur_mm=0.1, edge=0.0), case.changes)


def test_foci_lie_in_the_bone_of_their_vertebra_and_show_their_density(case: Case, scan: PhantomScan) -> None:
    poses = {pose.level: pose for pose in place_spine(case.anatomy)}
    level = next(level for level, lesion in case.lesions.items() if lesion.bone_quality == "mixed")
    found = lesion_volumes(scan, poses[level], case.lesions[level])
    lytic, blastic = (found[kind].hu_DHW == FULL for kind in ("lytic", "blastic"))
    bone = scan.labels.labels_DHW == 1 + LEVEL_INDEX[level]
    assert lytic.any()
    assert blastic.any()
    assert not (lytic & blastic).any()
    assert not ((lytic | blastic) & ~bone).any()
    hu = scan.volume.hu_DHW
    assert np.median(hu[lytic]) < np.median(hu[bone & ~lytic & ~blastic]) < np.median(hu[blastic])


@pytest.mark.parametrize(
    ("lytic", "blastic", "quality"),
    [
        (0, 0, "normal"),
        (7, 7, "normal"),
        (10, 6, "lytic"),
        (0, 15, "blastic"),
        (15, 15, "mixed"),
        (14, 200, "blastic"),
    ],
)
def test_a_slice_has_the_kinds_that_it_shows_enough_of(lytic: float, blastic: float, quality: str) -> None:
    assert slice_quality(lytic, blastic) == quality
