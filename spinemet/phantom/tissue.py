"""Everything soft around the spine: skin, fat, muscle, lungs, vessels, organs, discs, canal; and the table.

Drawn slice by slice as ellipses whose centre and radii follow the spine, so that the whole trunk costs a few passes
over the volume. HU of tissues as in Hounsfield's usual ranges (fat -105, muscle 55, liver 60, water 0, lung -850).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spinemet.phantom.anatomy import PatientAnatomy, Pose
from spinemet.phantom.shapes import Canvas, Float, along, blend, cover, is_empty, tiled
from spinemet.phantom.vertebra import canal_middle

SKIN, FAT, MUSCLE, LUNG, CSF, CORD = 15.0, -105.0, 55.0, -860.0, 18.0, 42.0
LANDMARKS = ("C4", "T1", "T3", "T7", "T10", "T12", "L3", "L5", "S2")
"""Levels at which the shape of the trunk is given; between them it is interpolated along z."""


@dataclass(frozen=True)
class Contrast:
    """HU of blood in the great vessels and what the kidneys and liver take up; plain CT by default."""

    aorta: float = 42.0
    vein: float = 40.0
    kidney: float = 34.0
    liver: float = 58.0


@dataclass(eq=False)
class Course:
    """What follows the spine from slice to slice: arrays (D,) over the slices of a canvas, in LPS mm."""

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
        self.height = {pose.level: float(pose.center[2]) for pose in ordered}

    def _follow(self, values: Sequence[float]) -> Float:
        return np.interp(self.canvas.z, self._z, values).astype(np.float32)

    def at(self, *values: float) -> Float:
        """Values given at LANDMARKS, for every slice."""
        marks = [self.height[level] for level in LANDMARKS]
        return np.interp(self.canvas.z, marks[::-1], values[::-1]).astype(np.float32)

    def between(self, low: str, high: str, fade_mm: float = 12.0) -> Float:
        """1 between two levels, falling to 0 as a rounded end over `fade_mm` beyond them."""
        z = self.canvas.z
        beyond = np.maximum(np.maximum(self.height[low] - z, z - self.height[high]), 0) / fade_mm
        return np.sqrt(np.clip(1 - beyond**2, 0, 1)).astype(np.float32)


def tube(canvas: Canvas, x: Float, y: Float, rx: Float, ry: Float, value: float, texture: Float | None = None) -> None:
    """Paint an ellipse per slice: centre, radii (D,) in mm; slices with a radius under 0.5 mm are left alone.

    texture: HU added, drawn from a periodic block of noise.
    """
    # Slice by slice: a slice stays in the processor's cache, which is 3 times as fast as passes over the whole volume.
    for d in np.flatnonzero((rx > 0.5) & (ry > 0.5)):
        a, b, cx, cy = float(rx[d]), float(ry[d]), float(x[d]), float(y[d])
        _, rows, columns = box = canvas.grid.box((cx - a - 1, cy - b - 1, 0), (cx + a + 1, cy + b + 1, 0))
        rho = np.hypot(
            ((canvas.y[rows] - np.float32(cy)) * np.float32(1 / b))[:, None],
            ((canvas.x[columns] - np.float32(cx)) * np.float32(1 / a))[None, :],
        )
        share = cover((rho - 1) * np.float32(min(a, b)), canvas.edge)
        paint = value if texture is None else value + tiled(texture, (slice(d, d + 1), box[1], box[2]))[0]
        blend(canvas.hu[d, rows, columns], paint, share)


def draw_trunk(canvas: Canvas, patient: PatientAnatomy, course: Course, contrast: Contrast, noise: Float) -> None:
    """Skin, fat, body wall, chest and belly with their organs, the great vessels and the muscles of the back."""
    scale = patient.scale
    back = _skin(canvas, patient, course)
    _cavity(canvas, patient, course, contrast, noise)
    _back_muscles(canvas, patient, course, noise, back)
    psoas = course.at(0, 0, 0, 0, 0, 0.35, 0.85, 1.0, 0.8) * course.between("S2", "T12", 25)
    for side in (-1, 1):
        tube(
            canvas,
            course.x + side * course.at(0, 0, 0, 0, 0, 26, 38, 46, 60) * scale,
            course.y + course.at(0, 0, 0, 0, 0, 8, 4, -6, -45) * scale,
            16 * psoas * scale,
            20 * psoas * scale,
            MUSCLE,
            noise * np.float32(10),
        )
    _vessels(canvas, course, contrast, scale)


def _skin(canvas: Canvas, patient: PatientAnatomy, course: Course) -> Float:
    """The trunk's outline filled with fat and, inside it, muscle; returns y of the skin of the back per slice."""
    tips = [
        pose.to_lps(0, pose.size.depth / 2 + pose.size.spinous, 0)[1] for pose in course.poses if pose.level[0] in "TL"
    ]
    back = np.float32(max(tips) + 4 + 0.5 * patient.fat_mm) + course.at(-14, -4, 0, 0, 0, 0, 0, 0, 4)
    width = patient.trunk_width * course.at(0.38, 0.8, 1.05, 1.03, 0.98, 0.95, 0.93, 1.0, 1.08)
    depth = patient.trunk_depth * course.at(0.6, 0.72, 0.9, 1.02, 1.0, 0.98, 0.95, 0.95, 0.98)
    middle = back - depth
    tube(canvas, course.x * 0, middle, width, depth, SKIN)
    tube(canvas, course.x * 0, middle, width - 1.6, depth - 1.6, FAT)
    wall = patient.fat_mm
    tube(canvas, course.x * 0, middle, width - wall, depth - wall * 0.9, MUSCLE)
    return back


