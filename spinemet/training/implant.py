"""Lesions put into the vertebrae of real normal studies: labelled training data out of a site's own archive.

The lesions are those of the phantoms (phantom/disease); the bone, the blur and the noise are the scanner's. Some normal
vertebrae get a sham implant, drawn the same way with bone instead of disease, so that no network learns the seam.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage

from spinemet.anatomy import is_named
from spinemet.archive.listing import list_studies
from spinemet.config import StudyConfig
from spinemet.dicom.volume import write_nifti
from spinemet.errors import BadInput, StudyProblem
from spinemet.phantom.body.anatomy import SIZES, Pose
from spinemet.phantom.body.vertebra import BoneChange, BonePatch
from spinemet.phantom.disease.lesions import Disease, Focus, Lesion, build_lesion, draw_diseases, focus_distance
from spinemet.phantom.shapes import blend, cover, noise_tile, tiled_at
from spinemet.progress import Progress, no_progress
from spinemet.reading import Screened
from spinemet.spine.geometric import geometric_spine
from spinemet.spine.ring import Tissue, tissue_levels
from spinemet.study import read_study, read_volume_of
from spinemet.types import AIR_HU, Array, Array32, BoolArray, Completeness, Spine, StudyRef, Vertebra, Volume

_METASTATIC = 0.75
"""Share of the studies made that have lesions; in them, about half of the vertebrae stay normal."""
_SHAM = 0.4
"""Share of the normal vertebrae with a sham implant: as many as have a lesion, about."""
_AROUND_MM = (55.0, 70.0, 32.0)
"""Half size of the box about a body that holds the whole vertebra and its lesions: left, posterior, superior."""
_BONE = 0.3
"""Boneness from which a voxel belongs to the cortex or the arch; a body's inside counts as bone whatever its HU."""
_BLUR_MM = 0.7
"""Standard deviation of the blur of an implant, as of a standard kernel."""
_NOISE_MM = 1.2
"""Detail finer than about twice this length within a slice counts as noise."""
_SOFT_HU = 60.0
"""Voxels of soft tissue, whose noise an implant gets, differ from its HU by less."""
_SMOOTH_MM = 2.5
"""A sham implant is the vertebra's own bone, smoothed over this length."""
_CONTRAST_HU = {"lytic": -40.0, "blastic": 150.0}
"""A lesion differs by at least so much from the bone that it lies in. A lytic one has no less than _LEAST_HU."""
_LEAST_HU = 5.0
_SEEN_HU, _SEEN_CM3 = 50.0, 0.25
"""A lesion that changes less than this volume (a ball of 8 mm) by so much cannot be seen: it is not put in."""
_NEAR_MM = 8.0
"""After implanting, every body must be found again within this distance, with the same name."""
_TRIES = 3


@dataclass(frozen=True)
class Label:
    """What was put into a vertebra. sham: normal, but drawn anew in part. extent: 0.2 (8 mm) to 1 (the whole body).
    volume_cm3: of the voxels that a lesion changes by 50 HU or more."""

    level: str
    bone_quality: str = "normal"
    posterolateral: str = "none"
    side: str = ""
    extent: float = 0.0
    volume_cm3: float = 0.0
    sham: bool = False


@dataclass
class Summary:
    """What was written, and what was left out and why, as counts."""

    out: str
    patients: int = 0
    studies: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        found = ", ".join(f"{count} {name}" for name, count in sorted(self.labels.items()))
        lines = [f"wrote {self.out}: {self.studies} studies of {self.patients} patients; {found}"]
        return "\n".join(lines + [f"left out: {what}: {count}" for what, count in sorted(self.left_out.items())])


