"""The phantom in memory: same seed, same voxels; bone where the truth says; anatomy in the right places."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from spinemet.anatomy import LEVEL_INDEX
from spinemet.phantom.body.anatomy import draw_anatomy, place_spine
from spinemet.phantom.scan import REGIONS, PhantomScan, ScanSettings, field_of_view, render_series
from spinemet.types import Completeness
from tests.phantom.scans import phantom_scan


@pytest.fixture(scope="module", params=sorted(REGIONS))
def scan(request: pytest.FixtureRequest) -> PhantomScan:
    return phantom_scan(3, region=request.param, spacing=(2.5, 1.2, 1.2), matrix=128)


def test_equal_seeds_give_equal_voxels_and_others_do_not() -> None:
    first, again, other = (phantom_scan(seed, spacing=(4.0, 2.0, 2.0), matrix=96) for seed in (5, 5, 6))
    assert np.array_equal(first.volume.hu_DHW, again.volume.hu_DHW)
    assert first.vertebrae == again.vertebrae
    assert not np.array_equal(other.volume.hu_DHW, first.volume.hu_DHW)


def test_every_listed_vertebra_has_its_label_around_its_centre(scan: PhantomScan) -> None:
    for truth in scan.vertebrae:
        if truth.completeness is Completeness.WHOLE:
            d, h, w = np.rint(scan.volume.to_index(truth.center_mm)).astype(int)
            assert scan.labels.labels_DHW[d, h, w] == 1 + LEVEL_INDEX[truth.level]


def test_vertebrae_come_in_order_and_do_not_overlap(scan: PhantomScan) -> None:
    numbers = [LEVEL_INDEX[truth.level] for truth in scan.vertebrae]
    assert numbers == sorted(set(numbers))
    centers = np.array([truth.center_mm for truth in scan.vertebrae])
    heights = np.array([truth.height_mm for truth in scan.vertebrae])
    gaps = np.linalg.norm(np.diff(centers, axis=0), axis=1) - (heights[1:] + heights[:-1]) / 2
    assert gaps.min() > 1.0
    assert gaps.max() < 20.0


def test_completeness_says_whether_the_body_lies_inside(scan: PhantomScan) -> None:
    for truth in scan.vertebrae:
        ends = np.array(truth.center_mm) + np.outer([-0.5, 0.5], truth.axes[2]) * truth.height_mm
        index = scan.volume.to_index(ends)
        inside = bool(((index > -0.5) & (index < np.array(scan.volume.hu_DHW.shape) - 0.5)).all())
        assert inside == (truth.completeness is Completeness.WHOLE)
        assert 0 < truth.visible <= 1


def test_tissues_have_their_hounsfield_units(scan: PhantomScan) -> None:
    """The body's core is cancellous bone, the middle of the canal is fluid or cord, the disc is cartilage."""
    whole = [truth for truth in scan.vertebrae if truth.completeness is Completeness.WHOLE]
    for truth in whole:
        axes = np.array(truth.axes)
        core = _mean(scan, np.array(truth.center_mm) - axes[1] * 3 + axes[2] * truth.height_mm * 0.22, 3.0)
        assert 40 < core < 520
    inside = scan.volume.hu_DHW[scan.labels.labels_DHW > 0]
    assert np.percentile(inside, 95) > 400
    for above, below in itertools.pairwise(whole):
        joint = (np.array(above.center_mm) + np.array(below.center_mm)) / 2
        height = np.linalg.norm(np.subtract(above.center_mm, below.center_mm)) - (above.height_mm + below.height_mm) / 2
        if height > 7:
            assert -300 < _mean(scan, joint, 2.0) < 180


def _mean(scan: PhantomScan, point: np.ndarray, radius: float) -> float:
    index = scan.volume.to_index(point)
    reach = np.ceil(radius / np.array(scan.volume.spacing_mm)).astype(int)
    middle = np.rint(index).astype(int)
    box = tuple(slice(max(m - r, 0), m + r + 1) for m, r in zip(middle, reach, strict=True))
    return float(scan.volume.hu_DHW[box].mean())


def test_a_thick_reconstruction_shows_the_same_patient_in_the_same_place() -> None:
    thin = ScanSettings((0.0, 10.0, 0.0), (40, 64, 64), (1.25, 2.5, 2.5), 1.25, noise_hu=0.0)
    thick = replace(thin, spacing=(5.0, 2.5, 2.5), thickness=5.0)
    first, second = render_series(draw_anatomy(np.random.default_rng(1)), [thin, thick])
    assert second.volume.spacing_mm == pytest.approx((5.0, 2.5, 2.5))
    assert second.volume.to_lps([1.0, 5, 5]) == pytest.approx(first.volume.to_lps([5.5, 5, 5]))
    mean = first.volume.hu_DHW.reshape(10, 4, 64, 64).mean(axis=1)
    assert np.abs(mean - second.volume.hu_DHW).max() <= 1.5
    assert second.labels.labels_DHW.shape == second.volume.hu_DHW.shape


def test_a_field_of_view_ends_inside_the_first_and_the_last_level() -> None:
    poses = place_spine(draw_anatomy(np.random.default_rng(1)))
    low, high = field_of_view(poses, "thoracic", (0.5, 1.0))
    ends = {pose.level: pose for pose in poses}
    top, bottom = (ends[level] for level in REGIONS["thoracic"])
    assert high == pytest.approx(top.center[2])
    assert low == pytest.approx(bottom.center[2] + bottom.size.height / 2)
