"""A phantom archive: DICOM studies of many patients in a local folder or an S3 prefix, with labels and truth.

    OUT/archive/PH-0001/20190304-1/2_lumbosacral_2mm/1.dcm    most studies are folders,
    OUT/archive/PH-0002/20180611-1.zip                        some are zips
    OUT/labels.csv     one row per labelled vertebra, for training
    OUT/truth.csv      one row per vertebra that is at least partly in view, with everything known about it

Every archive also holds three studies that cannot be used: truncated objects, no axial series, no DICOM at all.
"""

import io
import multiprocessing
import os
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import obstore
import pandas as pd
from obstore.exceptions import BaseError
from obstore.store import ObjectStore

from spinemet.errors import BadInput, plain_cause
from spinemet.files import join, open_store, write_bytes
from spinemet.phantom.body.anatomy import Pose, place_spine
from spinemet.phantom.body.vertebra import BoneChange
from spinemet.phantom.dicom import ct_series, encode, encode_one, localizer_series, secondary_capture, segmentation
from spinemet.phantom.disease.lesions import Lesion
from spinemet.phantom.plan import StudyPlan, plan_patient
from spinemet.phantom.scan import PhantomScan, PhantomVertebra, render_series, trabecular_hu
from spinemet.progress import Progress, no_progress

T = TypeVar("T")
R = TypeVar("R")
Objects = Iterator[tuple[str, bytes]]
"""(name below the study, content) of each object."""
Written = tuple[int, int, list[dict[str, Any]]]
"""Of one study: number of objects, their bytes, and its rows of truth.csv."""

LABELLED_FROM = 0.6
"""A vertebra has a label if at least this share of it is in view; below that, a lesion may not be visible."""

LABEL_COLUMNS = ("patient", "study", "series", "level", "bone_quality", "posterolateral", "origin")


@dataclass(frozen=True)
class ArchiveSummary:
    """The contents of an archive. unusable: studies that must be refused, not counted in `studies`.

    bone_quality: class -> number of labelled vertebrae.
    """

    uri: str
    patients: int
    studies: int
    unusable: int
    objects: int
    size: int
    vertebrae: int
    bone_quality: dict[str, int]


def write_archive(
    uri: str, patients: int, seed: int, *, matrix: int = 256, progress: Progress = no_progress, workers: int = 1
) -> ArchiveSummary:
    """Write the phantom archive of `patients` patients below `uri` (a folder or an s3:// prefix).

    Equal (patients, seed, matrix) give equal bytes with any number of `workers`; a larger archive begins with the
    patients of a smaller one. matrix: rows and columns of a slice. progress: counts studies.
    Raises BadInput if there are no patients, the matrix is too small, or `uri` cannot be written.
    """
    if patients < 1 or not 32 <= matrix <= 1024:
        raise BadInput(f"expected at least 1 patient and a matrix of 32 to 1024, found {patients} and {matrix}.")
    plans = [plan for number in range(patients) for plan in plan_patient(seed, number, matrix)]
    total = len(plans) + 1
    store = open_store(join(uri, "archive"), create=True)
    write, objects, size = partial(_write_study, uri=uri), 0, 0
    rows: list[dict[str, Any]] = []
    for done, (count, written, found) in enumerate(in_processes(write, plans, workers), start=1):
        objects, size, rows = objects + count, size + written, rows + found
        progress(done, total)
    objects += _write_unusable(store, seed, matrix)
    truth = pd.DataFrame(rows)
    labels = truth[truth["labelled"] == 1]
    write_bytes(join(uri, "labels.csv"), labels.to_csv(columns=list(LABEL_COLUMNS), index=False).encode())
    write_bytes(join(uri, "truth.csv"), truth.to_csv(index=False).encode())
    progress(total, total)
    return ArchiveSummary(
        uri=uri,
        patients=patients,
        studies=len(plans),
        unusable=3,
        objects=objects,
        size=size,
        vertebrae=len(rows),
        bone_quality=dict(Counter(labels["bone_quality"])),
    )


def in_processes(work: Callable[[T], R], items: Sequence[T], workers: int) -> Iterator[R]:
    """`work` of each of the `items`, in their order; in other processes if `workers` is above one."""
    if workers <= 1 or len(items) < 3:
        yield from map(work, items)
        return
    # Spawn, not fork: the caller may have threads (Ray, Arrow, obstore), and a fork would copy their locks.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(items)), mp_context=context, initializer=_one_thread) as pool:
        yield from pool.map(work, items)


def _one_thread() -> None:
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")


def _write_study(plan: StudyPlan, uri: str) -> Written:
    anatomy = plan.patient.anatomy
    poses = {pose.level: pose for pose in place_spine(anatomy)}
    lesions = {}
    for place, (level, pose) in enumerate(poses.items()):
        disease = plan.patient.diseases.get(level)
        if lesion := disease.lesion(plan.number, pose) if disease else None:
            lesions[level] = lesion.against(trabecular_hu(anatomy, place))
    changes: dict[str, list[BoneChange]] = {level: list(mimics) for level, mimics in plan.patient.mimics.items()}
    for level, lesion in lesions.items():
        changes.setdefault(level, []).append(lesion)
    scans = render_series(anatomy, plan.scans, changes)
    count, size = _store(open_store(join(uri, "archive")), plan, _study_objects(plan, scans))
    rows = [_row(plan, scans[0], seen, poses[seen.level], lesions.get(seen.level)) for seen in scans[0].vertebrae]
    return count, size, rows


