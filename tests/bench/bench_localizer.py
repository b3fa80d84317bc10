"""The geometric localizer: which vertebrae it finds and how it names them, on real CT and on difficult phantoms."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context

import numpy as np

from spinemet.anatomy import LEVEL_INDEX, LEVELS, is_named
from spinemet.archive.listing import study_at
from spinemet.config import SelectConfig, StudyConfig
from spinemet.dicom.segmentation import labels_from_nifti
from spinemet.dicom.volume import nifti_grid
from spinemet.errors import StudyExcluded
from spinemet.spine.geometric import geometric_spine
from spinemet.spine.masks import spine_from_labels
from spinemet.study import read_volume_of
from spinemet.types import Completeness, Flag, LabelMap, Volume
from tests.bench.figures import Figures, Missing
from tests.bench.localizer_phantoms import (
    CONDITIONS,
    LONE_NECKS,
    NECKS,
    SPACINGS_MM,
    Case,
    Truth,
    condition_of,
    neck_phantom,
    phantom,
    variant_phantom,
)
from tests.bench.real_spines import SETTING, real_spines
from tests.conftest import REALCT
from tests.spine.conftest import body_centers, read
from tests.spine.test_geometric import CHEST_MM

PHANTOMS, UNUSUAL = 54, 24
WORKERS = 2
NEAR_MM, NEAR_BY_EYE_MM = 10.0, 8.0
TO_BE_FOUND = 1 / 3
"""Share of a body's height in view. A body with less counts neither as missed nor as spurious."""


