"""A benchmark of methods, hard on purpose: phantom crops with few and faint lesions and many look-alikes.

    OUT/crops   patients to train on, of whose labels NOISE are wrong, and VALIDATION patients with right labels
    OUT/test    patients to measure on, with right labels, also of single slices

Training sets of different sizes are nested: the first patients of the largest. Validation and test patients are the
same for every size, so that choices made on few patients do not hide what a method learns. Bodies, scanners, kernels,
doses and slice spacings are those of the phantom archive. Lesions are smaller and fainter, about three quarters of the
vertebrae are normal, and few are mixed. Seed, part and number determine a patient.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd

from spinemet.config import SliceConfig, StudyConfig, changed
from spinemet.dicom.pseudonym import Pseudonymizer
from spinemet.errors import BadInput
from spinemet.files import join
from spinemet.phantom.archive import in_processes
from spinemet.phantom.body.anatomy import MOBILE, PatientAnatomy, Pose, place_spine
from spinemet.phantom.body.vertebra import BoneChange
from spinemet.phantom.disease.lesions import Disease, Lesion, draw_diseases
from spinemet.phantom.disease.mimics import draw_mimics
from spinemet.phantom.extent import FULL, lesion_volumes, slice_quality
from spinemet.phantom.plan import PHANTOM_KEY, derived_uid, plan_patient
from spinemet.phantom.scan import Changes, PhantomScan, ScanSettings, render
from spinemet.progress import Progress, no_progress
from spinemet.reading import Screened
from spinemet.spine.localize import localize
from spinemet.spine.slices import cut_slices
from spinemet.training.crops import CropsInfo, check_writable, write_manifest
from spinemet.training.labels import COLUMNS, LABEL_CLASSES, consensus
from spinemet.training.preparing import PreparedStudy, store_crops, summarize
from spinemet.types import SeriesHeader, Spine

VALIDATION = 100
"""Patients on whom epoch, temperature and threshold are chosen; about 450 normal vertebrae set the specificity."""
TEST = 1500
"""Patients to measure on, so that intervals are narrower than the differences between methods."""
PARTS = {"train": 0, "validation": 1_000_000, "test": 2_000_000}
"""Part -> the number of its first patient."""
SETS = {"crops": ("train", "validation"), "test": ("test",)}
"""Folder -> the parts that it holds."""
METASTATIC_SHARE = 0.45
"""Of the patients. 0.45 to 1 of their vertebrae are or become diseased: three quarters of all vertebrae are normal."""
NOISE = 0.08
"""Share of wrong labels among the vertebrae to train on; drawn separately for each label column."""
CLASS_SHARES = {"bone_quality": (0.75, 0.115, 0.03, 0.105), "posterolateral": (0.85, 0.09, 0.06)}
"""How often each class occurs, approximately. A wrong label is another class, drawn with these shares: drawn evenly,
every second `mixed` would be a normal vertebra, an error that no reader makes and that leaves nothing to learn."""
SHRINK = (0.6, 1.0)
"""Range of the factor that multiplies a lesion's extent."""
FAINT_HU = {"lytic": (30.0, 95.0), "blastic": (300.0, 720.0)}
"""Range of the foci; the cancellous bone around them has 70 to 300 HU."""
LEVELS = MOBILE[MOBILE.index("T2") :]
LEVELS_SEEN = 6
MATRIX, PIXEL_MM = 144, 1.0
NAMES = Pseudonymizer(PHANTOM_KEY, "exact")

Labels = list[dict[str, str]]
"""Rows of a label table."""


@dataclass(frozen=True)
class Case:
    """One patient of the benchmark, before rendering. truth: one row of the label table per level; given: the same, as
    the benchmark gives them."""

    patient: str
    part: str
    anatomy: PatientAnatomy
    scan: ScanSettings
    changes: Changes
    lesions: Mapping[str, Lesion]
    truth: Labels
    given: Labels


@dataclass(frozen=True, eq=False)
class _Written:
    """The stored crops of one case, and the label table that they were made with."""

    prepared: PreparedStudy
    labels: pd.DataFrame


