"""The parts above the third cervical vertebra: axis, atlas and head, for fields of view that reach that high.

Nothing below C3 depends on them. A head is made of simple solids, enough for a neck scan: a brain in its
skull down to the foramen magnum, the condyles on the atlas, the petrous bones, the jaw and the airway.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from spinemet.phantom.body.anatomy import AXIS, DENS, PatientAnatomy, Pose, leaning
from spinemet.phantom.body.skeleton import draw_struts, paint_bone
from spinemet.phantom.body.tissue import CORD, CSF, FAT, MUSCLE, SKIN, tube
from spinemet.phantom.body.vertebra import JOINT_MM, canal_middle
from spinemet.phantom.shapes import Canvas, Float, Strut, along, blend, cover, is_empty, merge, merge_struts, tiled

Array = npt.NDArray[np.float64]

_BASION_DENS_MM, _BASION_AXIAL_MM = (5.3, 1.2), (3.4, 2.5)
"""From the tip of the dens up to the skull's basion, and from the line of C2's posterior wall forward to it: mean and
standard deviation on CT (Rojas et al., AJNR 2007, with half of their spread to the front)."""
_FORAMEN_MM = (15.0, 18.0)
"""Half the width and half the length of the foramen magnum: 30 by 36 mm on CT."""
_NOD_DEG = 8.0
"""Standard deviation of the head's nod against the axis."""
_BRAIN = 34.0
_SKULL_MM = 6.5
_DEEPEST_MM = -62.0
"""The lowest point of the drawn head, relative to the foramen magnum."""


@dataclass(frozen=True, eq=False)
class Head:
    """axis: the pose of C2. foramen_mm: (3,) LPS middle of the foramen magnum; axes: (3, 3) rows left, posterior,
    superior of the head; scale: its size relative to the usual one."""

    axis: Pose
    foramen_mm: Array
    axes: Array
    scale: float

    def to_lps(self, *local: float) -> Array:
        """LPS mm of a point left, posterior and superior of the foramen's middle, in mm of a usual head."""
        return self.foramen_mm + self.scale * (np.asarray(local, np.float64) @ self.axes)


def place_head(patient: PatientAnatomy, poses: Sequence[Pose]) -> Head:
    """The head of `patient`, and C2, above the vertebrae of place_spine."""
    # A generator of its own, so that nothing else of a patient depends on these numbers.
    rng = np.random.default_rng([patient.texture, 2])
    scale = patient.scale * float(rng.normal(1, 0.02))
    size = AXIS.scaled(scale)
    size = replace(size, height=size.height * float(rng.normal(1, 0.04)))
    third = poses[0]
    axes = leaning(float(rng.normal(0, 3)), 0.0)
    between = third.axes[2] + axes[2]
    joint = third.center + third.axes[2] * third.size.height / 2 + between / np.linalg.norm(between) * size.disc
    axis = Pose("C2", size, joint + axes[2] * size.height / 2, axes)
    above, ahead = (scale * max(float(rng.normal(*usual)), 0.0) for usual in (_BASION_DENS_MM, _BASION_AXIAL_MM))
    basion = axis.to_lps(0, 0.42 * size.depth - ahead, (0.5 + DENS) * size.height + above)
    head = leaning(float(np.clip(rng.normal(0, _NOD_DEG), -16, 16)), 0.0)
    return Head(axis, basion + scale * _FORAMEN_MM[1] * head[1], head, scale)


def reaches(canvas: Canvas, head: Head) -> bool:
    """Whether the slices of `canvas` show any part of the head above C2."""
    return bool(canvas.z[-1] > head.to_lps(0, 0, _DEEPEST_MM)[2])