def _cavity(canvas: Canvas, patient: PatientAnatomy, course: Course, contrast: Contrast, noise: Float) -> None:
    """Chest with lungs and mediastinum, belly with fat, liver, kidneys, spleen and bowel."""
    scale = patient.scale
    inner = np.float32(patient.fat_mm + 16)
    wide = patient.trunk_width * course.at(0, 0.5, 0.8, 0.95, 0.98, 0.95, 0.9, 0.85, 0.7) - inner
    deep = patient.trunk_depth * course.at(0, 0.5, 0.8, 0.95, 0.95, 0.9, 0.88, 0.85, 0.7) - inner
    belly = course.between("S2", "T10", 30)
    front = course.y - deep + course.at(0, 0, 6, 10, 10, 8, 2, -6, -20) * scale
    tube(
        canvas,
        course.x * 0,
        front,
        np.maximum(wide, 0) * belly,
        np.maximum(deep, 0) * belly,
        FAT,
        noise * np.float32(14),
    )
    liver = course.between("L2", "T9", 25)
    tube(
        canvas,
        course.x - 88 * scale,
        front + 12,
        62 * scale * liver,
        74 * scale * liver,
        contrast.liver,
        noise * np.float32(8),
    )
    spleen = course.between("L1", "T11", 18)
    tube(canvas, course.x + 105 * scale, course.y + 2, 24 * scale * spleen, 38 * scale * spleen, contrast.liver - 8)
    kidney = course.between("L3", "T12", 20)
    for side in (-1, 1):
        tube(
            canvas,
            course.x + side * 66 * scale,
            course.y + 8,
            25 * scale * kidney,
            29 * scale * kidney,
            contrast.kidney,
            noise * np.float32(8),
        )
        tube(canvas, course.x + side * 57 * scale, course.y - 2, 11 * scale * kidney**2, 12 * scale * kidney**2, FAT)
    _bowel(canvas, patient, course, front)
    _chest(canvas, patient, course, contrast, noise)