@dataclass
class Score:
    """Counts and errors of one study, or the sum of several."""

    expected: int = 0
    found: int = 0
    listed: int = 0
    spurious: int = 0
    named: int = 0
    named_right: int = 0
    two_anchors: int = 0
    flagged: int = 0
    anchored: int = 0
    anchored_named: int = 0
    errors_mm: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """Bodies named wrongly (`T1 for C7`), and cut ones called whole or the reverse (`T6 whole`)."""

    def __add__(self, other: Score) -> Score:
        return Score(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


def run() -> Figures:
    """Score real studies, phantoms and necks. Seconds are of one core."""
    figures = Figures(
        f"Geometric localizer: vertebrae found within {NEAR_MM:g} mm of the truth",
        ("study", "there", "found", "spurious", "precision", "median mm", "p95 mm", "named", "names right", "CPU s"),
        f"Phantoms: {PHANTOMS} over {', '.join(CONDITIONS)}; slices of {min(SPACINGS_MM)} to {max(SPACINGS_MM)} mm;"
        f" {UNUSUAL} of patients with another number of vertebrae or ribs; and {len(NECKS)} necks. Named: share of"
        " the vertebrae of studies with an anchor in view (skull base, sacrum, last rib, first rib). Ten more patients:"
        f" bodies within {NEAR_BY_EYE_MM:g} mm of places read by eye; parameters were set on five of them (set on).",
    )
    if not REALCT.is_dir():
        raise Missing("real CT is not on this machine")
    for name, case in real_cases():
        _add(figures, name, score(case))
    for name, volume in without_spine():
        _add(figures, name, score(Case(volume, ())))
    for name, case in real_spines():
        one = score(case, NEAR_BY_EYE_MM)
        _add(figures, f"{name}, {'set on' if name in SETTING else 'left out'}", one)
        faults = [*(f"{level} missed" for level in one.missed), *one.wrong]
        figures.note += f" {name}: {', '.join(faults)}." if faults else ""
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool:
        scores = list(pool.map(phantom_score, range(PHANTOMS)))
        unusual = list(pool.map(variant_score, range(UNUSUAL)))
        necks = list(pool.map(neck_score, range(len(NECKS))))
    for condition in CONDITIONS:
        part = [scores[n] for n in range(PHANTOMS) if condition_of(n) == condition]
        _add(figures, f"phantoms, {condition}", sum(part, Score()))
    _add(figures, "phantoms, all", sum(scores, Score()))
    _add(figures, "phantoms, one anchor, unusual count", sum((s for s in unusual if not s.two_anchors), Score()))
    both = sum((s for s in unusual if s.two_anchors), Score())
    _add(figures, "phantoms, two anchors, unusual count", both)
    _add(figures, "phantoms, neck with the skull base", sum(necks[:-LONE_NECKS], Score()))
    _add(figures, "phantoms, C3 to C6 alone", sum(necks[-LONE_NECKS:], Score()))
    usual = sum(scores, Score())
    figures.note += (
        f" Flagged transitional: {both.flagged} of {both.two_anchors} unusual ones with two anchors in view,"
        f" {usual.flagged} of {PHANTOMS} usual ones."
    )
    return figures


def _add(figures: Figures, name: str, s: Score) -> None:
    named = s.anchored_named / s.anchored if s.anchored else "-"
    right = s.named_right / s.named if s.named else "-"
    middle, far = (float(e) for e in np.percentile(s.errors_mm, (50, 95))) if s.errors_mm else ("-", "-")
    found = s.found / s.expected if s.expected else "-"
    precision = 1 - s.spurious / s.listed if s.listed else "-"
    figures.add(name, s.expected, found, s.spurious, precision, middle, far, named, right, float(np.median(s.seconds)))


def score(case: Case, near_mm: float = NEAR_MM) -> Score:
    """Compare `geometric_spine` with the truth of one study. A body counts as found within `near_mm` of its place."""
    truth, anchored = case.truth, bool(case.anchors)
    start = time.process_time()
    try:
        spine = geometric_spine(case.volume)
        vertebrae, flagged = spine.vertebrae, Flag.TRANSITIONAL in spine.flags
    except StudyExcluded:
        vertebrae, flagged = (), False
    result = Score(listed=len(vertebrae), seconds=[time.process_time() - start])
    result.two_anchors, result.flagged = int(len(case.anchors) > 1), int(flagged)
    places = np.array([v.center_mm for v in vertebrae]).reshape(-1, 3)
    centers = np.array([t.center_mm for t in truth]).reshape(-1, 3)
    distance = np.linalg.norm(places[:, None] - centers[None], axis=2)
    taken = set()
    for n, one in enumerate(truth):
        due = one.visible >= TO_BE_FOUND
        result.expected += due
        result.anchored += due and anchored
        best = int(distance[:, n].argmin()) if vertebrae else -1
        if best < 0 or distance[best, n] > near_mm or distance[best].argmin() != n:
            result.missed += [_called(one)] if due else []
            continue
        taken.add(best)
        if not due:
            continue
        result.found += 1
        result.errors_mm.append(float(distance[best, n]))
        level, completeness = vertebrae[best].level, vertebrae[best].completeness
        if (completeness is Completeness.CUT) != (one.visible < 1):
            result.wrong.append(f"{_called(one)} {completeness}")
        if is_named(level) and one.level and level != one.level:
            result.wrong.append(f"{level} for {one.level}")
        if is_named(level) and one.level:
            result.named += 1
            result.named_right += level == one.level
            result.anchored_named += anchored
    result.spurious = len(vertebrae) - len(taken)
    return result


def _called(one: Truth) -> str:
    return one.level or f"body at {one.center_mm[2]:.0f}"


# ---- real CT -------------------------------------------------------------------------------------------------


def real_cases() -> Iterator[tuple[str, Case]]:
    """Each real study with the centres of the bodies that are in view, and the anchors."""
    levels = ("C6", "C7", *(f"T{n}" for n in range(1, 13)))
    places = [(float(x), float(y), float(z)) for x, y, z in CHEST_MM]
    truth = [Truth(level, place, 0.0 if level == "C6" else 1.0) for level, place in zip(levels, places, strict=True)]
    yield "LIDC, chest", Case(read(REALCT / "lidc-0314" / "series.tar.xz"), truth, ("first rib",))
    folder = REALCT / "totalsegmentator"
    abdomen = read(folder / "example_ct.nii.gz")
    labels = labels_from_nifti((folder / "totalseg_vertebrae_pp_refined.nii.gz").read_bytes(), abdomen)
    yield "TotalSegmentator, abdomen", Case(abdomen, _labelled(labels, body_centers(labels)), ("sacrum", "last rib"))
    few = read(folder / "example_ct_dicom")
    labels = labels_from_nifti((folder / "example_seg_dicom.nii.gz").read_bytes(), few)
    spine = spine_from_labels(few, labels)
    centers = {1 + LEVEL_INDEX[v.level]: np.array(v.center_mm) for v in spine.vertebrae}
    yield "TotalSegmentator, 20 slices", Case(few, _labelled(labels, centers, slight=("T11",)))
    folder = REALCT / "tptbox"
    patch = read(folder / "sub-ct_label-22_ct.nii.gz")
    labels = labels_from_nifti((folder / "sub-ct_seg-vert_label-22_msk.nii.gz").read_bytes(), patch)
    parts, *_ = nifti_grid((folder / "sub-ct_seg-subreg_label-22_msk.nii.gz").read_bytes())
    yield "TPTBox, patch", Case(patch, _labelled(labels, body_centers(labels, np.isin(parts, (49, 50)))))


def without_spine() -> Iterator[tuple[str, Volume]]:
    """Parts of real studies that show no vertebra, or only C1 and C2, which the localizer does not look for."""
    abdomen = read(REALCT / "totalsegmentator" / "example_ct.nii.gz")
    for side in (1, -1):
        yield f"hip, {'left' if side > 0 else 'right'}", _beside(abdomen, side)
    short = SelectConfig(min_slices=3, min_coverage_mm=1.0, max_spacing_mm=20.0, skip_body_parts=())
    for folder in ("GE", "Philips/S21610"):
        place = REALCT / "conformance" / "gantry-tilt" / "In" / folder
        yield f"head, {folder.split('/')[0]}", read_volume_of(study_at(place), StudyConfig(select=short))
    chest = read(REALCT / "lidc-0314" / "series.tar.xz")
    yield "lung, left", _beside(chest, 1)


def _labelled(labels: LabelMap, centers: dict[int, np.ndarray], slight: Sequence[str] = ()) -> list[Truth]:
    levels = {number: LEVELS[number - 1] for number in sorted(centers)}
    places = {number: (float(c[0]), float(c[1]), float(c[2])) for number, c in centers.items()}
    return [Truth(level, places[n], 0.0 if level in slight else 1.0) for n, level in levels.items()]


def _beside(volume: Volume, side: int) -> Volume:
    """The part of the volume more than 60 mm to the patient's left (1) or right (-1) of its middle."""
    axis = int(np.argmax(np.abs(volume.affine[0, :3])))
    size, step = volume.hu_DHW.shape[axis], float(volume.affine[0, axis])
    edge = round(60 / abs(step))
    part = slice(size // 2 + edge, size) if side * step > 0 else slice(0, size // 2 - edge)
    index = [slice(None)] * 3
    index[axis] = part
    affine = volume.affine.copy()
    affine[:3, 3] += part.start * affine[:3, axis]
    return Volume(np.ascontiguousarray(volume.hu_DHW[tuple(index)]), affine)


def phantom_score(number: int) -> Score:
    """Render phantom `number` and score it. Runs in a process of its own."""
    return score(phantom(number))


def variant_score(number: int) -> Score:
    """The same for one with another number of vertebrae or ribs."""
    return score(variant_phantom(number))


def neck_score(number: int) -> Score:
    """The same for one of the necks."""
    return score(neck_phantom(number))
