"""Drawing one vertebra: its solids, its bone, and changes by disease.

Local coordinates: x left, y posterior, z superior, mm from the centre of the body.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spinemet.anatomy import LEVEL_INDEX
from spinemet.phantom.body.anatomy import DENS, Pose
from spinemet.phantom.shapes import (
    Box,
    Canvas,
    Float,
    Strut,
    along,
    blend,
    cover,
    is_empty,
    merge,
    merge_struts,
    overlap,
    tiled_at,
)
from spinemet.types import Vec3

JOINT_MM = 1.6
"""Cartilage between neighbouring bones; below 2 mm, as in healthy facet joints."""
CORTEX_MM = 1.1
"""Drawn shell of the body. The true one is 0.4 mm of 1200 HU; a scanner shows the same mass smeared out."""
ARCH_CORTEX_MM = 1.6


@dataclass(eq=False)
class BonePatch:
    """The voxels in and near one vertebra, as flat arrays; disease changes `bone` (signed distance) and `hu` in place.

    x, y, z: local mm. body: signed distance of the vertebral body alone. texture: noise of deviation 1.
    """

    pose: Pose
    x: Float
    y: Float
    z: Float
    bone: Float
    body: Float
    texture: Float
    hu: Float


BoneChange = Callable[[BonePatch], None]


def draw_vertebra(
    canvas: Canvas, pose: Pose, trabecular_hu: float, texture: Float, changes: Sequence[BoneChange] = ()
) -> None:
    """Draw the vertebra of `pose` and label its voxels; does nothing if it lies outside the grid.

    trabecular_hu: mean of the cancellous bone of the body. changes: applied to the patch in turn, before it is painted.
    """
    ends = [end for strut in arch(pose) for end in (strut.start, strut.end)]
    box = canvas.grid.around([*_corners(pose), *ends], 9)
    if is_empty(box):
        return
    bone, body = _solids(canvas, pose, box)
    # Neighbours need distances up to the widest joint plus their cortex; disease may add bone farther out.
    near = np.nonzero(bone < (9.0 if changes else 5.5))
    if near[0].size == 0:
        return
    place = tuple(axis + part.start for axis, part in zip(near, box, strict=True))
    x, y, z = (
        values[axis] - np.float32(c)
        for values, axis, c in zip((canvas.x, canvas.y, canvas.z), place[::-1], pose.center, strict=True)
    )
    left, posterior, superior = (x * np.float32(u) + y * np.float32(v) + z * np.float32(w) for u, v, w in pose.axes)
    patch = BonePatch(
        pose,
        left,
        posterior,
        superior,
        bone=np.maximum(bone[near], JOINT_MM - canvas.bone[place]),
        body=body[near],
        texture=tiled_at(texture, place),
        hu=np.empty(near[0].size, np.float32),
    )
    patch.hu[:] = healthy_hu(patch, trabecular_hu)
    inside = patch.bone < 0
    for change in changes:
        change(patch)
    hu = canvas.hu[place]
    blend(hu, patch.hu, cover(patch.bone, canvas.edge))
    canvas.hu[place] = hu
    canvas.bone[place] = np.minimum(canvas.bone[place], patch.bone)
    if pose.level[0] != "S":
        canvas.labels[tuple(axis[inside] for axis in place)] = 1 + LEVEL_INDEX[pose.level]


def healthy_hu(patch: BonePatch, trabecular_hu: float) -> Float:
    """HU of healthy bone: cortical shell and endplates around a cancellous core, denser in the arch."""
    size = patch.pose.size
    is_body = cover(patch.body, 3.0)
    core = np.float32(trabecular_hu) * (1.25 - 0.25 * is_body) + 40 * (1 - is_body)
    core += patch.texture * np.float32(14 + 0.14 * trabecular_hu)
    # The basivertebral vein: a cleft from the middle of the posterior wall to the centre of the body.
    vein = np.hypot(patch.x / 3.0, patch.z / 1.8)
    core -= 55 * np.clip(1.3 - vein, 0, 1) * np.clip(patch.y / size.depth + 0.15, 0, 0.5) * 2 * is_body
    shell = CORTEX_MM * is_body + ARCH_CORTEX_MM * (1 - is_body)
    dense = 300 + 1.1 * trabecular_hu + 300 * (1 - is_body)
    cortex = np.clip((shell + patch.bone) / 0.9 + 0.5, 0, 1)
    return core + cortex * (dense - core)


def _solids(canvas: Canvas, pose: Pose, box: Box) -> tuple[Float, Float]:
    """Signed distance of the whole vertebra and of its body in `box`; the canal is cut out of both."""
    bone, body = canvas.blank(box, 0), canvas.blank(box, 1)
    part, inner = overlap(canvas.grid.around(_corners(pose), 4), box)
    if not is_empty(part):
        body[inner] = body_distance(canvas, pose, part)
    merge_struts(canvas, bone, box, arch(pose))
    np.maximum(bone, -canal_distance(canvas, pose, box), out=bone)
    merge(bone, body, 3.0)
    return bone, body


def _corners(pose: Pose) -> list[npt.NDArray[np.float64]]:
    """The corners of a box around the body, 20 % larger than it."""
    half = 0.6 * pose.size.width, 0.6 * pose.size.depth, 0.6 * pose.size.height
    return [pose.to_lps(*np.multiply(signs, half)) for signs in itertools.product((-1, 1), repeat=3)]


def body_distance(canvas: Canvas, pose: Pose, box: Box) -> Float:
    """Signed distance of the vertebral body: oval with a waist, concave posterior wall and endplates."""
    size = pose.size
    x, y, z = (along(canvas, box, pose.center, axis) for axis in pose.axes)
    a, b, c = size.width / 2, size.depth / 2, size.height / 2
    flat = z * np.float32(1 / c)
    waist = np.float32(1) - np.float32(0.09) * np.clip(1 - flat * flat, 0, 1)
    # The oval is centred a little behind and cut by the posterior wall.
    u = x * np.float32(1 / a)
    v = (y - np.float32(0.08 * b)) * np.float32(1 / (1.08 * b))
    rho = np.sqrt(u * u + v * v)
    around = (rho - waist) * np.float32(0.5 * (a + b))
    dip = np.float32(1.6 * size.height / 27)
    ends = np.abs(z) - c + dip * np.clip(1 - rho, 0, 1) * np.float32(1.5)
    behind = y - np.float32(b - 0.11 * size.depth) - np.float32(0.1 * size.depth) * np.minimum(u * u * 2.5, 1.5)
    solid = np.maximum(around, behind)
    # Rounded rim: the corner between wall and endplate has a radius of about 2 mm.
    rim = np.float32(2.0)
    outer = np.maximum(solid + rim, 0)
    upper = np.maximum(ends + rim, 0)
    return np.sqrt(outer * outer + upper * upper) - rim + np.minimum(np.maximum(solid + rim, ends + rim), 0)


def canal_distance(canvas: Canvas, pose: Pose, box: Box) -> Float:
    """Signed distance of the bony canal, an oval tube along the vertebra's own axis."""
    size = pose.size
    middle = pose.to_lps(0, canal_middle(pose), 0)
    a, b = size.canal_width / 2, size.canal_depth / 2
    x = along(canvas, box, middle, pose.axes[0]) * np.float32(1 / a)
    y = along(canvas, box, middle, pose.axes[1]) * np.float32(1 / b)
    return (np.sqrt(x * x + y * y) - 1) * np.float32(0.5 * (a + b))