def write_implants(
    archive: str,
    out: Path,
    seed: int,
    *,
    patients: int | None = None,
    studies: int = 1,
    progress: Progress = no_progress,
) -> Summary:
    """Write OUT/archive (NIfTI, in BIDS names), OUT/labels.csv and OUT/truth.csv from the normal studies of `archive`.

    Each study that can be read gives `studies` studies with lesions of their own; all studies of a patient belong to
    one patient of the new archive, named by its number. patients: at most so many of them. Equal arguments give equal
    voxels. Raises BadInput if the archive cannot be listed, no study can be used, or `out` exists or cannot be written.
    """
    if out.exists():
        raise BadInput(f"expected a new folder, but {out} exists; choose another.")
    refs = list(list_studies(archive))
    summary, people, rows = Summary(str(out)), list[str](), list[dict[str, object]]()
    for done, ref in enumerate(refs, start=1):
        for name, labels, volume in _studies_of(ref, seed, people, patients, studies, summary):
            patient, session = name.split("_")
            folder = out / "archive" / patient / session
            folder.mkdir(parents=True)
            write_nifti(volume, folder / f"{name}_ct.nii.gz")
            rows += [{"patient": patient, "study": f"{name}_ct", **vars(label)} for label in labels]
            summary.studies += 1
            summary.labels.update(label.bone_quality for label in labels)
        progress(done, len(refs))
    if not rows:
        reasons = "; ".join(f"{what}: {count}" for what, count in sorted(summary.left_out.items()))
        raise BadInput(f"no study of {archive} can be used ({reasons or 'it is empty'}).")
    table = pd.DataFrame(rows)
    table.to_csv(out / "truth.csv", index=False)
    table[["patient", "study", "level", "bone_quality", "posterolateral"]].to_csv(out / "labels.csv", index=False)
    summary.patients = table["patient"].nunique()
    return summary


def _studies_of(
    ref: StudyRef,
    seed: int,
    people: list[str],
    patients: int | None,
    studies: int,
    summary: Summary,
) -> Iterator[tuple[str, list[Label], Volume]]:
    """Name, labels and volume of each study made of `ref`. people: the patient of each study drawn so far; extended."""
    reading = read_study(ref, StudyConfig())
    if not isinstance(reading, Screened):
        summary.left_out[f"studies that cannot be used ({reading.reason})"] += 1
        return
    if not any(map(_usable, reading.spine.vertebrae)):
        summary.left_out["studies without a named whole vertebra"] += 1
        return
    patient, known = reading.chosen.PatientID or f"{ref.archive}/{ref.key}", list(dict.fromkeys(people))
    if patient not in known and len(known) == patients:
        summary.left_out["studies of further patients"] += 1
        return
    number = [*known, patient].index(patient) + 1
    volume = read_volume_of(ref, StudyConfig())
    for _ in range(studies):
        people.append(patient)
        session = people.count(patient)
        for attempt in range(_TRIES):
            made, labels = implanted(volume, reading.spine, np.random.default_rng([seed, number, session, attempt]))
            if _same_names(made, reading.spine):
                yield f"sub-{number:04d}_ses-{session:02d}", labels, made
                break
        else:
            summary.left_out["studies in which the lesions hide vertebrae"] += 1


def implanted(volume: Volume, spine: Spine, rng: np.random.Generator) -> tuple[Volume, list[Label]]:
    """`volume` with lesions in some of its named whole vertebrae, and the labels of all of these."""
    vertebrae = [vertebra for vertebra in spine.vertebrae if _usable(vertebra)]
    levels = tuple(vertebra.level for vertebra in vertebrae)
    usual = str(rng.choice(["lytic", "blastic", "mixed"]))
    diseases: dict[str, Disease] = draw_diseases(rng, levels, 1, bool(rng.random() < _METASTATIC), usual)
    hu, tissue = volume.hu_DHW.astype(np.float32), tissue_levels(volume.hu_DHW)
    labels = []
    for vertebra in vertebrae:
        pose, disease = _pose(vertebra), diseases.get(vertebra.level)
        lesion = disease.lesion(0, pose) if disease else None
        seen = _put(hu, volume, tissue, pose, lesion, rng) if lesion else 0.0
        if disease and lesion and seen:
            extent = round(disease.stages[0][2], 2)
            label = Label(vertebra.level, lesion.bone_quality, lesion.posterolateral, lesion.side, extent, seen)
        else:
            label = Label(vertebra.level, sham=bool(rng.random() < _SHAM))
            if label.sham:
                _put(hu, volume, tissue, pose, None, rng)
        labels.append(label)
    stored = np.clip(np.rint(hu), AIR_HU, 3071).astype(np.int16)
    untouched = np.rint(hu) == np.rint(volume.hu_DHW)  # metal above 3071 HU keeps its values
    return replace(volume, hu_DHW=np.where(untouched, volume.hu_DHW, stored)), labels


