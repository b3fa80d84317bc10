"""Scans of random phantom patients."""

from __future__ import annotations

import numpy as np

from spinemet.phantom.body.anatomy import draw_anatomy, place_spine
from spinemet.phantom.scan import PhantomScan, ScanSettings, field_of_view, render
from spinemet.types import Vec3


def phantom_scan(
    seed: int,
    *,
    region: str = "lumbosacral",
    spacing: Vec3 = (2.0, 1.0, 1.0),
    matrix: int = 192,
) -> PhantomScan:
    """The scan of a random patient: volume, vertebra labels on its grid, truth.

    region: lumbosacral, thoracolumbar, thoracic or whole. spacing: mm along D (z), H (y), W (x). matrix: rows and
    columns. The first and last vertebra are often cut by the field of view.
    """
    rng = np.random.default_rng(seed)
    patient = draw_anatomy(rng)
    poses = place_spine(patient)
    low, high = field_of_view(poses, region, (rng.uniform(-0.4, 0.8), rng.uniform(-0.2, 0.6)))
    seen = [pose.center for pose in poses if low <= pose.center[2] <= high]
    middle = np.mean(seen, axis=0)
    scan = ScanSettings(
        center_mm=(float(middle[0]), float(middle[1]) + 0.05 * matrix * spacing[1], (low + high) / 2),
        shape=(round((high - low) / spacing[0]), matrix, matrix),
        spacing=spacing,
        thickness=spacing[0],
        noise_seed=int(rng.integers(2**31)),
    )
    return render(patient, scan)