def draw_flesh(canvas: Canvas, head: Head, noise: Float) -> None:
    """Draw skin, fat and muscle of the head, and the airway in front of the spine; no bone."""
    z = (canvas.z - np.float32(head.foramen_mm[2])) / np.float32(head.scale)
    marks = (_DEEPEST_MM, -30, 0, 40, 90, 130, 150)
    front = np.interp(z, marks, (-98, -110, -114, -112, -100, -55, 0))
    behind = np.interp(z, marks, (36, 48, 78, 100, 98, 60, 0))
    half = np.interp(z, marks, (52, 66, 74, 79, 78, 55, 0)) * ((z > marks[0]) & (z < marks[-1]))
    x = np.full_like(canvas.z, head.foramen_mm[0])
    y, deep, wide = (
        (head.scale * part).astype(np.float32) for part in ((front + behind) / 2, (behind - front) / 2, half)
    )
    y += np.float32(head.foramen_mm[1])
    tube(canvas, x, y, wide, deep, SKIN)
    tube(canvas, x, y, wide - 1.6, deep - 1.6, FAT)
    tube(canvas, x, y, wide - 6, deep - 6, MUSCLE, noise * np.float32(12))
    airway = np.sqrt(np.clip(1 - (np.maximum(np.abs(z + 32) - 38, 0) / 8) ** 2, 0, 1)).astype(np.float32)
    throat = (head.foramen_mm[1] - head.scale * (42 + 0.3 * np.maximum(z, 0))).astype(np.float32)
    tube(canvas, x, throat, 11 * airway, 7 * airway, -990.0)


def draw_upper_canal(canvas: Canvas, head: Head, third: Pose) -> None:
    """Draw the dural sac with the cord, from C3 into the skull."""
    marks = [pose.to_lps(0, canal_middle(pose), 0) for pose in (third, head.axis)]
    marks += [_atlas(head, 0, 14.5, 0), head.to_lps(0, 0, 0), head.to_lps(0, 0, 9)]
    places = np.array(marks)
    inside = (canvas.z > places[0, 2]) & (canvas.z < places[-1, 2])

    def follow(values: npt.ArrayLike) -> Float:
        return (np.interp(canvas.z, places[:, 2], np.asarray(values)) * inside).astype(np.float32)

    x, y = follow(places[:, 0]), follow(places[:, 1])
    scale = head.scale
    tube(canvas, x, y, scale * follow((10, 10.5, 12, 13, 13)), scale * follow((6.5, 7.5, 9, 15, 16)), CSF)
    tube(canvas, x, y - 1, scale * follow((6, 6, 6.2, 7, 8)), scale * follow((4.2, 4.4, 4.8, 5.5, 6.5)), CORD)


def draw_head_bones(canvas: Canvas, head: Head, cancellous: float, texture: Float, coarse: Float) -> None:
    """Draw atlas, skull with brain, and lower jaw around the vertebrae that are already drawn."""
    draw_struts(canvas, list(_atlas_bars(head)), cancellous * 1.6, 1.8, texture, JOINT_MM)
    _draw_skull(canvas, head, cancellous, texture, coarse)
    draw_struts(canvas, list(_jaw(head)), cancellous * 1.3, 2.4, texture, JOINT_MM)


def _atlas(head: Head, *local: float) -> Array:
    """LPS mm of a point of the atlas, in mm of a usual head from the middle of the dens at its height."""
    axis = head.axis
    middle = axis.to_lps(0, -1.0, (0.5 + DENS) * axis.size.height - 11 * head.scale)
    return middle + head.scale * (np.asarray(local, np.float64) @ axis.axes)


def _atlas_bars(head: Head) -> Iterator[Strut]:
    """A ring without a body: anterior arch before the dens, lateral masses, posterior arch, transverse processes."""
    up, scale = head.axis.axes[2], head.scale
    for side in (-1.0, 1.0):
        for start, end, radii in (
            ((0, -10.3, 0), (side * 15, -5, 0), ((2.8, 5.5), (3.0, 5.0))),
            ((side * 17, 3, -6), (side * 18, 2, 6), ((6.0, 8.0), (6.0, 8.5))),
            ((side * 19, 8, 0), (side * 15, 20, 0), ((2.8, 4.0), (2.8, 4.2))),
            ((side * 15, 20, 0), (0, 28, 0), ((2.8, 4.2), (3.2, 4.6))),
            ((side * 21, 3, 0), (side * 36, 5, -2), ((4.0, 4.5), (3.2, 4.0))),
        ):
            upright = head.axis.axes[1] if abs(end[2] - start[2]) > 6 else up
            yield Strut(_atlas(head, *start), _atlas(head, *end), np.multiply(radii, scale).tolist(), upright)