def _usable(vertebra: Vertebra) -> bool:
    return is_named(vertebra.level) and vertebra.level in SIZES and vertebra.completeness is Completeness.WHOLE


def _pose(vertebra: Vertebra) -> Pose:
    """The vertebra as the lesions see it: the usual measures of its level, scaled to its height."""
    size = SIZES[vertebra.level]
    return Pose(
        vertebra.level,
        size.scaled(vertebra.height_mm / size.height),
        np.array(vertebra.center_mm),
        np.asarray(vertebra.axes, np.float64),
    )


def _same_names(made: Volume, spine: Spine) -> bool:
    """Whether the localizer finds the usable vertebrae of `spine` in `made` at their places with their names."""
    try:
        found = {vertebra.level: np.array(vertebra.center_mm) for vertebra in geometric_spine(made).vertebrae}
    except StudyProblem:
        return False
    expected = [vertebra for vertebra in spine.vertebrae if _usable(vertebra)]
    return all(one.level in found and np.linalg.norm(found[one.level] - one.center_mm) <= _NEAR_MM for one in expected)


def _put(
    hu_DHW: Array32, volume: Volume, tissue: Tissue, pose: Pose, lesion: Lesion | None, rng: np.random.Generator
) -> float:
    """Change `hu_DHW` in place where the vertebra at `pose` has the lesion; None: a sham one.

    Gives the volume in which the lesion can be seen, in cm3; 0 if that is too small, and then nothing is changed.
    """
    box, local = _box(volume, pose)
    hu = hu_DHW[box].copy()
    spacing = np.array(volume.spacing_mm)
    smooth = ndimage.gaussian_filter(hu, _SMOOTH_MM / spacing).ravel()
    put = _sham(pose, smooth, rng) if lesion is None else _with_contrast(lesion, pose, smooth, local)
    bone = _distance(_is_bone(hu, tissue, pose, local, spacing), spacing)
    tile = noise_tile(int(rng.integers(2**31)), 0.7)
    texture = tiled_at(tile, tuple(np.indices(hu.shape).reshape(3, -1)))
    drawn, raised = (
        _drawn(BonePatch(pose, local[0], local[1], local[2], bone.copy(), bone, texture, beneath.copy()), beneath, put)
        for beneath in (hu.ravel(), hu.ravel() + np.float32(1))
    )
    # One HU more beneath: what does not come through is replaced.
    replaced = np.clip(1 - (raised - drawn), 0, 1).reshape(hu.shape)
    blur = np.array([0.3 * spacing[0], _BLUR_MM, _BLUR_MM]) / spacing
    change = ndimage.gaussian_filter(drawn.reshape(hu.shape) - hu, blur)
    seen = round(float((np.abs(change) > _SEEN_HU).sum() * spacing.prod() / 1000), 2)
    if lesion and seen < _SEEN_CM3:
        return 0.0
    hu_DHW[box] += change + ndimage.gaussian_filter(replaced, blur) * _noise(hu, replaced, tissue, spacing)
    return seen


def _with_contrast(lesion: Lesion, pose: Pose, smooth: Array32, local: Array32) -> Lesion:
    """`lesion` with foci that differ from the cancellous bone of this vertebra."""
    half = np.array([pose.size.width, pose.size.depth, pose.size.height]) / 2
    bone_hu = float(np.median(smooth[np.linalg.norm(local / half[:, None], axis=0) < 0.7]))
    lytic_hu, blastic_hu = bone_hu + _CONTRAST_HU["lytic"], bone_hu + _CONTRAST_HU["blastic"]

    def adapted(focus: Focus) -> float:
        return max(min(focus.hu, lytic_hu), _LEAST_HU) if focus.kind == "lytic" else max(focus.hu, blastic_hu)

    return replace(lesion, foci=tuple(replace(focus, hu=adapted(focus)) for focus in lesion.foci))


