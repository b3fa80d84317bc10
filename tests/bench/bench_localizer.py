"""The geometric localizer: what it finds, where, and what it calls it, on real CT and on phantoms in bad shape."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context

import numpy as np

from spinemet.anatomy import LEVEL_INDEX, LEVELS, is_named
from spinemet.dicom.segmentation import labels_from_nifti
from spinemet.dicom.volume import nifti_grid
from spinemet.errors import StudyExcluded
from spinemet.phantom.anatomy import Pose, draw_anatomy, place_spine
from spinemet.phantom.lesions import draw_diseases
from spinemet.phantom.levels import MOBILE
from spinemet.phantom.mimics import Changes, draw_mimics
from spinemet.phantom.scan import ScanSettings, field_of_view, render
from spinemet.phantom.tissue import Contrast
from spinemet.spine.geometric import geometric_spine
from spinemet.spine.masks import spine_from_labels
from spinemet.spine.sampling import in_view
from spinemet.types import LabelMap, Volume
from tests.bench.figures import Figures, Missing
from tests.conftest import REALCT
from tests.spine.conftest import body_centers, read
from tests.spine.test_geometric import CHEST_MM
from tests.spine.volumes import turned

PHANTOMS = 48
WORKERS = 2
NEAR_MM = 10.0
TO_BE_FOUND = 1 / 3
"""Of a body's height in view. One with less is neither missed when it is not listed nor spurious when it is."""
CONDITIONS = ("usual", "noisy", "porotic", "scoliosis", "turned", "diffuse", "metal", "contrast")
REGIONS = ("lumbosacral", "thoracic", "thoracolumbar", "whole", "lumbosacral")
SPACINGS_MM = (2.0, 3.0, 1.0, 5.0, 2.5, 1.5, 4.0, 0.75)