def canal_middle(pose: Pose) -> float:
    """Local y of the middle of the canal."""
    return pose.size.depth * 0.42 + pose.size.canal_depth / 2


def arch(pose: Pose) -> Iterator[Strut]:
    """The bars that make up the posterior elements: pedicles, laminae, spinous, transverse, articular processes."""
    size = pose.size
    wall, mid = size.depth * 0.42, canal_middle(pose)
    back = wall + size.canal_depth
    drop = np.radians(size.spinous_drop)
    region = pose.level[0]
    lamina_z, thin = (-0.16, 3.2) if region == "L" else (-0.05, 3.0 if region == "T" else 2.4)
    lamina_tall = size.height * (0.34 if region == "L" else 0.46)
    length = size.spinous - size.canal_depth - 0.08 * size.depth
    tip = (0.0, back + 2 + length * np.cos(drop), lamina_z * size.height - length * np.sin(drop))
    tall = {"C": 4.0, "T": 4.5, "L": size.height * 0.33, "S": 4.0}[region]
    spinous = ((3.4, tall * 1.1), (3.8 if region == "L" else 2.8, tall))
    yield _bar(pose, (0, back + 1.5, lamina_z * size.height), tip, spinous)
    for side in (-1.0, 1.0):
        yield from _half_arch(pose, side, lamina_z, thin, lamina_tall, mid, back)
    if pose.level == "C2":
        radius = 0.25 * size.height
        top = (0.5 + DENS) * size.height - radius
        yield _bar(pose, (0, -1, 0.3 * size.height), (0, -1, top), ((radius, radius), (radius, radius)))


