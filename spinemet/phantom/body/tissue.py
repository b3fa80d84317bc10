"""Soft tissue: how it is drawn, the discs, the canal, the trunk with its organs, and the scanner's table.

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


# ---- trunk --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Trunk:
    """The outline of the body per slice, (D,) mm: centre and half axes of an ellipse, and y of the skin of the back."""

    x: Float
    y: Float
    width: Float
    depth: Float
    back: Float


def draw_trunk(canvas: Canvas, patient: PatientAnatomy, course: Course, contrast: Contrast, noise: Float) -> None:
    """Draw skin, fat, body wall, chest and belly with their organs, the great vessels and the muscles of the back."""
    scale = patient.scale
    trunk = _outline(patient, course)
    tube(canvas, trunk.x, trunk.y, trunk.width, trunk.depth, SKIN)
    tube(canvas, trunk.x, trunk.y, trunk.width - 1.6, trunk.depth - 1.6, FAT)
    tube(canvas, trunk.x, trunk.y, trunk.width - patient.fat_mm, trunk.depth - patient.fat_mm * 0.9, MUSCLE)
    _belly(canvas, patient, course, trunk, contrast, noise)
    _chest(canvas, course, scale, contrast, noise)
    _back_muscles(canvas, patient, course, noise, trunk.back)
    psoas = course.at(0, 0, 0, 0, 0, 0.35, 0.85, 1.0, 0.8) * course.between("S2", "T12", 25)
    apart = course.at(0, 0, 0, 0, 0, 26, 38, 46, 60) * scale
    y = course.y + course.at(0, 0, 0, 0, 0, 8, 4, -6, -45) * scale
    for side in (-1, 1):
        x = course.x + side * apart
        tube(canvas, x, y, 16 * psoas * scale, 20 * psoas * scale, MUSCLE, noise * np.float32(10))
    _vessels(canvas, course, contrast, scale)


def _outline(patient: PatientAnatomy, course: Course) -> Trunk:
    """The trunk of a patient in supine position: flat behind, with the neck above the table."""
    flat = np.float32(course.flat_back + 4 + 0.5 * patient.fat_mm)
    back = np.minimum(flat, course.tip_y + course.at(16, 22, 34, 60, 200, 200, 200, 200, 200))
    # The sacrum may reach deeper than the rest of the spine.
    back = np.maximum(back, course.tip_y + course.at(0, 0, 0, 0, 0, 0, 0, 0, 12))
    width = patient.trunk_width * course.at(0.38, 0.8, 1.05, 1.03, 0.98, 0.95, 0.93, 1.0, 1.08)
    whole = flat - 2 * patient.trunk_depth * course.at(1, 1, 1, 1.0, 1.0, 0.98, 0.95, 0.95, 0.98)
    neck = course.y - course.at(48, 62, 96, 0, 0, 0, 0, 0, 0) * patient.scale
    share = course.at(0, 0, 0, 1, 1, 1, 1, 1, 1)
    front = share * whole + (1 - share) * np.maximum(neck, whole)
    middle, depth = (back + front) / 2, (back - front) / 2
    return Trunk(*(part.astype(np.float32) for part in (course.x * 0, middle, width, depth, back)))


def _belly(
    canvas: Canvas, patient: PatientAnatomy, course: Course, trunk: Trunk, contrast: Contrast, noise: Float
) -> None:
    """Fat from the abdominal wall to the spine, with liver, spleen, kidneys and bowel in it."""
    scale = patient.scale
    wall = patient.fat_mm + 15 * scale
    room = np.maximum(trunk.width - wall, 1).astype(np.float32)
    nearest = trunk.y - trunk.depth + wall
    farthest = course.y + course.at(0, 0, 0, 0, 0, 4, 0, -8, -25) * scale
    middle = ((nearest + farthest) / 2).astype(np.float32)
    deep = (np.maximum(farthest - nearest, 0) / 2).astype(np.float32)
    belly = course.between("S2", "T10", 30)
    tube(canvas, trunk.x, middle, room * belly, deep * belly, FAT, noise * np.float32(14))
    flank = course.between("L4", "T12", 25)
    for side in (-1, 1):
        behind = course.x + side * 0.52 * room
        tube(canvas, behind, course.y - 6, 0.42 * room * flank, 42 * scale * flank, FAT, noise * np.float32(10))
    liver = course.between("L2", "T9", 25)
    mottled = noise * np.float32(8)
    tube(canvas, -0.55 * room, middle + 6, 0.44 * room * liver, deep * 0.9 * liver, contrast.liver, mottled)
    spleen = course.between("L1", "T11", 18)
    tube(canvas, 0.78 * room, course.y - 2, 0.19 * room * spleen, 34 * scale * spleen, contrast.liver - 8)
    kidney = course.between("L3", "T12", 20)
    for side in (-1, 1):
        x = course.x + side * 62 * scale
        tube(canvas, x, course.y + 6, 24 * scale * kidney, 28 * scale * kidney, contrast.kidney, mottled)
        tube(canvas, x - side * 9, course.y - 4, 11 * scale * kidney**2, 12 * scale * kidney**2, FAT)
    _bowel(canvas, patient, course, middle, float(room.mean()), float(deep.max()))


def _bowel(canvas: Canvas, patient: PatientAnatomy, course: Course, middle_y: Float, room: float, deep: float) -> None:
    rng = np.random.default_rng(patient.texture)
    for _ in range(14):
        middle = rng.uniform(course.height["S2"], course.height["L1"])
        length, radius = rng.uniform(18, 55), rng.uniform(11, 19)
        x, y = rng.uniform(-0.7, 0.7) * room, rng.uniform(-0.6, 0.2) * deep
        along_z = np.sqrt(np.clip(1 - ((canvas.z - middle) / length) ** 2, 0, 1)).astype(np.float32)
        wave = (np.sin(canvas.z / 23 + x) * 8).astype(np.float32)
        tube(canvas, x + wave, middle_y + y, radius * along_z, radius * 0.9 * along_z, 38.0)
        lift, wall, content = (4, 6, -800.0) if rng.random() < 0.45 else (0, 3, 20.0)  # gas, or fluid
        tube(canvas, x + wave, middle_y + y - lift, (radius - 3) * along_z, (radius - wall) * along_z, content)


def _chest(canvas: Canvas, course: Course, scale: float, contrast: Contrast, noise: Float) -> None:
    x, y = course.x, course.y
    lung = course.between("T10", "T2", 40)
    wide = course.at(20, 24, 36, 47, 50, 50, 50, 50, 50) * scale * lung
    deep = course.at(30, 34, 58, 78, 80, 70, 60, 60, 60) * scale * lung
    apart = course.at(40, 42, 54, 66, 72, 78, 78, 78, 78) * scale
    vessel = np.clip(noise - 1.7, 0, 1) * np.float32(700) + noise * np.float32(25)
    front = y + course.at(0, 4, -22, -42, -44, -30, -30, -30, -30) * scale
    # The mediastinum between the lungs is fat.
    middle = course.between("T10", "T1", 20)
    ahead = course.at(24, 28, 44, 55, 55, 55, 55, 55, 55) * scale
    deep_fat = course.at(16, 20, 38, 52, 52, 52, 52, 52, 52) * scale * middle
    tube(canvas, x, y - ahead, 34 * scale * middle, deep_fat, -80.0, noise * np.float32(14))
    for side in (-1, 1):
        tube(canvas, x + side * apart, front, wide, deep, LUNG, vessel)
    heart = course.between("T9", "T6", 22)
    tube(canvas, x + 18 * scale, y - 80 * scale, 52 * scale * heart, 46 * scale * heart, contrast.vein + 5)
    dome = course.between("T11", "T9", 25)
    tube(canvas, x - 70 * scale, y - 60 * scale, 52 * scale * dome, 58 * scale * dome, contrast.liver)
    trachea = course.between("T5", "C4", 8)
    throat = y - course.at(28, 34, 36, 30, 30, 30, 30, 30, 30) * scale
    tube(canvas, x, throat, 10 * trachea, 9 * trachea, 40.0)
    tube(canvas, x, throat, 8 * trachea, 7 * trachea, -990.0)


def _back_muscles(canvas: Canvas, patient: PatientAnatomy, course: Course, noise: Float, back: Float) -> None:
    """Draw erector spinae and multifidus beside the spinous processes, with the patient's share of fat."""
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
    groove = deep + course.at(12, 12, 12, 14, 16, 20, 24, 20, 12)
    tube(canvas, course.x, groove, np.full_like(groove, 5), np.full_like(groove, 9), FAT)