def write_benchmark(
    uri: str,
    patients: int,
    seed: int,
    slices: SliceConfig,
    *,
    test: int = TEST,
    workers: int = 1,
    progress: Progress = no_progress,
) -> dict[str, CropsInfo]:
    """Write the crops of the benchmark below `uri`: `patients` to train on, VALIDATION, and `test` to measure on.

    Equal arguments give equal crops; `workers` changes nothing, and a larger set begins with the smaller one. Raises
    BadInput for fewer than ten patients to train on or to measure on, or if `uri` cannot be written.
    """
    if min(patients, test) < 10:
        raise BadInput(f"A benchmark needs at least 10 patients in each set, found {min(patients, test)}.")
    counts = {"train": patients, "validation": VALIDATION, "test": test}
    for folder in SETS:
        check_writable(join(uri, folder))
    infos, done, total = {}, 0, sum(counts.values())
    config = StudyConfig(localizer="masks", slices=slices)
    for folder, parts in SETS.items():
        cases = [draw_case(seed, part, number) for part in parts for number in range(counts[part])]
        made: list[PreparedStudy] = []
        tables: list[pd.DataFrame] = []
        rows = 0
        for one in in_processes(partial(_write_case, uri=join(uri, folder), slices=slices), cases, workers):
            moved = {
                name: tuple(row + rows for row in getattr(one.prepared, name)) for name in ("labels", "slice_labels")
            }
            made.append(changed(one.prepared, **moved))
            tables.append(one.labels)
            rows += len(one.labels)
            done += 1
            progress(done, total)
        infos[folder] = summarize(made, pd.concat(tables, ignore_index=True), config, uri, NAMES)
        write_manifest(join(uri, folder), infos[folder])
    return infos


def split_of(patients: int) -> dict[str, str]:
    """Patient's key in `OUT/crops` -> `train` or `validation`, for the training set of so many patients."""
    counts = {"train": patients, "validation": VALIDATION}
    return {
        NAMES.patient_key(patient_name(part, number)): part for part, count in counts.items() for number in range(count)
    }


def patient_name(part: str, number: int) -> str:
    """The PatientID of patient `number` of a part, such as HT-0001."""
    return f"H{'TVX'[list(PARTS).index(part)]}-{number + 1:04d}"


def draw_case(seed: int, part: str, number: int) -> Case:
    """Patient `number` (from 0) of a part of the benchmark of `seed`."""
    unique = PARTS[part] + number
    rng = np.random.default_rng([seed, unique, 5])
    plan = plan_patient(seed, unique, MATRIX)[0]
    anatomy, patient = plan.patient.anatomy, patient_name(part, number)
    first = int(rng.integers(len(LEVELS) - LEVELS_SEEN + 1))
    seen = LEVELS[first : first + LEVELS_SEEN]
    poses = {pose.level: pose for pose in place_spine(anatomy) if pose.level in seen}
    common_kind = "lytic" if rng.random() < 0.5 else "blastic"
    diseases = draw_diseases(rng, LEVELS, 1, bool(rng.random() < METASTATIC_SHARE), common_kind)
    # Twice the benign changes of the archive.
    mimics = [draw_mimics(rng, anatomy, LEVELS) for _ in range(2)]
    changes: dict[str, list[BoneChange]] = {}
    lesions: dict[str, Lesion] = {}
    rows: Labels = []
    for level in seen:
        lesion = _smaller(diseases[level], poses[level], rng) if level in diseases else None
        quality, posterolateral = (lesion.bone_quality, lesion.posterolateral) if lesion else ("normal", "none")
        changes[level] = [one for kind in mimics for one in kind.get(level, ())]
        if lesion:
            changes[level].append(lesion)
            lesions[level] = lesion
        words = {"bone_quality": quality, "posterolateral": posterolateral}
        study = derived_uid(seed, unique, "benchmark")
        rows.append({"patient": patient, "study": study, "level": level, "origin": "phantom", **words})
    given = rows
    if part == "train":
        given = [{**row, **{name: _maybe_wrong(row[name], name, rng) for name in LABEL_CLASSES}} for row in rows]
    scan = _window(plan.scans[0], list(poses.values()))
    return Case(patient, part, anatomy, scan, changes, lesions, rows, given)


def _smaller(disease: Disease, pose: Pose, rng: np.random.Generator) -> Lesion | None:
    (quality, posterolateral, extent), *_ = disease.stages
    stage = (quality, posterolateral, max(extent * float(rng.uniform(*SHRINK)), 0.2))
    lesion = replace(disease, stages=(stage,)).lesion(0, pose)
    if lesion is None:  # the disease has not started yet
        return None
    hu = {kind: float(rng.uniform(*limits)) for kind, limits in FAINT_HU.items()}
    return replace(lesion, foci=tuple(replace(focus, hu=hu[focus.kind]) for focus in lesion.foci))