def _study_objects(plan: StudyPlan, scans: Sequence[PhantomScan]) -> Objects:
    for number, image in enumerate(localizer_series(plan, scans[0].volume), start=1):
        yield f"1_topogram/{number}.dcm", encode_one(image)
    for which, scan in enumerate(scans):
        images = ct_series(plan, which, scan.volume)
        folder = f"{which + 2}_{plan.region}_{plan.scans[which].spacing[0]:g}mm"
        if which == 0 and plan.segmented:
            yield "300_segmentation/1.dcm", encode_one(segmentation(plan, images, scan.labels))
        for number, content in enumerate(encode(images, plan.transfer_syntax), start=1):
            yield f"{folder}/{number}.dcm", content


def _store(store: ObjectStore, plan: StudyPlan, objects: Objects) -> tuple[int, int]:
    """Write a study's objects, each by itself or all into one zip; returns their number and bytes."""
    if plan.zipped:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as bundle:
            for name, content in objects:
                bundle.writestr(zipfile.ZipInfo(name, plan.day.timetuple()[:6]), content)
        return len(bundle.infolist()), _put(store, f"{plan.folder}.zip", buffer.getvalue())
    # Threads hide the round trips of an object store while the next object is encoded.
    with ThreadPoolExecutor(8) as threads:
        jobs = [threads.submit(_put, store, f"{plan.folder}/{name}", content) for name, content in objects]
    return len(jobs), sum(job.result() for job in jobs)


def _put(store: ObjectStore, key: str, content: bytes) -> int:
    """Write one object; returns its size."""
    try:
        obstore.put(store, key, content)
    except (BaseError, OSError) as error:
        raise BadInput(f"cannot write the object {key} ({plain_cause(error)}).") from error
    return len(content)


def _row(
    plan: StudyPlan, scan: PhantomScan, vertebra: PhantomVertebra, pose: Pose, lesion: Lesion | None
) -> dict[str, Any]:
    """One row of truth.csv."""
    level = vertebra.level
    stage = plan.patient.diseases[level].stages[plan.number] if lesion else ("normal", "none", 0.0)
    is_labelled = vertebra.visible >= LABELLED_FROM and (lesion is None or _in_view(scan, pose, lesion))
    x, y, z = vertebra.center_mm
    return {
        "patient": plan.patient.patient_id,
        "study": plan.uid("study"),
        "series": plan.uid("series", 2),
        "level": level,
        "bone_quality": stage[0],
        "posterolateral": stage[1],
        "origin": "phantom",
        "key": plan.folder + (".zip" if plan.zipped else ""),
        "study_number": plan.number + 1,
        "side": lesion.side if lesion else "",
        "extent": round(stage[2], 2),
        "mimic": "+".join(mimic.kind for mimic in plan.patient.mimics.get(level, ())),
        "completeness": str(vertebra.completeness),
        "visible": round(vertebra.visible, 3),
        "center_x_mm": round(x, 2),
        "center_y_mm": round(y, 2),
        "center_z_mm": round(z, 2),
        "height_mm": round(vertebra.height_mm, 2),
        "labelled": int(is_labelled),
        "age": plan.age,
        "sex": plan.patient.anatomy.sex,
        "region": plan.region,
        "spacing_mm": plan.scans[0].spacing[0],
        "kernel": plan.kernels[0],
        "contrast": int(bool(plan.contrast_agent)),
        "transfer_syntax": plan.transfer_syntax,
        "segmented": int(plan.segmented),
    }


def _in_view(scan: PhantomScan, pose: Pose, lesion: Lesion) -> bool:
    """Whether the middle of every focus lies between the first and the last slice."""
    heights = [float(pose.to_lps(*focus.center_mm)[2]) for focus in lesion.foci]
    bottom, top = scan.volume.to_lps([[0, 0, 0], [scan.volume.hu_DHW.shape[0] - 1, 0, 0]])[:, 2]
    return bool(min(heights) >= bottom and max(heights) <= top)


def _small(plan: StudyPlan) -> StudyPlan:
    """The same study with only 24 slices of its first series, in a folder."""
    scan = plan.scans[0]
    return replace(plan, scans=(replace(scan, shape=(24, *scan.shape[1:])),), zipped=False)


def _write_unusable(store: ObjectStore, seed: int, matrix: int) -> int:
    """Write three studies that cannot be used, each for another reason; returns the number of objects."""
    small, other = (_small(plan_patient(seed, number, min(matrix, 64))[0]) for number in (9001, 9002))
    scan = render_series(small.patient.anatomy, small.scans)[0]
    truncated = [
        content[: len(content) * 6 // 10] for content in encode(ct_series(small, 0, scan.volume), small.transfer_syntax)
    ]
    views = [*localizer_series(other, scan.volume), secondary_capture(other)]
    objects = {
        **{f"PH-9001/truncated/2_axial/{n}.dcm": content for n, content in enumerate(truncated, start=1)},
        **{f"PH-9002/views/1_topogram/{n}.dcm": encode_one(view) for n, view in enumerate(views, start=1)},
        "PH-9003/letters/1/report.pdf": b"%PDF-1.4\n% a letter, not an image\n",
        "PH-9003/letters/1/empty.dcm": b"",
    }
    for key, content in objects.items():
        _put(store, key, content)
    return len(objects)
