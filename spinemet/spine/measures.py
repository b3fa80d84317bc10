"""Measures one vertebral body whose place, axes and size are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from spinemet.spine.sampling import in_view, sample_points
from spinemet.types import Array, Completeness, Vec3, Vertebra, Volume

_CORE = 0.6
"""Half axes of the trabecular core as a share of the body's: without cortex and endplates, and without partial volume
in slices of up to 5 mm."""
_VEIN = 0.2
"""The basivertebral vein lies behind the centre, within this share of the half height."""
_STEP_MM = 1.5
_PLAUSIBLE_HU = (-300.0, 3000.0)
"""Below is gas or the area outside the reconstruction circle; above is metal."""


def measured_vertebra(volume: Volume, level: str, center: Array, axes: Array, half_mm: Vec3, **known: Any) -> Vertebra:
    """The vertebra of the body at `center`; `known` holds the fields of Vertebra that are not measured here."""
    x, y, z = center.tolist()
    return Vertebra(
        level=level,
        center_mm=(x, y, z),
        axes=axes,
        height_mm=2 * half_mm[2],
        completeness=completeness(volume, center, axes, half_mm),
        measures=measure_body(volume, center, axes, half_mm),
        **known,
    )


def measure_body(volume: Volume, center_mm: npt.ArrayLike, axes: Array, half_mm: Vec3) -> dict[str, float | None]:
    """The value of each of `types.MEASURES`, by name, for one body; arguments as in `trabecular_hu`."""
    return {"trabecular_hu": trabecular_hu(volume, center_mm, axes, half_mm)}


def trabecular_hu(volume: Volume, center_mm: npt.ArrayLike, axes: Array, half_mm: Vec3) -> float | None:
    """Mean HU of the body's trabecular core, an ellipsoid without the basivertebral vein; None if half is out of view.

    axes: rows left, posterior, superior. half_mm: the body's half width, half depth and half height along them.
    The mean leaves out the lowest and highest 5 % (residual cortex, bone islands, gas).
    """
    grids = [np.arange(-h * _CORE, h * _CORE + 1e-6, min(_STEP_MM, h * _CORE / 2)) for h in half_mm]
    local = np.stack(np.meshgrid(*grids, indexing="ij"), axis=-1).reshape(-1, 3)
    share = local / (np.asarray(half_mm) * _CORE)
    vein = (share[:, 1] > 0) & (np.abs(local[:, 2]) < _VEIN * half_mm[2])
    local = local[((share**2).sum(1) <= 1) & ~vein]
    hu = sample_points(volume, np.asarray(center_mm) + local @ axes, outside=np.nan)
    hu = hu[np.isfinite(hu) & (hu > _PLAUSIBLE_HU[0]) & (hu < _PLAUSIBLE_HU[1])]
    if len(hu) < 0.5 * len(local):
        return None
    low, high = np.percentile(hu, (5, 95))
    return float(hu[(hu >= low) & (hu <= high)].mean())


def completeness(volume: Volume, center_mm: npt.ArrayLike, axes: Array, half_mm: Vec3) -> Completeness:
    """CUT if an endplate of the body leaves the volume, at its middle or at one of its four sides; else WHOLE.

    A body that ends exactly at the volume's border counts as cut, because it may continue beyond it.
    """
    width, depth, height = half_mm
    ends = [(w, d, h) for h in (-height, height) for w, d in ((0, 0), (-0.7, 0), (0.7, 0), (0, -0.7), (0, 0.7))]
    points = np.asarray(center_mm) + np.array(ends) * (width, depth, 1.0) @ axes
    return Completeness.WHOLE if bool(in_view(volume, points, margin_mm=0.5).all()) else Completeness.CUT