def _bowel(canvas: Canvas, patient: PatientAnatomy, course: Course, front: Float) -> None:
    rng = np.random.default_rng(patient.texture)
    for _ in range(14):
        middle = rng.uniform(course.height["S2"], course.height["L1"])
        length, radius = rng.uniform(18, 55), rng.uniform(11, 19)
        x, y = rng.uniform(-85, 85), rng.uniform(-45, 25)
        along_z = np.sqrt(np.clip(1 - ((canvas.z - middle) / length) ** 2, 0, 1)).astype(np.float32)
        wave = (np.sin(canvas.z / 23 + x) * 8).astype(np.float32)
        tube(canvas, x + wave, front + y, radius * along_z, radius * 0.9 * along_z, 38.0)
        gas = rng.random() < 0.45
        tube(
            canvas,
            x + wave,
            front + y - (4 if gas else 0),
            (radius - 3) * along_z,
            (radius - 6 if gas else radius - 3) * along_z,
            -800.0 if gas else 20.0,
        )


def _chest(canvas: Canvas, patient: PatientAnatomy, course: Course, contrast: Contrast, noise: Float) -> None:
    scale = patient.scale
    lung = course.between("T11", "T2", 22)
    wide = course.at(20, 24, 36, 47, 50, 50, 50, 50, 50) * scale * lung
    deep = course.at(30, 34, 58, 78, 80, 70, 60, 60, 60) * scale * lung
    apart = course.at(40, 42, 54, 66, 72, 78, 78, 78, 78) * scale
    vessel = np.clip(noise - 1.7, 0, 1) * np.float32(700) + noise * np.float32(25)
    front = course.y + course.at(0, 4, -22, -42, -44, -30, -30, -30, -30) * scale
    # The mediastinum is fat; the lungs leave it free in the middle.
    middle = course.between("T10", "T1", 20)
    tube(
        canvas, course.x, course.y - 55 * scale, 34 * scale * middle, 52 * scale * middle, -80.0, noise * np.float32(14)
    )
    for side in (-1, 1):
        tube(canvas, course.x + side * apart, front, wide, deep, LUNG, vessel)
    heart = course.between("T9", "T6", 22)
    tube(
        canvas, course.x + 18 * scale, course.y - 80 * scale, 52 * scale * heart, 46 * scale * heart, contrast.vein + 5
    )
    dome = course.between("T11", "T9", 25)
    tube(canvas, course.x - 70 * scale, course.y - 60 * scale, 52 * scale * dome, 58 * scale * dome, contrast.liver)
    trachea = course.between("T5", "C4", 8)
    tube(
        canvas,
        course.x,
        course.y - course.at(28, 34, 36, 30, 30, 30, 30, 30, 30) * scale,
        10 * trachea,
        9 * trachea,
        40.0,
    )
    tube(
        canvas,
        course.x,
        course.y - course.at(28, 34, 36, 30, 30, 30, 30, 30, 30) * scale,
        8 * trachea,
        7 * trachea,
        -990.0,
    )


def _back_muscles(canvas: Canvas, patient: PatientAnatomy, course: Course, noise: Float, back: Float) -> None:
    """Erector spinae and multifidus on both sides of the spinous processes, streaked with fat as age has it."""
    scale = patient.scale
    streaks = np.clip(noise + (2 * patient.muscle_fat - 1.6), 0, 1.6) * np.float32(-85)
    deep = course.canal_y + course.at(14, 14, 15, 16, 18, 22, 27, 24, 22) * scale
    room = np.maximum(back - patient.fat_mm * 0.5 - deep, 8)
    for side in (-1, 1):
        rx = course.at(18, 24, 24, 26, 30, 34, 36, 32, 24) * scale
        ry = np.minimum(course.at(16, 14, 13, 14, 17, 22, 25, 22, 14) * scale, room)
        apart = course.at(17, 22, 22, 23, 26, 33, 36, 32, 24) * scale
        tube(canvas, course.x + side * apart, deep + 1, rx + 2.5, ry + 2.5, FAT + 30)
        tube(canvas, course.x + side * apart, deep, rx, ry, MUSCLE + 3, streaks)
    # Fat fills the groove over the spinous processes.
    tube(
        canvas, course.x, deep + course.at(12, 12, 12, 14, 16, 20, 24, 20, 12), 5 + course.x * 0, 9 + course.x * 0, FAT
    )