def _box(volume: Volume, pose: Pose) -> tuple[tuple[slice, ...], Array32]:
    """The voxels about the vertebra: slices along D, H, W, and (3, n) their left, posterior and superior mm."""
    signs = np.stack(np.meshgrid(*[(-1.0, 1.0)] * 3), axis=-1).reshape(-1, 3)
    corners = volume.to_index(pose.center + (signs * _AROUND_MM) @ pose.axes)
    low = np.maximum(np.floor(corners.min(axis=0)).astype(int), 0)
    high = np.minimum(np.ceil(corners.max(axis=0)).astype(int) + 1, volume.hu_DHW.shape)
    index = np.stack(np.meshgrid(*map(np.arange, low, high), indexing="ij"), axis=-1).reshape(-1, 3)
    local = (volume.to_lps(index) - pose.center) @ pose.axes.T
    return tuple(map(slice, low, high)), np.ascontiguousarray(local.T, np.float32)


def _is_bone(hu: Array32, tissue: Tissue, pose: Pose, local: Array32, spacing: Array) -> BoolArray:
    """The voxels of the vertebra: dense ones, and the inside of the body, which may be as dark as muscle."""
    x, y, z = (axis.reshape(hu.shape) for axis in local)
    size = pose.size
    dense = tissue.boneness(ndimage.gaussian_filter(hu, 0.6 / spacing)) > _BONE
    body = np.hypot(x / (0.45 * size.width), y / (0.45 * size.depth)) < 1
    body &= np.abs(z) < 0.47 * size.height
    return np.asarray((dense & (np.abs(z) < size.height / 2 + size.disc)) | body)


def _distance(solid: BoolArray, spacing: Array) -> Array32:
    """(n,) signed distance to the surface of `solid`, mm, negative inside."""
    outside, inside = (ndimage.distance_transform_edt(part, sampling=spacing) for part in (~solid, solid))
    return np.asarray(np.where(solid, 0.5 - inside, outside - 0.5), np.float32).ravel()


def _drawn(patch: BonePatch, beneath: Array32, change: BoneChange) -> Array32:
    """(n,) HU of `patch` after `change`, over the HU `beneath` where there is no bone."""
    before = patch.bone.copy()
    change(patch)
    drawn = beneath.copy()
    # Bone that nothing changed lies in `beneath` already.
    blend(drawn, patch.hu, np.where(patch.bone < before, cover(patch.bone, 1.0), cover(before, 1.0)))
    return drawn


def _sham(pose: Pose, smooth: Array32, rng: np.random.Generator) -> BoneChange:
    """The places of a lytic lesion, filled with the vertebra's own bone."""
    lesion = build_lesion(
        pose, "lytic", "none", "left", float(rng.choice([0.28, 0.45, 0.65])), int(rng.integers(2**31))
    )

    def change(patch: BonePatch) -> None:
        for focus in lesion.foci:
            blend(patch.hu, smooth, cover(focus_distance(patch, focus), focus.fuzz))

    return change


def _noise(hu: Array32, replaced: Array32, tissue: Tissue, spacing: Array) -> Array32:
    """The noise of `hu`, reduced to that of soft tissue: bone's own structure passes for noise otherwise."""
    fine = hu - ndimage.gaussian_filter(hu, np.array([0.0, _NOISE_MM, _NOISE_MM]) / spacing)
    smooth = hu - fine
    soft, new = fine[np.abs(smooth - tissue.soft) < _SOFT_HU], fine[replaced > 0.5]
    if len(soft) < 100 or len(new) < 100:
        return np.zeros_like(hu)
    spread, spread_new = (float(np.median(np.abs(part))) for part in (soft, new))
    return np.asarray(fine * min(1.0, spread / max(spread_new, 1e-3)), np.float32)
