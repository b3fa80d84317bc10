"""Soft tissue: how it is drawn, the discs, the canal, and the scanner's table.

Tissue is drawn slice by slice as ellipses whose centre and radii follow the spine, so that the whole trunk needs only a
few passes over the volume. HU are the usual ones (fat -105, muscle 55, liver 60, water 0, lung -850).
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spinemet.phantom.body.anatomy import Degeneration, PatientAnatomy, Pose
from spinemet.phantom.body.vertebra import canal_middle
from spinemet.phantom.shapes import Canvas, Float, along, blend, cover, is_empty, tiled

IntArray = npt.NDArray[np.intp]

SKIN, FAT, MUSCLE, LUNG, CSF, CORD = 15.0, -105.0, 55.0, -860.0, 18.0, 42.0
LANDMARKS = ("C4", "T1", "T3", "T7", "T10", "T12", "L3", "L5", "S2")
"""Levels with a given shape of the trunk; between them the shape is interpolated along z."""


@dataclass(frozen=True)
class Contrast:
    """HU of the great vessels, kidneys and liver; the defaults are those of CT without contrast."""

    aorta: float = 42.0
    vein: float = 40.0
    kidney: float = 34.0
    liver: float = 58.0


@dataclass(eq=False)
class Course:
    """The course of the spine: arrays (D,) over the slices of a canvas, in LPS mm.

    tip_y: y of the tips of the spinous processes; flat_back: the most posterior tip, in front of the table.
    """

    canvas: Canvas
    poses: Sequence[Pose]

    def __post_init__(self) -> None:
        ordered = sorted(self.poses, key=lambda pose: float(pose.center[2]))
        self._z = np.array([pose.center[2] for pose in ordered])
        self.x = self._follow([pose.center[0] for pose in ordered])
        self.y = self._follow([pose.center[1] for pose in ordered])
        canal = np.array([pose.to_lps(0, canal_middle(pose), 0) for pose in ordered])
        self.canal_x, self.canal_y = (
            np.interp(self.canvas.z, canal[:, 2], canal[:, n]).astype(np.float32) for n in (0, 1)
        )
        self.canal_rx = self._follow([pose.size.canal_width / 2 for pose in ordered])
        self.canal_ry = self._follow([pose.size.canal_depth / 2 / pose.axes[2][2] for pose in ordered])
        tips = {pose.level: float(pose.to_lps(0, pose.size.depth / 2 + pose.size.spinous, 0)[1]) for pose in ordered}
        self.tip_y = self._follow(list(tips.values()))
        self.flat_back = max(y for level, y in tips.items() if level[0] in "TL")
        self.height = {pose.level: float(pose.center[2]) for pose in ordered}
        self.height.setdefault("L5", self.height["L4"])  # for patients with four lumbar vertebrae

    def _follow(self, values: Sequence[float]) -> Float:
        return np.interp(self.canvas.z, self._z, values).astype(np.float32)

    def at(self, *values: float) -> Float:
        """Values given at LANDMARKS, for every slice."""
        marks = [self.height[level] for level in LANDMARKS]
        return np.interp(self.canvas.z, marks[::-1], values[::-1]).astype(np.float32)

    def between(self, low: str, high: str, fade_mm: float = 12.0) -> Float:
        """1 between two levels; beyond them it falls to 0 within `fade_mm`, like a rounded end."""
        z = self.canvas.z
        beyond = np.maximum(np.maximum(self.height[low] - z, z - self.height[high]), 0) / fade_mm
        return np.sqrt(np.clip(1 - beyond**2, 0, 1)).astype(np.float32)


def tube(canvas: Canvas, x: Float, y: Float, rx: Float, ry: Float, value: float, texture: Float | None = None) -> None:
    """Paint an ellipse per slice, with centres and radii (D,) in mm; slices with a radius below 0.5 mm are skipped.

    texture: periodic block of noise in HU that is added.
    """
    tops, bottoms = _extent(canvas, 1, y, ry)
    lefts, rights = _extent(canvas, 2, x, rx)
    # Slice by slice, because a slice fits the processor's cache: 3 times as fast as passes over the whole volume.
    for d in np.flatnonzero((rx > 0.5) & (ry > 0.5) & (bottoms > tops) & (rights > lefts)):
        a, b, cx, cy = float(rx[d]), float(ry[d]), float(x[d]), float(y[d])
        rows, columns = slice(tops[d], bottoms[d]), slice(lefts[d], rights[d])
        rho = np.hypot(
            ((canvas.y[rows] - np.float32(cy)) * np.float32(1 / b))[:, None],
            ((canvas.x[columns] - np.float32(cx)) * np.float32(1 / a))[None, :],
        )
        share = cover((rho - 1) * np.float32(min(a, b)), canvas.edge)
        paint = value if texture is None else value + tiled(texture, (slice(d, d + 1), rows, columns))[0]
        blend(canvas.hu[d, rows, columns], paint, share)


def _extent(canvas: Canvas, axis: int, middle: Float, radius: Float) -> tuple[IntArray, IntArray]:
    """Per slice, the index range along `axis` of (D, H, W) of an ellipse with a margin of 1 mm."""
    origin, spacing, count = canvas.grid.origin[axis], canvas.grid.spacing[axis], canvas.grid.shape[axis]
    first = np.ceil((middle - radius - 1 - origin) / spacing).clip(0, count).astype(int)
    last = np.floor((middle + radius + 1 - origin) / spacing + 1).clip(0, count).astype(int)
    return first, last


def draw_canal(canvas: Canvas, course: Course) -> None:
    """Draw epidural fat, the dural sac with its fluid, the cord down to L1, and the cauda equina below."""
    tube(canvas, course.canal_x, course.canal_y, course.canal_rx + 1, course.canal_ry + 1, -70.0)
    sac = course.between("S2", "C3", 15)
    fill = course.at(0.86, 0.84, 0.84, 0.84, 0.84, 0.84, 0.82, 0.76, 0.6) * sac
    sac_y = course.canal_y - 0.08 * course.canal_ry
    tube(canvas, course.canal_x, sac_y, course.canal_rx * fill, course.canal_ry * fill, CSF)
    cord = course.between("L1", "C3", 20)
    tube(canvas, course.canal_x, sac_y, 5.4 * cord, 4.0 * cord, CORD)
    cauda = course.between("L5", "L2", 12)
    tube(canvas, course.canal_x, sac_y + 2.0, 6.5 * cauda, 3.2 * cauda, CSF + 14)


def draw_discs(canvas: Canvas, poses: Sequence[Pose], patient: PatientAnatomy, noise: Float) -> None:
    """Draw discs, with gas in those with a vacuum phenomenon; the endplates are drawn over them later."""
    for above, below in itertools.pairwise(poses):
        axis = above.axes[2] + below.axes[2]
        axis /= np.linalg.norm(axis)
        middle = above.to_lps(0, 0, -above.size.height / 2) - axis * above.size.disc / 2
        a, b = (above.size.width + below.size.width) * 0.255, (above.size.depth + below.size.depth) * 0.235
        box = canvas.grid.around(middle, max(a, b) + 4)
        if is_empty(box):
            continue
        x, y, z = (along(canvas, box, middle, v) for v in (above.axes[0], np.cross(axis, above.axes[0]), axis))
        rho = np.sqrt((x / np.float32(a)) ** 2 + ((y + 1) / np.float32(b)) ** 2)
        solid = np.maximum((rho - 1) * np.float32(b), np.abs(z) - np.float32(above.size.disc / 2 + 3))
        hu = 78 + 25 * np.clip(rho, 0, 1) + tiled(noise, box) * 6
        disc = patient.discs.get(above.level, Degeneration())
        if above.level[0] == "S":
            hu += 90
        elif disc.fused:
            hu += patient.trabecular_hu + 60
        elif disc.vacuum:
            gas = (x / np.float32(0.45 * a)) ** 2 + (y / np.float32(0.4 * b)) ** 2 + (z / 1.4) ** 2
            hu = np.where(gas < 1 + 0.4 * tiled(noise, box), np.float32(-250), hu)
        blend(canvas.hu[box], hu, cover(solid, canvas.edge))


def draw_table(canvas: Canvas, y: float) -> None:
    """Draw the scanner's table: a curved carbon shell over foam, with its top at `y` in the middle."""
    top = y + (canvas.x / 210.0) ** 2 * -38
    depth = (canvas.y[:, None] - top[None, :]).astype(np.float32)
    inside = (depth > 0) & (depth < 42) & (np.abs(canvas.x) < 215)[None, :]
    shell = inside & ((depth < 2.2) | (depth > 39.8))
    plane = np.where(shell, -180.0, -930.0).astype(np.float32)
    canvas.hu[:, inside] = np.maximum(canvas.hu[:, inside], plane[inside][None])