@dataclass
class Score:
    """Counts and errors of one study, or of several added up."""

    expected: int = 0
    found: int = 0
    listed: int = 0
    spurious: int = 0
    named: int = 0
    named_right: int = 0
    anchored: int = 0
    anchored_named: int = 0
    errors_mm: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)

    def __add__(self, other: Score) -> Score:
        return Score(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Truth:
    """One vertebra that is there. level: empty where nobody knows it. visible: share of its body's height in view."""

    level: str
    center_mm: tuple[float, float, float]
    visible: float = 1.0


def run() -> Figures:
    """Seconds are those of one core."""
    figures = Figures(
        f"Geometric localizer: vertebrae found within {NEAR_MM:g} mm of the truth",
        ("study", "there", "found", "precision", "median mm", "p95 mm", "named", "names right", "CPU s"),
        f"Phantoms: {PHANTOMS} over {', '.join(CONDITIONS)}; slices of {min(SPACINGS_MM)} to {max(SPACINGS_MM)} mm."
        " Named: of those in studies with the sacrum in view, the only anchor that names so far.",
    )
    if not REALCT.is_dir():
        raise Missing("real CT is not on this machine")
    for name, volume, truth in real_cases():
        _add(figures, name, score(volume, truth, name == "TotalSegmentator, abdomen"))
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool:
        scores = list(pool.map(phantom_score, range(PHANTOMS)))
    for condition in CONDITIONS:
        part = [scores[n] for n in range(PHANTOMS) if condition_of(n) == condition]
        _add(figures, f"phantoms, {condition}", sum(part, Score()))
    _add(figures, "phantoms, all", sum(scores, Score()))
    return figures


def _add(figures: Figures, name: str, s: Score) -> None:
    named = s.anchored_named / s.anchored if s.anchored else "-"
    right = s.named_right / s.named if s.named else "-"
    middle, far = np.percentile(s.errors_mm, (50, 95)) if s.errors_mm else (float("nan"),) * 2
    precision = 1 - s.spurious / max(s.listed, 1)
    seconds = float(np.median(s.seconds))
    figures.add(
        name, s.expected, s.found / max(s.expected, 1), precision, float(middle), float(far), named, right, seconds
    )


def score(volume: Volume, truth: Sequence[Truth], anchored: bool = True) -> Score:
    """How `geometric_spine` did on one study."""
    start = time.process_time()
    try:
        vertebrae = geometric_spine(volume).vertebrae
    except StudyExcluded:
        vertebrae = ()
    result = Score(listed=len(vertebrae), seconds=[time.process_time() - start])
    places = np.array([v.center_mm for v in vertebrae]).reshape(-1, 3)
    centers = np.array([t.center_mm for t in truth])
    distance = np.linalg.norm(places[:, None] - centers[None], axis=2)
    taken = set()
    for n, one in enumerate(truth):
        due = one.visible >= TO_BE_FOUND
        result.expected += due
        result.anchored += due and anchored
        best = int(distance[:, n].argmin()) if vertebrae else -1
        if best < 0 or distance[best, n] > NEAR_MM or distance[best].argmin() != n:
            result.missed += [one.level] if due else []
            continue
        taken.add(best)
        if not due:
            continue
        result.found += 1
        result.errors_mm.append(float(distance[best, n]))
        level = vertebrae[best].level
        if is_named(level) and one.level:
            result.named += 1
            result.named_right += level == one.level
            result.anchored_named += anchored
    result.spurious = len(vertebrae) - len(taken)
    return result


# ---- real CT -------------------------------------------------------------------------------------------------


def real_cases() -> Iterator[tuple[str, Volume, list[Truth]]]:
    """Each real study with the centres of the bodies that are in view."""
    levels = ("C6", "C7", *(f"T{n}" for n in range(1, 13)))
    places = [(float(x), float(y), float(z)) for x, y, z in CHEST_MM]
    truth = [Truth(level, place, 0.0 if level == "C6" else 1.0) for level, place in zip(levels, places, strict=True)]
    yield "LIDC, chest", read(REALCT / "lidc-0314" / "series.tar.xz"), truth
    folder = REALCT / "totalsegmentator"
    abdomen = read(folder / "example_ct.nii.gz")
    labels = labels_from_nifti((folder / "totalseg_vertebrae_pp_refined.nii.gz").read_bytes(), abdomen)
    yield "TotalSegmentator, abdomen", abdomen, _labelled(labels, body_centers(labels))
    few = read(folder / "example_ct_dicom")
    labels = labels_from_nifti((folder / "example_seg_dicom.nii.gz").read_bytes(), few)
    spine = spine_from_labels(few, labels)
    centers = {1 + LEVEL_INDEX[v.level]: np.array(v.center_mm) for v in spine.vertebrae}
    yield "TotalSegmentator, 20 slices", few, _labelled(labels, centers, slight=("T11",))
    folder = REALCT / "tptbox"
    patch = read(folder / "sub-ct_label-22_ct.nii.gz")
    labels = labels_from_nifti((folder / "sub-ct_seg-vert_label-22_msk.nii.gz").read_bytes(), patch)
    parts, _ = nifti_grid((folder / "sub-ct_seg-subreg_label-22_msk.nii.gz").read_bytes())
    yield "TPTBox, patch", patch, _labelled(labels, body_centers(labels, np.isin(parts, (49, 50))))


def _labelled(labels: LabelMap, centers: dict[int, np.ndarray], slight: Sequence[str] = ()) -> list[Truth]:
    levels = {number: LEVELS[number - 1] for number in sorted(centers)}
    places = {number: (float(c[0]), float(c[1]), float(c[2])) for number, c in centers.items()}
    return [Truth(level, places[n], 0.0 if level in slight else 1.0) for n, level in levels.items()]


# ---- phantoms ------------------------------------------------------------------------------------------------


def condition_of(number: int) -> str:
    """What is the matter with phantom `number`."""
    return CONDITIONS[number % len(CONDITIONS)]


def phantom_score(number: int) -> Score:
    """Render phantom `number` and score it; in a process of its own."""
    return score(*phantom(number))


def phantom(number: int) -> tuple[Volume, list[Truth], bool]:
    """The volume, the truth, and whether the sacrum is in view."""
    rng = np.random.default_rng([404, number])
    condition, region = condition_of(number), REGIONS[number % len(REGIONS)]
    spacing = SPACINGS_MM[(number // len(CONDITIONS) + number) % len(SPACINGS_MM)]
    if region == "whole":  # a long one in thin slices takes a minute to draw
        spacing = max(spacing, 2.0)
    patient = draw_anatomy(rng)
    if condition == "scoliosis":
        patient = replace(patient, scoliosis_deg=float(rng.uniform(10, 18)))
    if condition == "porotic":
        patient = replace(patient, trabecular_hu=float(rng.uniform(30, 60)))
    usual = str(rng.choice(["lytic", "blastic", "mixed"]))
    diseases = draw_diseases(rng, MOBILE, 1, condition == "diffuse" or number % 3 == 0, usual)
    mimics = draw_mimics(rng, patient, MOBILE)
    changes = {}
    poses = place_spine(patient)
    for pose in poses:
        disease = diseases.get(pose.level)
        lesion = disease.lesion(0, pose) if disease else None
        parts = [*mimics.get(pose.level, ()), *([lesion] if lesion else [])]
        if parts:
            changes[pose.level] = Changes(parts)
    low, high = field_of_view(poses, region, (float(rng.uniform(-0.6, 0.9)), float(rng.uniform(-0.4, 0.7))))
    middle = np.mean([pose.center for pose in poses if low <= pose.center[2] <= high], axis=0)
    contrast = Contrast(aorta=180.0, vein=170.0, kidney=200.0, liver=115.0) if condition == "contrast" else Contrast()
    noise = float(rng.uniform(45, 70) if condition == "noisy" else rng.uniform(9, 30))
    scan = ScanSettings(
        center_mm=(float(middle[0]), float(middle[1]) + float(rng.uniform(-20, 15)), (low + high) / 2),
        shape=(round((high - low) / spacing), 192, 192),
        spacing=(spacing, 1.1, 1.1),
        thickness=spacing,
        noise_hu=noise,
        noise_seed=int(rng.integers(2**31)),
        contrast=contrast,
    )
    drawn = render(patient, scan, changes)
    volume = drawn.volume
    truth = [Truth(v.level, v.center_mm, v.visible) for v in drawn.vertebrae]
    whole = {v.level for v in drawn.vertebrae if v.visible > 0.9}
    anchored = bool(in_view(volume, drawn.sacrum_mm))
    if condition == "metal":
        _add_screws(volume, [v for v in poses if v.level in whole][1:4], rng)
    if condition == "turned":
        degrees = [float(rng.uniform(-limit, limit)) for limit in (8.0, 10.0, 20.0)]
        volume, rotation, center = turned(volume, (degrees[0], degrees[1], degrees[2]))
        truth = [replace(t, center_mm=tuple((np.array(t.center_mm) - center) @ rotation.T + center)) for t in truth]
    return volume, truth, anchored


def _add_screws(volume: Volume, poses: Sequence[Pose], rng: np.random.Generator) -> None:
    """Pedicle screws on both sides, 5 mm thick, with streaks from side to side in the rows that they cross."""
    hu = volume.hu_DHW
    across = np.array(np.meshgrid(*[(-2.0, -0.7, 0.7, 2.0)] * 2)).reshape(2, -1).T
    index = []
    for pose in poses:
        size = pose.size
        for side in (-1.0, 1.0):
            start = pose.to_lps(side * (size.canal_width + size.pedicle_width) / 2, size.depth * 0.5 + 22, 2)
            end = pose.to_lps(side * size.width * 0.2, -size.depth * 0.15, 1)
            line = start + np.linspace(0, 1, 120)[:, None] * (end - start)
            index.append(volume.to_index(line[:, None] + across @ pose.axes[[0, 2]]).reshape(-1, 3))
    screws = np.round(np.concatenate(index)).astype(int)
    screws = screws[((screws >= 0) & (screws < hu.shape)).all(axis=1)]
    for d, h in np.unique(screws[:, :2], axis=0):
        hu[d, h] = np.clip(hu[d, h] + rng.normal(-40, 80), -1024, 3071).astype(np.int16)
    hu[tuple(screws.T)] = 3071
