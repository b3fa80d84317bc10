"""Scanning a phantom patient: from field of view, slices, kernel and noise to a CT volume and the truth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, gaussian_filter1d, uniform_filter1d

from spinemet.phantom.body.anatomy import PatientAnatomy, Pose, place_spine
from spinemet.phantom.body.head import Head, draw_flesh, draw_head_bones, draw_upper_canal, place_head, reaches
from spinemet.phantom.body.skeleton import draw_skeleton
from spinemet.phantom.body.tissue import Contrast, Course, draw_canal, draw_discs, draw_table, draw_trunk
from spinemet.phantom.body.vertebra import BoneChange, draw_vertebra
from spinemet.phantom.shapes import Canvas, Float, Grid, noise_tile, vec3
from spinemet.types import AIR_HU, Completeness, LabelMap, Vec3, Volume

FINEST_SLAB_MM = 1.3
"""Thicker slices are drawn as several thin slabs and averaged, so that endplates blur as in real scans."""
LISTED_FROM = 0.05
"""The truth lists a vertebra if at least this share of its body's height is in the field of view."""


@dataclass(frozen=True)
class ScanSettings:
    """The settings of one reconstruction.

    center_mm: LPS of the middle of the field of view. shape: slices, rows, columns. spacing: mm along D, H, W.
    thickness: mm of each slice. blur_mm: in-plane sigma of the kernel; edge: how much it enhances edges (0 soft).
    noise_hu: standard deviation in soft tissue, given at 1 mm thickness. bone_gain: HU of bone relative to 120 kV
    (about 1.13 at 100 kV, 0.93 at 140 kV).
    """

    center_mm: Vec3
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    thickness: float
    blur_mm: float = 0.6
    edge: float = 0.0
    noise_hu: float = 14.0
    noise_seed: int = 0
    bone_gain: float = 1.0
    contrast: Contrast = field(default_factory=Contrast)


@dataclass(frozen=True)
class PhantomVertebra:
    """The truth about one vertebra of one scan.

    center_mm: LPS of the body's centre, axes: rows left, posterior, superior. visible: share of the body's height in
    the field of view; `completeness` is whole only if all of it is.
    """

    level: str
    center_mm: Vec3
    axes: tuple[Vec3, Vec3, Vec3]
    height_mm: float
    completeness: Completeness
    visible: float


@dataclass(frozen=True, eq=False)
class PhantomScan:
    """A rendered study: the volume, the vertebra labels on its grid (C2 to L5, whole vertebrae), and the truth.

    sacrum_mm: body centre of S1. Like C1 and the skull, S1 is drawn but neither labelled nor part of the truth.
    """

    volume: Volume
    labels: LabelMap
    vertebrae: tuple[PhantomVertebra, ...]
    sacrum_mm: Vec3


Changes = Mapping[str, Sequence[BoneChange]]
"""Level -> what changes the vertebra's bone, in this order."""


def render(patient: PatientAnatomy, scan: ScanSettings, changes: Changes | None = None) -> PhantomScan:
    """One scan of `patient`; equal arguments give equal voxels."""
    return render_series(patient, [scan], changes)[0]


def render_series(
    patient: PatientAnatomy, scans: Sequence[ScanSettings], changes: Changes | None = None
) -> list[PhantomScan]:
    """Several reconstructions of one acquisition. The first defines the grid to draw on; the others may differ in
    slice spacing, thickness, kernel and noise, and lose at most one slice at the cranial end."""
    poses = place_spine(patient)
    head = place_head(patient, poses)
    canvas = _draw(patient, poses, head, scans[0], changes or {})
    return [_reconstruct(canvas, (head.axis, *poses), scan) for scan in scans]


