"""A phantom patient as parameters, and the pose of each vertebra. All random numbers of the anatomy are drawn here.

Patient coordinates are LPS millimetres with the centre of L3's body at the origin.

levels.csv holds the size and tilt of each level's vertebra: means of adults, in millimetres and degrees. Bodies, canal,
pedicles, transverse and spinous processes: Panjabi et al., "Thoracic human vertebrae" (Spine 1991) and "Human lumbar
vertebrae" (Spine 1992); cervical ones after Panjabi et al. (Spine 1991, "Cervical human vertebrae"). Disc heights:
Kunkel et al. (J Anat 2011) for thoracic, Tibrewal & Pearcy (Spine 1985) for lumbar discs. Tilts add up to 40 degrees of
thoracic kyphosis and 50 of lumbar lordosis, as in Bernhardt & Bridwell (Spine 1989).
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Self

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class LevelSize:
    """The measures of one vertebra and of the disc below it.

    tilt: degrees by which the superior axis leans to anterior. spinous_drop: degrees by which the spinous process
    points down. transverse: tip to tip. spinous: from the posterior wall of the body to the tip.
    """

    width: float
    depth: float
    height: float
    disc: float
    canal_width: float
    canal_depth: float
    pedicle_width: float
    pedicle_height: float
    transverse: float
    spinous: float
    spinous_drop: float
    tilt: float

    def scaled(self, factor: float, disc_factor: float = 1.0) -> Self:
        """The same vertebra `factor` times as large; angles stay, and `disc_factor` also scales the disc."""
        sizes = {name: value * factor for name, value in vars(self).items() if name not in {"spinous_drop", "tilt"}}
        return replace(self, **sizes | {"disc": self.disc * factor * disc_factor})


def _read() -> dict[str, LevelSize]:
    with Path(__file__).with_name("levels.csv").open() as file:
        return {
            row.pop("level"): LevelSize(**{name: float(value) for name, value in row.items()})
            for row in csv.DictReader(file)
        }


SIZES = _read()
"""Level -> its size, C3 to S4, cranial to caudal. Sacral segments are fused: the "disc" is a rudiment, the processes
are the sacral crests."""

AXIS = SIZES.pop("C2")
"""C2 without its dens. head.py draws it separately, because random numbers of the others depend on their count."""

DENS = 0.76
"""Length of the dens as a share of the height of C2's body: 37 mm in all (16 of them dens)."""

MOBILE: tuple[str, ...] = tuple(level for level in SIZES if level[0] != "S")
"""The levels from C3 to L5, which can have disease. With C2 they are the vertebrae of the truth. Sacrum and atlas are
drawn but not listed: the sacrum is one fused bone, and the atlas has no body."""

Array = npt.NDArray[np.float64]
Variant = Literal["usual", "L4", "L6", "T13", "no T12 ribs", "lumbar ribs", "cervical ribs"]
"""The number of vertebrae and ribs: four or six lumbar vertebrae, a thirteenth thoracic one, no ribs at T12, or further
ribs at L1 or C7. `draw_anatomy` draws only usual patients."""


@dataclass(frozen=True)
class Degeneration:
    """The wear of one disc: the share of its height that is left, whether it holds gas, and whether bone has replaced
    it."""

    height: float = 1.0
    vacuum: bool = False
    fused: bool = False


@dataclass(frozen=True)
class PatientAnatomy:
    """The parameters of one patient's body.

    kyphosis, lordosis: factors on the usual curvature. scoliosis_deg: largest lateral tilt. trabecular_hu: mean of the
    healthy cancellous bone at L1. texture: seed of the trabecular pattern and of all other fine structure.
    collapsed: level -> share of the body's height that is left. ribs: level -> length of its right and left rib in mm,
    for ribs with a free end.
    """

    age: int
    sex: str
    scale: float
    trabecular_hu: float
    kyphosis: float
    lordosis: float
    scoliosis_deg: float
    scoliosis_phase: float
    fat_mm: float
    muscle_fat: float
    trunk_width: float
    trunk_depth: float
    level_scale: Mapping[str, float] = field(default_factory=dict)
    level_tilt: Mapping[str, float] = field(default_factory=dict)
    discs: Mapping[str, Degeneration] = field(default_factory=dict)
    collapsed: Mapping[str, float] = field(default_factory=dict)
    ribs: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    variant: Variant = "usual"
    texture: int = 0


@dataclass(frozen=True, eq=False)
class Pose:
    """The position of one vertebra. center: (3,) LPS mm of the body; axes: (3, 3) rows left, posterior, superior."""

    level: str
    size: LevelSize
    center: Array
    axes: Array

    def to_lps(self, *local: float) -> Array:
        """LPS mm of a point given in this vertebra's own left, posterior, superior coordinates."""
        return self.center + np.asarray(local, np.float64) @ self.axes


