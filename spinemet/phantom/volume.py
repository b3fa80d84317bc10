"""A phantom scan in memory, without DICOM."""

from __future__ import annotations

import numpy as np

from spinemet.errors import BadInput
from spinemet.phantom.body.anatomy import draw_anatomy, place_spine
from spinemet.phantom.scan import REGIONS, PhantomScan, PhantomVertebra, ScanSettings, field_of_view, render
from spinemet.types import Vec3, Volume


def phantom_scan(
    seed: int,
    *,
    region: str = "lumbosacral",
    spacing: Vec3 = (2.0, 1.0, 1.0),
    matrix: int = 192,
    noise_hu: float = 14.0,
) -> PhantomScan:
    """The scan of a random patient: volume, vertebra labels on its grid, truth.

    region: lumbosacral, thoracolumbar, thoracic or whole. spacing: mm along D (z), H (y), W (x). matrix: rows and
    columns. The first and last vertebra are often cut by the field of view. Raises BadInput for an unknown region.
    """
    if region not in REGIONS:
        raise BadInput(f"expected a region ({', '.join(REGIONS)}), found {region}.")
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
        noise_hu=noise_hu,
        noise_seed=int(rng.integers(2**31)),
    )
    return render(patient, scan)


def phantom_volume(
    seed: int,
    *,
    region: str = "lumbosacral",
    spacing: Vec3 = (2.0, 1.0, 1.0),
    matrix: int = 192,
    noise_hu: float = 14.0,
) -> tuple[Volume, list[PhantomVertebra]]:
    """The volume of `phantom_scan` and the truth about each of its vertebrae, cranial to caudal."""
    scan = phantom_scan(seed, region=region, spacing=spacing, matrix=matrix, noise_hu=noise_hu)
    return scan.volume, list(scan.vertebrae)