def _reconstruct(canvas: Canvas, poses: Sequence[Pose], scan: ScanSettings) -> PhantomScan:
    step = canvas.grid.spacing[0]
    slabs = max(1, round(scan.spacing[0] / step))
    depth = canvas.grid.shape[0] // slabs
    used = depth * slabs
    (z, y, x), (_, dy, dx) = canvas.grid.origin, canvas.grid.spacing
    hu: Float = canvas.hu[:used].reshape(depth, slabs, *canvas.hu.shape[1:]).mean(1, dtype=np.float32)
    grid = Grid((z + step * (slabs - 1) / 2, y, x), (step * slabs, dy, dx), hu.shape)
    affine = np.diag([*grid.spacing, 1.0])[[2, 1, 0, 3]]
    affine[:3, 3] = grid.origin[::-1]
    truths = (_truth(pose, grid) for pose in poses if pose.level[0] != "S")
    return PhantomScan(
        Volume(_expose(hu, grid, scan), affine),
        LabelMap(canvas.labels[slabs // 2 : used : slabs], affine),
        tuple(truth for truth in truths if truth.visible >= LISTED_FROM),
        next(vec3(pose.center) for pose in poses if pose.level == "S1"),
    )


def _draw(patient: PatientAnatomy, poses: Sequence[Pose], head: Head, scan: ScanSettings, changes: Changes) -> Canvas:
    """The patient in the scan's field of view, with one slab or more to a slice."""
    fine_noise = noise_tile(patient.texture, 0.7)
    coarse_noise = noise_tile(patient.texture + 1, 1.5)
    # The trunk changes little from slice to slice: it is drawn once per slice and repeated.
    trunk = Canvas(_grid(scan, 1), np.full(scan.shape, -1000, np.float32))
    course = Course(trunk, poses)
    draw_trunk(trunk, patient, course, scan.contrast, coarse_noise)
    with_head = reaches(trunk, head)
    if with_head:
        draw_flesh(trunk, head, coarse_noise)
    draw_table(trunk, course.flat_back + 12 + 0.5 * patient.fat_mm)
    fine = max(1, int(np.ceil(scan.spacing[0] / FINEST_SLAB_MM)))
    canvas = trunk if fine == 1 else Canvas(_grid(scan, fine), np.repeat(trunk.hu, fine, axis=0))
    draw_discs(canvas, (head.axis, *poses), patient, coarse_noise)
    draw_canal(canvas, Course(canvas, poses))
    if with_head:
        draw_upper_canal(canvas, head, poses[0])
    for n, pose in enumerate((head.axis, *poses), start=-1):
        draw_vertebra(canvas, pose, trabecular_hu(patient, n), fine_noise, changes.get(pose.level, ()))
    chest = (patient.trunk_width * 0.87 - patient.fat_mm, patient.trunk_depth * 0.95 - patient.fat_mm)
    draw_skeleton(canvas, poses, patient, chest, fine_noise)
    if with_head:
        draw_head_bones(canvas, head, patient.trabecular_hu, fine_noise, coarse_noise)
    return canvas


def trabecular_hu(patient: PatientAnatomy, place: int) -> float:
    """HU of the cancellous bone of the vertebra at this place of the spine; C3 is 0.

    It is densest in the neck and thins towards the lumbar spine (Boutroy et al., Bone 2016).
    """
    return patient.trabecular_hu * float(np.interp(place, [0, 5, 16, 22, 26], [1.7, 1.3, 1.05, 0.95, 0.9]))


def _grid(scan: ScanSettings, fine: int) -> Grid:
    depth, height, width = scan.shape
    dz, dy, dx = scan.spacing
    x, y, z = scan.center_mm
    return Grid(
        (z - dz * depth / 2 + dz / fine / 2, y - dy * (height - 1) / 2, x - dx * (width - 1) / 2),
        (dz / fine, dy, dx),
        (depth * fine, height, width),
    )


def _expose(hu: Float, grid: Grid, scan: ScanSettings) -> npt.NDArray[np.int16]:
    """The HU that a scanner stores: with tube voltage, overlap of slices, kernel, noise and rounding."""
    if scan.bone_gain != 1:
        hu = hu + np.float32(scan.bone_gain - 1) * np.maximum(hu - np.float32(80), 0)
    widen = scan.thickness / grid.spacing[0]
    if widen > 1.2:
        hu = uniform_filter1d(hu, max(3, round(widen) // 2 * 2 + 1), axis=0, mode="nearest")
    sigma = (0.0, scan.blur_mm / grid.spacing[1], scan.blur_mm / grid.spacing[2])
    hu = hu + _noise(hu, scan)
    soft = gaussian_filter(hu, sigma, truncate=2.5)
    if scan.edge > 0:
        soft += scan.edge * (soft - gaussian_filter(soft, tuple(1.6 * s for s in sigma), truncate=2.5))
    return np.clip(np.rint(soft), AIR_HU, 3071).astype(np.int16)


def _noise(hu: Float, scan: ScanSettings) -> Float:
    """Quantum noise before the kernel: falls with thickness, grows behind bone, with streaks from side to side."""
    rng = np.random.default_rng(scan.noise_seed)
    white = rng.standard_normal(hu.shape, dtype=np.float32)
    # The kernel averages over an area of about 4 pi sigma squared; noise_hu is the noise after that.
    pixels = max(4 * np.pi * (scan.blur_mm**2) / (scan.spacing[1] * scan.spacing[2]), 1.0)
    level = scan.noise_hu * np.sqrt(pixels / max(scan.thickness, 0.5))
    dense = gaussian_filter1d(np.clip(hu, -100, 900).mean(axis=2), 4, axis=1)
    level_DH = (level * np.clip(0.75 + dense / 500, 0.6, 1.6)).astype(np.float32)
    streaks = rng.standard_normal((*hu.shape[:2], hu.shape[2] // 8 + 1), dtype=np.float32)
    streaks = np.float32(0.5) * gaussian_filter1d(streaks, 1.5, axis=2)
    white += np.repeat(streaks, 8, axis=2)[:, :, : hu.shape[2]]
    white *= level_DH[:, :, None]
    return white


def _truth(pose: Pose, grid: Grid) -> PhantomVertebra:
    """The vertebra's position, and the share of its body's axis in the field of view."""
    ends = np.linspace(-pose.size.height / 2, pose.size.height / 2, 201)
    axis = pose.center + ends[:, None] * pose.axes[2]
    low = np.array(grid.origin[::-1]) - np.array(grid.spacing[::-1]) / 2
    high = low + np.array(grid.spacing[::-1]) * np.array(grid.shape[::-1])
    visible = float(((axis >= low) & (axis <= high)).all(axis=1).mean())
    left, posterior, superior = map(vec3, pose.axes)
    return PhantomVertebra(
        level=pose.level,
        center_mm=vec3(pose.center),
        axes=(left, posterior, superior),
        height_mm=pose.size.height,
        completeness=Completeness.WHOLE if visible == 1.0 else Completeness.CUT,
        visible=visible,
    )


REGIONS: dict[str, tuple[str, str]] = {
    "lumbosacral": ("T11", "S3"),
    "thoracolumbar": ("T8", "L3"),
    "thoracic": ("C7", "L1"),
    "whole": ("C6", "S3"),
}
"""First and last level of each examination; the field of view starts and ends somewhere inside them."""


def field_of_view(poses: Sequence[Pose], region: str, cut: tuple[float, float]) -> tuple[float, float]:
    """(lowest, highest) z in mm of a scan of `region`; `cut`: the part cut off the first and the last body (0 to 1)."""
    by_level = {pose.level: pose for pose in poses}
    top, bottom = (by_level[level] for level in REGIONS[region])
    high = top.center[2] + (0.5 - cut[0]) * top.size.height
    low = bottom.center[2] - (0.5 - cut[1]) * bottom.size.height
    return float(low), float(high)