def draw_anatomy(rng: np.random.Generator) -> PatientAnatomy:
    """A patient of 38 to 88 years.

    Trabecular density falls with age as in Pickhardt et al. (Ann Intern Med 2013: about 200 HU at 20 years, 1.7 HU a
    year). Between people of one age it varies by 39 HU (standard deviation), half as much again as there: patients have
    osteoporosis and treatments.
    """
    age = int(np.clip(rng.normal(64, 11), 38, 88))
    sex = "F" if rng.random() < 0.5 else "M"
    scale = float(np.clip(rng.normal(0.96 if sex == "F" else 1.04, 0.045), 0.86, 1.16))
    wear = (age - 40) / 50
    discs = {}
    for level in SIZES:
        worn = rng.random() < 0.3 * wear * (1.6 if level in {"L4", "L5", "C5", "C6"} else 0.8)
        height = float(rng.uniform(0.45, 0.75) if worn else rng.uniform(0.88, 1.12))
        discs[level] = Degeneration(height, bool(worn and rng.random() < 0.3))
    patient = PatientAnatomy(
        age=age,
        sex=sex,
        scale=scale,
        trabecular_hu=float(np.clip(200 - 1.7 * (age - 20) + 1.5 * rng.normal(0, 26), 20, 300)),
        kyphosis=float(np.clip(rng.normal(1.0, 0.2), 0.5, 1.5)),
        lordosis=float(np.clip(rng.normal(1.0, 0.2), 0.5, 1.4)),
        scoliosis_deg=float(abs(rng.normal(0, 3.5))),
        scoliosis_phase=float(rng.uniform(0, 2 * np.pi)),
        fat_mm=float(np.clip(rng.normal(17, 7), 6, 38)),
        muscle_fat=float(np.clip(0.1 + 0.5 * wear + rng.normal(0, 0.15), 0.02, 0.85)),
        trunk_width=float(rng.uniform(150, 185)) * scale,
        trunk_depth=float(rng.uniform(95, 125)) * scale,
        level_scale={level: float(rng.normal(1, 0.015)) for level in SIZES},
        level_tilt={level: float(rng.normal(0, 1.2)) for level in SIZES},
        discs=discs,
        texture=int(rng.integers(2**31)),
    )
    return replace(patient, ribs=_free_ribs(patient.texture))


def _free_ribs(seed: int) -> dict[str, tuple[float, float]]:
    """Lengths of the ribs with a free end. In adults the twelfth rib is 3 to 14 cm long, or a stump, or missing."""
    # A generator of its own, so that nothing else of a patient depends on these numbers.
    rng = np.random.default_rng([seed, 12])
    lengths = {}
    for level, (mean, deviation, least) in {
        "C7": (45.0, 20.0, 15.0),
        "T11": (150.0, 25.0, 70.0),
        "T12": (90.0, 30.0, 12.0),
        "T13": (60.0, 25.0, 15.0),
        "L1": (45.0, 20.0, 15.0),
    }.items():
        length = rng.normal(mean, deviation)
        right, left = (float(max(length + rng.normal(0, 8), least)) for _ in range(2))
        lengths[level] = (right, left)
    return lengths


def _sequence(variant: Variant) -> list[tuple[str, str]]:
    """The patient's levels, cranial to caudal, each with the level of SIZES that gives its size."""
    levels = [level for level in SIZES if (variant, level) != ("L4", "L5")]
    if variant in ("T13", "L6"):
        levels.insert(levels.index("L1" if variant == "T13" else "S1"), variant)
    others = {"L4": {"L4": "L5"}, "T13": {"T13": "T12"}, "L6": {"L5": "L4", "L6": "L5"}}.get(variant, {})
    return [(level, others.get(level, level)) for level in levels]


def leaning(tilt_deg: float, lateral_deg: float) -> Array:
    """Axes (3, 3: left, posterior, superior) that lean to anterior and to the left by the given degrees."""
    tilt, lateral = np.radians([tilt_deg, lateral_deg])
    superior = np.array([np.sin(lateral), -np.sin(tilt) * np.cos(lateral), np.cos(tilt) * np.cos(lateral)])
    left = np.array([1.0, 0.0, 0.0]) - superior[0] * superior
    left /= np.linalg.norm(left)
    return np.stack([left, np.cross(superior, left), superior])


def place_spine(patient: PatientAnatomy) -> tuple[Pose, ...]:
    """The poses of all vertebrae of the patient, C3 to S4, cranial to caudal."""
    poses: list[Pose] = []
    center = np.zeros(3)
    for n, (level, like) in enumerate(_sequence(patient.variant)):
        factor = patient.scale * patient.level_scale.get(level, 1.0)
        size = SIZES[like].scaled(factor, patient.discs.get(level, Degeneration()).height)
        size = replace(size, height=size.height * patient.collapsed.get(level, 1.0))
        sway = 0.0 if level[0] == "S" else np.sin(2 * np.pi * n / 16 + patient.scoliosis_phase)
        # Around the straight T9 to L3.
        curvature = patient.kyphosis if level[0] in "CT" else patient.lordosis
        tilt = SIZES[like].tilt * curvature + patient.level_tilt.get(level, 0.0)
        axes = leaning(tilt, patient.scoliosis_deg * sway)
        if poses:
            above = poses[-1]
            joint = above.center - above.axes[2] * above.size.height / 2
            between = above.axes[2] + axes[2]
            joint = joint - between / np.linalg.norm(between) * above.size.disc
            center = joint - axes[2] * size.height / 2
        poses.append(Pose(level, size, center, axes))
    origin = next(pose.center for pose in poses if pose.level == "L3")
    return tuple(Pose(pose.level, pose.size, pose.center - origin, pose.axes) for pose in poses)
