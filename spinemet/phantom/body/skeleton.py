"""The bones beside the vertebrae: ribs, sacral wings, iliac bones."""

import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
from scipy.interpolate import CubicSpline

from spinemet.phantom.body.anatomy import PatientAnatomy, Pose
from spinemet.phantom.body.vertebra import JOINT_MM, canal_distance, canal_middle
from spinemet.phantom.shapes import Box, Canvas, Float, Strut, blend, cover, is_empty, merge_struts, tiled_at

UP = np.array([0.0, 0.0, 1.0])


def draw_skeleton(
    canvas: Canvas, poses: Iterable[Pose], patient: PatientAnatomy, chest: tuple[float, float], texture: Float
) -> None:
    """Draw ribs, sacral wings and pelvis around the vertebrae that are already drawn, with joints between them.

    chest: half width and half depth of the rib cage in mm.
    """
    by_level = {pose.level: pose for pose in poses}
    cancellous = patient.trabecular_hu
    ribs = [strut for pose in by_level.values() if has_ribs(patient, pose.level) for strut in rib(pose, patient, chest)]
    draw_struts(canvas, ribs, cancellous * 0.8, 1.5, texture, JOINT_MM)
    sacrum = [by_level["S1"], by_level["S2"]]
    draw_struts(canvas, list(wings(by_level)), cancellous * 0.8, 1.6, texture, -4.0, sacrum)
    draw_struts(canvas, list(ilium(by_level["S1"])), cancellous * 0.9, 2.2, texture, JOINT_MM + 0.8)


def draw_struts(
    canvas: Canvas,
    struts: Sequence[Strut],
    cancellous: float,
    cortex_mm: float,
    texture: Float,
    gap: float,
    canals: Iterable[Pose] = (),
) -> None:
    """Unite `struts` into one solid, `gap` mm away from earlier bone (negative: grow into it), and paint it."""
    ends = [end for strut in struts for end in (strut.start, strut.end)]
    whole = canvas.grid.around(ends, max(max(pair) for strut in struts for pair in strut.radii) + 3)
    if is_empty(whole):
        return
    solid = canvas.blank(whole)
    merge_struts(canvas, solid, whole, struts, 3.0)
    for pose in canals:
        np.maximum(solid, -canal_distance(canvas, pose, whole), out=solid)
    paint_bone(canvas, whole, solid, cancellous, cortex_mm, texture, gap)


def paint_bone(
    canvas: Canvas, box: Box, solid: Float, cancellous: float, cortex_mm: float, texture: Float, gap: float
) -> None:
    """Paint a bone with the signed distance `solid` in `box`: a cortex of `cortex_mm` around cancellous bone.

    gap: distance to earlier bone in mm (negative: grow into it).
    """
    near = np.nonzero(solid < 3.0)
    place = tuple(axis + part.start for axis, part in zip(near, box, strict=True))
    depth = np.maximum(solid[near], gap - canvas.bone[place])
    cortex = np.clip((cortex_mm + depth) / 0.9 + 0.5, 0, 1)
    core = cancellous + tiled_at(texture, place) * 35
    hu = canvas.hu[place]
    blend(hu, core + cortex * (680 - core), cover(depth, canvas.edge))
    canvas.hu[place] = hu
    canvas.bone[place] = np.minimum(canvas.bone[place], depth)


def has_ribs(patient: PatientAnatomy, level: str) -> bool:
    """Whether the patient's vertebra `level` has a pair of ribs."""
    more = {"lumbar ribs": "L1", "cervical ribs": "C7"}.get(patient.variant)
    return level == more or (level[0] == "T" and not (level == "T12" and patient.variant == "no T12 ribs"))


def rib(pose: Pose, patient: PatientAnatomy, chest: tuple[float, float]) -> Iterator[Strut]:
    """Both ribs of a vertebra: head beside the disc above, neck, tubercle at the transverse process, shaft."""
    number = {"C7": 1, "L1": 12}.get(pose.level) or int(pose.level[1:])
    for side, longest in zip((-1.0, 1.0), patient.ribs.get(pose.level, (np.inf, np.inf)), strict=True):
        points = _rib_course(pose, side, chest, number)
        steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
        reach = np.concatenate([[0], np.cumsum(steps)])
        course = CubicSpline(reach, points, axis=0)
        length = min(float(reach[-1]), longest)
        stops = course(np.linspace(0, length, max(int(length / 12), 3)))
        for n, (a, b) in enumerate(itertools.pairwise(stops)):
            size = (5.0, 5.0) if n == 0 else ((3.4, 4.4) if n < 3 else (3.4, 5.8))
            yield Strut(a, b, (size, size), UP)