def _vessels(canvas: Canvas, course: Course, contrast: Contrast, scale: float) -> None:
    x, y = course.x, course.y
    aorta = course.between("L4", "T5", 10)
    aside = x + course.at(10, 10, 16, 16, 13, 8, 8, 6, 6) * scale
    ahead = y + course.at(-30, -30, -24, -25, -30, -34, -36, -38, -38) * scale
    tube(canvas, aside, ahead, 12.5 * aorta, 12.5 * aorta, 50.0)
    tube(canvas, aside, ahead, 11 * aorta, 11 * aorta, contrast.aorta)
    cava = course.between("L4", "T9", 10)
    tube(canvas, x - 20 * scale, ahead + 2, 12 * cava, 9.5 * cava, contrast.vein)
    iliac = course.between("S2", "L5", 10)
    fall = np.clip(course.height["L4"] - canvas.z, 0, 90).astype(np.float32)
    for side in (-1, 1):
        artery, vein = x + side * (8 + fall * 0.55), x + side * (14 + fall * 0.5) - 6
        tube(canvas, artery, y - 34 + fall * 0.1, 7 * iliac, 7 * iliac, contrast.aorta)
        tube(canvas, vein, y - 28 + fall * 0.12, 8 * iliac, 7 * iliac, contrast.vein)