def _half_arch(
    pose: Pose, side: float, lamina_z: float, thin: float, lamina_tall: float, mid: float, back: float
) -> Iterator[Strut]:
    """The bars of one side; `side` is +1 for the patient's left."""
    size, region = pose.size, pose.level[0]
    wall, height = size.depth * 0.42, size.height
    root = size.canal_width / 2 + size.pedicle_width / 2
    high = 0.2 * height if region != "C" else 0.0
    pedicle = (size.pedicle_width / 2, size.pedicle_height / 2)
    lamina = ((thin + 0.6, lamina_tall), (thin, lamina_tall))
    x, y = side * (size.canal_width / 2 + 2.8), mid + 0.22 * size.canal_depth
    yield _bar(pose, (side * (root - 0.5), wall - 4, high), (side * root, mid, high), (pedicle, pedicle))
    yield _bar(pose, (x, y, lamina_z * height + 1), (0, back + 2, lamina_z * height), lamina)
    yield _bar(pose, (side * root * 0.98, mid, high * 0.6), (x, y + 1, -0.1 * height), ((4.2, 5.5), (4.2, 5.5)))
    yield from _transverse(pose, side, root, mid, wall)
    yield from _facets(pose, side, mid, high)


def _transverse(pose: Pose, side: float, root: float, mid: float, wall: float) -> Iterator[Strut]:
    size, region = pose.size, pose.level[0]
    tip_x = side * (size.transverse / 2 - 3)
    if region == "L":
        yield _bar(pose, (side * root, wall + 3, 1.5), (tip_x, wall + 9, 2.5), ((4.0, 6.0), (2.4, 4.2)))
    elif region == "T":
        reach = max(size.transverse / 2 - root, 4) * 0.55
        yield _bar(pose, (side * root, mid, 2.0), (tip_x, mid + reach, 3.0), ((4.4, 5.2), (4.6, 5.0)))
    elif region == "C":
        yield _bar(pose, (side * root, mid - 5, -1.0), (tip_x, mid - 8, -2.5), ((3.4, 3.0), (2.8, 2.6)))
        yield _bar(pose, (side * size.width * 0.42, 0, -1), (tip_x, mid - 10, -2.5), ((2.2, 2.4), (2.4, 2.2)))


def _facets(pose: Pose, side: float, mid: float, high: float) -> Iterator[Strut]:
    """Superior and inferior articular processes, reaching to the middle of the disc above and below.

    Lumbar joints stand at 45 degrees (the lower vertebra's process lateral), thoracic and cervical ones are coronal
    (the lower vertebra's process in front).
    """
    size, region = pose.size, pose.level[0]
    half = size.height / 2 + size.disc / 2
    start = (side * (size.canal_width / 2 + 3), mid + 0.2 * size.canal_depth, high * 0.4)
    if region in "LS":
        above = (side * (size.canal_width / 2 + 6.5), mid + 0.12 * size.canal_depth, half + 3.5)
        below = (side * (size.canal_width / 2 + 0.5), mid + 0.42 * size.canal_depth, -half - 5.5)
        thick = (4.6, 4.6)
    else:
        above = (side * (size.canal_width / 2 + 2.8), mid + 0.05 * size.canal_depth, half + 2.5)
        below = (side * (size.canal_width / 2 + 2.2), mid + 0.42 * size.canal_depth, -half - 4.0)
        thick = (4.4, 3.4) if region == "T" else (4.8, 3.4)
    yield _bar(pose, start, above, (thick, thick))
    if region != "S":
        yield _bar(pose, start, below, (thick, thick))


def _bar(pose: Pose, start: Vec3, end: Vec3, radii: Sequence[Sequence[float]]) -> Strut:
    """A strut between two local points. Upright bars take their second radius along posterior instead of superior."""
    direction = np.abs(np.subtract(end, start))
    up = pose.axes[1] if direction[2] > 1.2 * np.hypot(direction[0], direction[1]) else pose.axes[2]
    return Strut(pose.to_lps(*start), pose.to_lps(*end), radii, up)
