"""Drawing on a voxel grid in LPS: signed distances of simple solids, and painting their HU.

Axes: D slices (z, caudal to cranial), H rows (y, anterior to posterior), W columns (x, right to left of the patient).
A signed distance is negative inside; all are float32 millimetres.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from spinemet.types import Vec3

Float = npt.NDArray[np.float32]
Point = npt.ArrayLike
Box = tuple[slice, slice, slice]
Index = tuple[npt.NDArray[np.intp], ...]

FAR = np.float32(60.0)
"""The signed distance of voxels where nothing is drawn yet."""


@dataclass(frozen=True, eq=False)
class Grid:
    """Voxel centres. origin: (z, y, x) of voxel (0, 0, 0); spacing: along D, H, W; both mm."""

    origin: tuple[float, float, float]
    spacing: tuple[float, float, float]
    shape: tuple[int, int, int]

    def around(self, points: Point, margin: float) -> Box:
        """The index box around all `points` (N, 3) LPS with a margin of `margin` mm, cut to the grid."""
        array = np.atleast_2d(np.asarray(points, np.float64))
        bounds = []
        for n, (low, high) in enumerate(zip(array.min(0)[::-1], array.max(0)[::-1], strict=True)):
            first = int(np.ceil((low - margin - self.origin[n]) / self.spacing[n]))
            last = int(np.floor((high + margin - self.origin[n]) / self.spacing[n])) + 1
            bounds.append(slice(min(max(first, 0), self.shape[n]), max(min(last, self.shape[n]), 0)))
        return bounds[0], bounds[1], bounds[2]


@dataclass(eq=False)
class Canvas:
    """The drawing so far: HU, signed distance to any bone, and the label of each voxel's vertebra (0 for none).

    hu: (D, H, W) float32 to draw into. z, y, x: LPS coordinates of the voxel centres along each axis.
    """

    grid: Grid
    hu: Float
    bone: Float = field(init=False)
    labels: npt.NDArray[np.uint8] = field(init=False)

    def __post_init__(self) -> None:
        self.bone = np.full(self.grid.shape, FAR, np.float32)
        self.labels = np.zeros(self.grid.shape, np.uint8)
        self.z, self.y, self.x = (
            (first + step * np.arange(count)).astype(np.float32)
            for first, step, count in zip(self.grid.origin, self.grid.spacing, self.grid.shape, strict=True)
        )
        self._scratch: dict[int, Float] = {}
        self.edge = max(self.grid.spacing[1], 0.6)

    def blank(self, box: Box, slot: int = 0) -> Float:
        """An array of the size of `box` filled with FAR, valid until the next call with the same `slot`."""
        # The buffer is reused: new memory for every bone cost a tenth of the time of a study.
        shape = tuple(part.stop - part.start for part in box)
        count = int(np.prod(shape))
        if slot not in self._scratch:
            self._scratch[slot] = np.empty(self.bone.size, np.float32)
        array = self._scratch[slot][:count].reshape(shape)
        array.fill(FAR)
        return array


def vec3(values: npt.NDArray[np.float64]) -> Vec3:
    """Three numbers as a tuple."""
    return float(values[0]), float(values[1]), float(values[2])


def is_empty(box: Box) -> bool:
    """True if the box lies outside the grid."""
    return any(part.stop <= part.start for part in box)


def overlap(box: Box, other: Box) -> tuple[Box, Box]:
    """The part of `box` that lies in `other`: as indices into the grid, and as indices into an array of `other`."""
    d, h, w = (slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(box, other, strict=True))
    inner = (slice(part.start - b.start, part.stop - b.start) for part, b in zip((d, h, w), other, strict=True))
    return (d, h, w), (next(inner), next(inner), next(inner))


def along(canvas: Canvas, box: Box, origin: Point, direction: Point) -> Float:
    """The coordinate of each voxel of `box` along `direction` (unit, LPS), measured from `origin` (LPS)."""
    o, u = np.asarray(origin, np.float32), np.asarray(direction, np.float32)
    z = (canvas.z[box[0]] - o[2]) * u[2]
    y = (canvas.y[box[1]] - o[1]) * u[1]
    x = (canvas.x[box[2]] - o[0]) * u[0]
    return z[:, None, None] + (y[:, None] + x[None, :])[None]


def merge(target: Float, other: Float, blend: float = 2.5) -> None:
    """Unite two solids in place; the seam is rounded over `blend` mm (polynomial smooth minimum, Quilez)."""
    overlap = np.maximum(blend - np.abs(target - other), 0)
    np.minimum(target, other, out=target)
    target -= overlap * overlap * np.float32(0.25 / blend)


@dataclass(frozen=True, eq=False)
class Strut:
    """A tapered bar with an elliptic cross-section from `start` to `end`; every process of a vertebra is one.

    radii: at the start and at the end, each (across, upwards) mm. up: LPS direction that `upwards` follows.
    """

    start: npt.NDArray[np.float64]
    end: npt.NDArray[np.float64]
    radii: Sequence[Sequence[float]]
    up: npt.NDArray[np.float64]

    def box(self, grid: Grid) -> Box:
        """The part of the grid within 3 mm of the bar."""
        return grid.around([self.start, self.end], max(max(pair) for pair in self.radii) + 3)

    def distance(self, canvas: Canvas, box: Box) -> Float:
        """Signed distance in `box` (first-order estimate, exact on the surface and along a round bar)."""
        axis = self.end - self.start
        length = float(np.linalg.norm(axis)) or 1e-3
        axis = axis / length
        up = self.up - (self.up @ axis) * axis
        up = up / np.linalg.norm(up)
        u = along(canvas, box, self.start, axis)
        v = along(canvas, box, self.start, np.cross(up, axis))
        w = along(canvas, box, self.start, up)
        inside = np.clip(u, 0, length)
        share = inside * np.float32(1 / length)
        (v0, w0), (v1, w1) = self.radii
        inv_v = 1 / (v0 + np.float32(v1 - v0) * share)
        inv_w = 1 / (w0 + np.float32(w1 - w0) * share)
        inv_o = np.maximum(inv_v, inv_w)
        a, b, c = v * inv_v, w * inv_w, (u - inside) * inv_o
        k0 = np.sqrt(a * a + b * b + c * c)
        a *= inv_v
        b *= inv_w
        c *= inv_o
        k1 = np.sqrt(a * a + b * b + c * c)
        return k0 * (k0 - 1) / (k1 + np.float32(1e-3))


def merge_struts(canvas: Canvas, solid: Float, box: Box, struts: Iterable[Strut], blend: float = 2.5) -> None:
    """Unite `struts` with the signed distance `solid` in `box`, in place."""
    for strut in struts:
        part, inner = overlap(strut.box(canvas.grid), box)
        if not is_empty(part):
            merge(solid[inner], strut.distance(canvas, part), blend)


def cover(distance: Float, edge: float) -> Float:
    """The share of a voxel that a solid fills, from its signed distance: 1 inside, 0 outside, over `edge` mm."""
    return np.clip(np.float32(0.5) - distance * np.float32(1 / edge), 0, 1)


def blend(target: Float, value: Float | float, share: Float) -> None:
    """Mix `value` into `target` in place, with the weight `share`."""
    target += share * (value - target)


def noise_tile(seed: int, sigma: float, size: int = 72) -> Float:
    """A periodic block (size, size, size) of Gaussian noise, smoothed with `sigma` voxels, mean 0 and deviation 1."""
    from scipy.ndimage import gaussian_filter

    white = np.random.default_rng(seed).standard_normal((size, size, size), dtype=np.float32)
    smooth = gaussian_filter(white, sigma, mode="wrap") if sigma > 0 else white
    return (smooth - smooth.mean()) / smooth.std()


def tiled_at(tile: Float, place: Index) -> Float:
    """The periodic noise of `tile` at the given voxels."""
    d, h, w = (axis % tile.shape[0] for axis in place)
    return tile[d, h, w]


def tiled(tile: Float, box: Box) -> Float:
    """The periodic noise of `tile` in `box`."""
    return tile[np.ix_(*(np.arange(part.start, part.stop) % tile.shape[0] for part in box))]