def _rib_course(pose: Pose, side: float, chest: tuple[float, float], number: int) -> npt.NDArray[np.float64]:
    size = pose.size
    mid = canal_middle(pose)
    high = 0.42 if 1 < number < 11 else 0.1
    tubercle = np.array([side * (size.transverse / 2 - 1), mid + (size.transverse / 2) * 0.2 - 3.0, 5.0])
    local = [
        np.array([side * (size.width * 0.48 + 1.5), size.depth * 0.34, high * size.height]),
        np.array([side * (size.width * 0.5 + 6), size.depth * 0.5, 0.3 * size.height]),
        tubercle,
        tubercle + np.array([side * 20, *((-20, -8) if number == 1 else (9, -5))]),
    ]
    points = [pose.to_lps(*point) for point in local]
    narrow = np.interp(number, [1, 2, 4, 7, 12], [0.45, 0.62, 0.85, 1.0, 0.98])
    width, depth = chest[0] * narrow, chest[1] * narrow
    # The first rib goes forward from its tubercle, about the lung's apex; the others go backward first.
    center = pose.to_lps(0, 0, 0) + np.array([0, mid + (10 if number == 1 else 24) - depth, 0])
    for degrees in (165, 185, 205, 235) if number == 1 else (128, 150, 175, 205, 235):
        angle = np.radians(degrees - 90)
        fall = -12 - 0.16 * (degrees - 100) - 0.001 * (degrees - 100) ** 2
        points.append(center + np.array([side * width * np.sin(angle), depth * np.cos(angle), fall]))
    return np.array(points)


def wings(by_level: dict[str, Pose]) -> Iterator[Strut]:
    """The sacral alae and the fused plate behind the canal."""
    for level, reach, radii in (("S1", 51.0, (13.0, 15.0)), ("S2", 43.0, (10.0, 13.0)), ("S3", 34.0, (6.0, 10.0))):
        pose = by_level[level]
        wide = pose.size.width
        for side in (-1.0, 1.0):
            inner = pose.to_lps(side * wide * 0.25, 2.0, 0.0)
            outer = pose.to_lps(side * reach * wide / {"S1": 50.0, "S2": 38.0, "S3": 31.0}[level], 12.0, -3.0)
            yield Strut(inner, outer, ((radii[0] * 0.8, radii[1] * 0.8), radii), pose.axes[2])


def ilium(sacrum: Pose) -> Iterator[Strut]:
    """Both iliac bones from crest to sacroiliac joint, as a fan of bars from the spine to the wing."""
    scale = sacrum.size.width / 50
    center = sacrum.center
    knots = np.array(
        [
            # height over S1; x and y of the posterior end, the bend and the anterior end; half thickness at both ends
            (46, 100, 26, 112, 8, 120, -14, 4.5, 4.5),
            (34, 86, 40, 104, 12, 124, -38, 6.0, 4.5),
            (20, 72, 50, 90, 14, 125, -58, 7.5, 4.0),
            (6, 62, 54, 77, 14, 123, -70, 8.5, 4.0),
            (-8, 55, 57, 70, 12, 119, -74, 8.5, 4.5),
            (-22, 51, 58, 66, 10, 113, -72, 8.0, 5.5),
            (-36, 51, 56, 66, 8, 106, -66, 7.0, 7.0),
            (-50, 58, 46, 70, 8, 98, -56, 7.0, 9.0),
        ]
    )
    # Bars 5 mm apart overlap enough to unite into a smooth plate.
    for height in np.arange(knots[-1, 0], knots[0, 0], 5.0):
        row = [np.interp(height, knots[::-1, 0], knots[::-1, n]) for n in range(1, 9)]
        for side in (-1.0, 1.0):
            points = [center + scale * np.array([side * row[n], row[n + 1], height]) for n in (0, 2, 4)]
            thick, thin = row[6:]
            yield Strut(points[0], points[1], ((thick, 8.0), (thick * 0.8, 8.0)), UP)
            yield Strut(points[1], points[2], ((thick * 0.8, 8.0), (thin, 8.0)), UP)