def _jaw(head: Head) -> Iterator[Strut]:
    for side in (-1.0, 1.0):
        corners = [(side * 50, -32, -4), (side * 46, -42, -42), (side * 34, -76, -46), (0, -94, -48)]
        for a, b in itertools.pairwise(corners):
            yield Strut(head.to_lps(*a), head.to_lps(*b), ((5.0, 9.0), (5.0, 9.0)), head.axes[2] + 0.2 * head.axes[1])


def _skull_bars(head: Head) -> Iterator[Strut]:
    """Condyles, mastoid processes, petrous bones."""
    for side in (-1.0, 1.0):
        for start, end, radii in (
            ((17, -15, -1), (20, 2, -2), ((5.0, 6.0), (5.5, 6.5))),
            ((54, 0, 12), (53, -4, -16), ((10.0, 11.0), (7.0, 8.0))),
            ((14, -24, 26), (58, 0, 18), ((8.0, 8.0), (11.0, 12.0))),
        ):
            inner, outer = ((side * x, y, z) for x, y, z in (start, end))
            scaled = np.multiply(radii, head.scale).tolist()
            yield Strut(head.to_lps(*inner), head.to_lps(*outer), scaled, head.axes[2] + head.axes[1])


def _draw_skull(canvas: Canvas, head: Head, cancellous: float, texture: Float, coarse: Float) -> None:
    corners = [head.to_lps(x, y, z) for x in (-80, 80) for y in (-105, 90) for z in (-26, 146)]
    box = canvas.grid.around(corners, 2)
    if is_empty(box):
        return
    x, y, z = (along(canvas, box, head.foramen_mm, axis) * np.float32(1 / head.scale) for axis in head.axes)
    cavity = _cavity(x, y, z)
    # The texture stands for sulci and cisterns.
    blend(canvas.hu[box], _BRAIN + tiled(coarse, box) * 3, cover(cavity * np.float32(head.scale), canvas.edge))
    hole = (np.hypot(x / np.float32(_FORAMEN_MM[0]), y / np.float32(_FORAMEN_MM[1])) - 1) * np.float32(_FORAMEN_MM[0])
    np.maximum(hole, np.abs(z) - 14, out=hole)
    solid = np.maximum(cavity - np.float32(_SKULL_MM), -cavity) * np.float32(head.scale)
    merge_struts(canvas, solid, box, _skull_bars(head), 3.0)
    np.maximum(solid, -hole * np.float32(head.scale), out=solid)
    paint_bone(canvas, box, solid, cancellous * 1.8 + 150, 2.0, texture, JOINT_MM)


def _cavity(x: Float, y: Float, z: Float) -> Float:
    """Signed distance to the cavity of the skull, posterior fossa and cerebrum above the base, in mm of a usual head.

    The base rises from the basion along the clivus to the floor of the middle and anterior fossae.
    """
    fossa = _ellipsoid(x, y - 12, z - 34, (53.0, 48.0, 37.0))
    merge(fossa, _ellipsoid(x, y + 8, z - 78, (68.0, 84.0, 62.0)), 10.0)
    clivus = -np.float32(0.82) * (y + np.float32(_FORAMEN_MM[1])) - np.float32(0.57) * z
    return np.maximum(fossa, np.minimum(clivus, 38 - z))


def _ellipsoid(x: Float, y: Float, z: Float, radii: tuple[float, float, float]) -> Float:
    a, b, c = (part * np.float32(1 / radius) for part, radius in zip((x, y, z), radii, strict=True))
    near = np.sqrt(a * a + b * b + c * c)
    steep = np.sqrt(sum((part * np.float32(1 / r)) ** 2 for part, r in zip((a, b, c), radii, strict=True)))
    return np.asarray(near * (near - 1) / (steep + np.float32(1e-4)), np.float32)