def _vessels(canvas: Canvas, course: Course, contrast: Contrast, scale: float) -> None:
    aorta = course.between("L4", "T5", 10)
    x = course.at(10, 10, 16, 16, 13, 8, 8, 6, 6) * scale
    y = course.at(-30, -30, -24, -25, -30, -34, -36, -38, -38) * scale
    tube(canvas, course.x + x, course.y + y, 12.5 * aorta, 12.5 * aorta, 50.0)
    tube(canvas, course.x + x, course.y + y, 11 * aorta, 11 * aorta, contrast.aorta)
    cava = course.between("L4", "T9", 10)
    tube(canvas, course.x - 20 * scale, course.y + y + 2, 12 * cava, 9.5 * cava, contrast.vein)
    iliac = course.between("S2", "L5", 10)
    fall = np.clip(course.height["L4"] - canvas.z, 0, 90).astype(np.float32)
    for side in (-1, 1):
        tube(
            canvas,
            course.x + side * (8 + fall * 0.55),
            course.y - 34 + fall * 0.1,
            7 * iliac,
            7 * iliac,
            contrast.aorta,
        )
        tube(
            canvas,
            course.x + side * (14 + fall * 0.5) - 6,
            course.y - 28 + fall * 0.12,
            8 * iliac,
            7 * iliac,
            contrast.vein,
        )


def draw_canal(canvas: Canvas, course: Course) -> None:
    """Epidural fat, the dural sac with its fluid, and the cord down to L1 with the cauda equina below."""
    every = np.ones_like(course.x)
    tube(canvas, course.canal_x, course.canal_y, course.canal_rx + 1, course.canal_ry + 1, -70.0)
    sac = course.between("S2", "C3", 15)
    fill = course.at(0.86, 0.84, 0.84, 0.84, 0.84, 0.84, 0.82, 0.76, 0.6) * sac
    sac_y = course.canal_y - 0.08 * course.canal_ry
    tube(canvas, course.canal_x, sac_y, course.canal_rx * fill, course.canal_ry * fill, CSF)
    cord = course.between("L1", "C3", 20)
    tube(canvas, course.canal_x, sac_y, 5.4 * every * cord, 4.0 * every * cord, CORD)
    cauda = course.between("L5", "L2", 12)
    tube(canvas, course.canal_x, sac_y + 2.0, 6.5 * cauda, 3.2 * cauda, CSF + 14)


def draw_discs(canvas: Canvas, poses: Sequence[Pose], patient: PatientAnatomy, noise: Float) -> None:
    """Discs, overlapping the endplates that are drawn over them later; gas in those with a vacuum phenomenon."""
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
        if above.level[0] == "S":
            hu += 90
        elif patient.discs[above.level].vacuum:
            gas = (x / np.float32(0.45 * a)) ** 2 + (y / np.float32(0.4 * b)) ** 2 + (z / 1.4) ** 2
            hu = np.where(gas < 1 + 0.4 * tiled(noise, box), np.float32(-250), hu)
        blend(canvas.hu[box], hu, cover(solid, canvas.edge))


def draw_table(canvas: Canvas, y: float) -> None:
    """The scanner's table: a curved carbon shell over foam, its top at `y` in the middle."""
    top = y + (canvas.x / 210.0) ** 2 * -38
    depth = (canvas.y[:, None] - top[None, :]).astype(np.float32)
    inside = (depth > 0) & (depth < 42) & (np.abs(canvas.x) < 215)[None, :]
    shell = inside & ((depth < 2.2) | (depth > 39.8))
    plane = np.where(shell, -180.0, -930.0).astype(np.float32)
    canvas.hu[:, inside] = np.maximum(canvas.hu[:, inside], plane[inside][None])
