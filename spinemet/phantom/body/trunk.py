"""The trunk around the spine: skin, fat, muscle, lungs, vessels and organs."""

from dataclasses import dataclass

import numpy as np

from spinemet.phantom.body.anatomy import PatientAnatomy
from spinemet.phantom.body.tissue import FAT, LUNG, MUSCLE, SKIN, Contrast, Course, tube
from spinemet.phantom.shapes import Canvas, Float


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
