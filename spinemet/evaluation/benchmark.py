"""A benchmark that is hard on purpose: phantom crops with few lesions, many look-alikes and wrong training labels.

    OUT/crops   the set to train and select on: NOISE of its vertebrae have a wrong class
    OUT/truth   the same slices with the true labels, to measure the calls on patients kept for testing

Bodies, scanners, kernels, doses and slice spacings are those of the phantom archive. Lesions are smaller and fainter,
about three quarters of the vertebrae are normal, and few are mixed. Seed and number determine a patient.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd

from spinemet.config import SliceConfig, StudyConfig
from spinemet.errors import BadInput
from spinemet.files import join
from spinemet.phantom.archive import in_processes
from spinemet.phantom.body.anatomy import MOBILE, PatientAnatomy, Pose, place_spine
from spinemet.phantom.body.vertebra import BoneChange
from spinemet.phantom.disease.lesions import Disease, Lesion, draw_diseases
from spinemet.phantom.disease.mimics import draw_mimics
from spinemet.phantom.plan import derived_uid, plan_patient
from spinemet.phantom.scan import Changes, ScanSettings, render
from spinemet.progress import Progress, no_progress
from spinemet.reading import Screened
from spinemet.spine.localize import localize
from spinemet.spine.slices import cut_slices
from spinemet.training.crops import CropsInfo, check_writable, write_manifest
from spinemet.training.labels import COLUMNS, LABEL_CLASSES, consensus
from spinemet.training.preparing import PreparedStudy, store_crops, summarize
from spinemet.types import SeriesHeader

METASTATIC_SHARE = 0.45
"""Of the patients. 0.45 to 1 of their vertebrae are or become diseased: three quarters of all vertebrae are normal."""
NOISE = 0.08
"""Share of wrong labels among the vertebrae to learn from; drawn separately for each label column."""
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

SETS = ("crops", "truth")

Prepared = dict[str, PreparedStudy]


@dataclass(frozen=True)
class Case:
    """One patient of the benchmark, before rendering. labels: set -> one row of the label table per level."""

    patient: str
    anatomy: PatientAnatomy
    scan: ScanSettings
    changes: Changes
    labels: Mapping[str, Sequence[Mapping[str, str]]]


def write_benchmark(
    uri: str, patients: int, seed: int, slices: SliceConfig, *, workers: int = 1, progress: Progress = no_progress
) -> dict[str, CropsInfo]:
    """Write the benchmark's two sets of crops below `uri`. Equal arguments give equal sets; `workers` changes nothing.

    Raises BadInput for fewer than ten patients, or if `uri` cannot be written.
    """
    if patients < 10:
        raise BadInput(f"A benchmark needs at least 10 patients, found {patients}.")
    cases = [draw_case(seed, number) for number in range(patients)]
    labels = {
        name: consensus(pd.DataFrame([row for case in cases for row in case.labels[name]], columns=COLUMNS).fillna(""))
        for name in SETS
    }
    for name in SETS:
        check_writable(join(uri, name))
    made: list[Prepared] = []
    for one in in_processes(partial(_write_case, uri=uri, labels=labels, slices=slices), cases, workers):
        made.append(one)
        progress(len(made), patients)
    config = StudyConfig(localizer="masks", slices=slices)
    infos = {name: summarize([one[name] for one in made], labels[name], config, uri) for name in SETS}
    for name, info in infos.items():
        write_manifest(join(uri, name), info)
    return infos


def draw_case(seed: int, number: int) -> Case:
    """Patient `number` of the benchmark of `seed`."""
    rng = np.random.default_rng([seed, number, 5])
    plan = plan_patient(seed, number, MATRIX)[0]
    anatomy, patient = plan.patient.anatomy, f"HP-{number + 1:04d}"
    first = int(rng.integers(len(LEVELS) - LEVELS_SEEN + 1))
    seen = LEVELS[first : first + LEVELS_SEEN]
    poses = {pose.level: pose for pose in place_spine(anatomy) if pose.level in seen}
    common_kind = "lytic" if rng.random() < 0.5 else "blastic"
    diseases = draw_diseases(rng, LEVELS, 1, bool(rng.random() < METASTATIC_SHARE), common_kind)
    # Twice the benign changes of the archive.
    mimics = [draw_mimics(rng, anatomy, LEVELS) for _ in range(2)]
    changes: dict[str, list[BoneChange]] = {}
    rows = []
    for level in seen:
        lesion = _smaller(diseases[level], poses[level], rng) if level in diseases else None
        quality, posterolateral = (lesion.bone_quality, lesion.posterolateral) if lesion else ("normal", "none")
        changes[level] = [*(one for kind in mimics for one in kind.get(level, ())), *([lesion] if lesion else [])]
        words = {"bone_quality": quality, "posterolateral": posterolateral, "origin": "phantom"}
        rows.append({"patient": patient, "study": derived_uid(seed, number, "benchmark"), "level": level, **words})
    noisy = [{**row, **{name: _maybe_wrong(row[name], name, rng) for name in LABEL_CLASSES}} for row in rows]
    return Case(
        patient, anatomy, _window(plan.scans[0], list(poses.values())), changes, {"crops": noisy, "truth": rows}
    )


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


def _write_case(case: Case, uri: str, labels: Mapping[str, pd.DataFrame], slices: SliceConfig) -> Prepared:
    reading = read_case(case, slices)
    return {name: store_crops(reading, table, join(uri, name)) for name, table in labels.items()}


def read_case(case: Case, slices: SliceConfig) -> Screened:
    """The rendered and cut case, in the form in which `study.read_study` gives a study with a segmentation."""
    drawn = render(case.anatomy, case.scan, case.changes)
    spine = localize(drawn.volume, drawn.labels, "masks")
    study = case.labels["truth"][0]["study"]
    header = SeriesHeader("CT", PatientID=case.patient, StudyInstanceUID=study, SeriesInstanceUID=f"{study}.1")
    stacks = cut_slices(drawn.volume, spine, slices)
    return Screened(
        chosen=header,
        spacing_mm=drawn.volume.spacing_mm,
        slice_count=drawn.volume.hu_DHW.shape[0],
        spine=spine,
        stacks=stacks,
    )