def _maybe_wrong(label: str, column: str, rng: np.random.Generator) -> str:
    """`label`, or with probability NOISE one of the other classes."""
    classes = LABEL_CLASSES[column]
    odds = np.where(np.array(classes) == label, 0.0, CLASS_SHARES[column])
    wrong = str(rng.choice(classes, p=odds / odds.sum()))
    return wrong if rng.random() < NOISE else label


def _window(scan: ScanSettings, poses: Sequence[Pose]) -> ScanSettings:
    """`scan` narrowed to the vertebrae at `poses`, with the ends of their neighbours."""
    heights = [pose.center[2] for pose in poses]
    room = 0.95 * max(pose.size.height for pose in poses)
    low, high = min(heights) - room, max(heights) + room
    middle = np.mean([pose.center for pose in poses], axis=0)
    depth = max(round((high - low) / scan.spacing[0]), 8)
    return replace(
        scan,
        center_mm=(float(middle[0]), float(middle[1]) + 12.0, (low + high) / 2),
        shape=(depth, MATRIX, MATRIX),
        spacing=(scan.spacing[0], PIXEL_MM, PIXEL_MM),
    )


def _write_case(case: Case, uri: str, slices: SliceConfig) -> _Written:
    reading, of_slices = read_case(case, slices)
    rows = [*case.given, *(of_slices if case.part == "test" else ())]
    labels = consensus(pd.DataFrame(rows, columns=COLUMNS).fillna(""))
    # An empty cell in a row of a slice is no label of that task.
    names = list(LABEL_CLASSES)
    labels[names] = labels[names].where(labels[names] != "", None)
    return _Written(store_crops(reading, labels, uri), labels)


def read_case(case: Case, slices: SliceConfig) -> tuple[Screened, Labels]:
    """The rendered and cut case, in the form in which `study.read_study` gives a study with a segmentation, and one row
    of the label table per slice of its vertebrae."""
    drawn = render(case.anatomy, case.scan, case.changes)
    spine = localize(drawn.volume, drawn.labels, "masks")
    study = case.truth[0]["study"]
    header = SeriesHeader("CT", PatientID=case.patient, StudyInstanceUID=study, SeriesInstanceUID=f"{study}.1")
    reading = Screened(
        chosen=header,
        spacing_mm=drawn.volume.spacing_mm,
        slice_count=drawn.volume.hu_DHW.shape[0],
        spine=spine,
        stacks=cut_slices(drawn.volume, spine, slices),
    )
    poses = {pose.level: pose for pose in place_spine(case.anatomy)}
    rows: Labels = []
    for vertebra, stack in zip(spine.vertebrae, reading.stacks, strict=True):
        words = ["normal"] * len(stack.offsets_mm)
        if lesion := case.lesions.get(stack.level):
            words = _slice_words(drawn, lesion, poses[stack.level], replace(spine, vertebrae=(vertebra,)), slices)
        for word, offset_mm in zip(words, stack.offsets_mm.tolist(), strict=True):
            middle = np.asarray(vertebra.center_mm) + offset_mm * np.asarray(vertebra.axes)[2]
            place = {"patient": case.patient, "study": study, "level": stack.level, "origin": "phantom"}
            rows.append({**place, "slice": f"{middle[2]:.3f}", "bone_quality": word})
    return reading, rows


def _slice_words(drawn: PhantomScan, lesion: Lesion, pose: Pose, only: Spine, slices: SliceConfig) -> list[str]:
    """The bone quality of each slice of the diseased vertebra at `pose`, the only one of `only`.

    Its foci are cut like the image, so that a slice shows of them what it shows of the bone.
    """
    volumes = lesion_volumes(drawn, pose, lesion)
    lytic_N, blastic_N = (
        cut_slices(volumes[kind], only, slices)[0].hu_NHW.clip(0).sum(axis=(1, 2)) * slices.pixel_mm**2 / FULL
        for kind in ("lytic", "blastic")
    )
    return [slice_quality(*areas) for areas in zip(lytic_N.tolist(), blastic_N.tolist(), strict=True)]
