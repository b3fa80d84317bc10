"""Calls on real bone: models trained on implants in half of the real patients, tried on the other half.

The patients are those of ../shared/realct, all without metastases. What is right is known: their own vertebrae are
normal, and lesions are implanted where the truth says. Phantoms are the same for both halves.
"""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter

from spinemet.anatomy import is_named
from spinemet.archive.listing import list_studies
from spinemet.config import StudyConfig
from spinemet.evaluation.benchmark import NAMES, Labels, draw_case, read_case
from spinemet.model.predictor import Predictor
from spinemet.phantom.body.anatomy import PatientAnatomy
from spinemet.reading import Screened, VertebraCall
from spinemet.spine.ring import tissue_levels
from spinemet.spine.slices import cut_slices
from spinemet.study import read_study, read_volume_of
from spinemet.training.crops import read_crops, write_manifest
from spinemet.training.dataset import training_data
from spinemet.training.implanting import Label, implanted, slice_labels, thin_out
from spinemet.training.labels import COLUMNS, consensus
from spinemet.training.loop import train
from spinemet.training.preparing import store_crops, summarize
from spinemet.training.recipes import recipe
from spinemet.training.workers import OneProcess
from spinemet.types import AIR_HU, Completeness, SliceStack, Volume
from tests.bench.figures import Figures, Missing
from tests.conftest import REALCT

FOLDS = (
    ("totalsegmentator", "acrin-breast-001-a", "acrin-nsclc", "cmb-crc-01068", "matrad-pat001"),
    ("lidc-0314", "acrin-breast-001-b", "dsb-00cba", "ircad-17", "tptbox", "ibsi1-lung", "moose-neck"),
)
"""The patients of each half. The last three of the second have no names, so nothing is implanted in them."""
STUDIES = 12
"""Studies with implants per patient to train on; TRIED of them are tried."""
TRIED = 6
PHANTOMS = 120
LARGE_CM3 = 1.0
BLUR_MM, DARK_HU = 1.7, 50.0
THIN_HU = 30.0
SEED = 5
TRIED_PHANTOMS = range(PHANTOMS, PHANTOMS + 20)
"""Numbers of the phantoms that are tried; none of them was trained on."""


@dataclass(frozen=True, eq=False)
class Patient:
    """One real patient: the study, copies with implants with the truth of each, and whole vertebrae made thin."""

    name: str
    reading: Screened
    made: tuple[tuple[Screened, tuple[Label, ...], Labels], ...]
    thin: tuple[SliceStack, ...]


def run() -> Figures:
    """Train on each half, try on the other. Raises Missing without the real CT."""
    if not REALCT.is_dir():
        raise Missing("real CT is not on this machine (../shared/realct)")
    figures = Figures(
        "Calls on real bone and real implants of patients left out of training",
        ("patient", "normal vertebrae", "called normal", "unsure", "lesions of 1 cm3 and more", "called diseased"),
        f"two models (recipe builtin), each trained on {PHANTOMS} phantoms and {STUDIES} studies with implants of each"
        " patient of one half; every row is of the model of the other half, the last two are of both",
    )
    with tempfile.TemporaryDirectory() as folder:
        halves = [[one for name in names if (one := _patient(name, Path(folder)))] for names in FOLDS]
        phantoms = _phantoms()
        models = [_fit(half, phantoms, f"{folder}/crops{n}") for n, half in enumerate(halves)]
    rows = [_row(one, model) for half, model in zip(halves, reversed(models), strict=True) for one in half]
    rows.append(["all", *np.sum([row[1:] for row in rows], axis=0).tolist()])
    for name, *counts in rows:
        figures.add(name, *counts)
    thin = [(one.thin, model) for half, model in zip(halves, reversed(models), strict=True) for one in half]
    calls = [call for stacks, model in thin for call in model.predict(stacks)]
    normal = sum(call.label("bone_quality") == "normal" for call in calls)
    figures.add(f"the same vertebrae with bone of {THIN_HU:g} HU", len(calls), normal, _unsure(calls), 0, 0)
    for name, stacks in _hard_phantoms():
        called = [model.predict(stacks) for model in models]
        normal = sum(call.label("bone_quality") == "normal" for calls in called for call in calls)
        figures.add(name, 2 * len(stacks), normal, _unsure([call for calls in called for call in calls]), 0, 0)
    return figures


def _patient(name: str, folder: Path) -> Patient | None:
    place = REALCT / "spines" / name
    if name == "lidc-0314":
        place = folder / name
        with tarfile.open(REALCT / name / "series.tar.xz") as tar:
            tar.extractall(place, filter="data")
    elif name in {"totalsegmentator", "tptbox"}:
        file = next((REALCT / name).glob("example_ct.nii.gz"), None) or next((REALCT / name).glob("*_ct.nii.gz"))
        place = folder / name
        place.mkdir()
        (place / "ct.nii.gz").write_bytes(file.read_bytes())
    config = StudyConfig(slices=recipe("builtin").model.slices)
    ref = next(iter(list_studies(str(place))))
    reading = read_study(ref, config)
    if not isinstance(reading, Screened):
        return None
    volume, made = read_volume_of(ref, config), []
    if any(is_named(one.level) for one in reading.spine.vertebrae):
        for number in range(STUDIES):
            altered, labels = implanted(volume, reading.spine, np.random.default_rng([SEED, number]))
            made.append(_made(f"{name}-{number}", name, reading, volume, altered, labels))
    return Patient(name, reading, tuple(made), _thin(volume, reading))


def _thin(volume: Volume, reading: Screened) -> tuple[SliceStack, ...]:
    """The whole vertebrae of a study whose cancellous bone has THIN_HU."""
    whole = tuple(one for one in reading.spine.vertebrae if one.completeness is Completeness.WHOLE)
    hu = volume.hu_DHW.astype(np.float32)
    thin_out(hu, volume, tissue_levels(volume.hu_DHW), reading.spine.vertebrae, THIN_HU, SEED)
    made = replace(volume, hu_DHW=np.clip(np.rint(hu), AIR_HU, 3071).astype(np.int16))
    return tuple(cut_slices(made, replace(reading.spine, vertebrae=whole), recipe("builtin").model.slices))


def _made(
    study: str, patient: str, reading: Screened, volume: Volume, altered: Volume, labels: Sequence[Label]
) -> tuple[Screened, tuple[Label, ...], Labels]:
    place = {"patient": patient, "study": study, "origin": "implant"}
    words = ("bone_quality", "posterolateral")
    rows = [{**place, "level": one.level, **{word: getattr(one, word) for word in words}} for one in labels]
    rows += [
        {**place, **{k: str(v) for k, v in row.items()}} for row in slice_labels(volume, altered, reading.spine, labels)
    ]
    copy = replace(
        reading,
        chosen=replace(reading.chosen, PatientID=patient, StudyInstanceUID=study),
        stacks=cut_slices(altered, reading.spine, recipe("builtin").model.slices),
    )
    return copy, tuple(labels), rows


def _phantoms() -> list[tuple[Screened, Labels]]:
    slices = recipe("builtin").model.slices
    cases = [draw_case(SEED, "validation", number) for number in range(PHANTOMS)]
    return [(read_case(case, slices)[0], case.truth) for case in cases]


def _fit(half: Sequence[Patient], phantoms: Sequence[tuple[Screened, Labels]], crops: str) -> Predictor:
    studies = [*((reading, rows) for one in half for reading, _, rows in one.made), *phantoms]
    table = pd.DataFrame([row for _, rows in studies for row in rows], columns=COLUMNS)
    labels = consensus(table.fillna(""))
    done = [store_crops(reading, labels, crops) for reading, _ in studies]
    chosen = recipe("builtin")
    write_manifest(crops, summarize(done, labels, StudyConfig(slices=chosen.model.slices), crops, NAMES))
    trained = train(training_data(read_crops(crops), chosen), chosen, 0, OneProcess())
    return Predictor(trained.model, trained.card)


def _row(patient: Patient, model: Predictor) -> list[str | int]:
    whole = [
        stack
        for vertebra, stack in zip(patient.reading.spine.vertebrae, patient.reading.stacks, strict=True)
        if vertebra.completeness is Completeness.WHOLE
    ]
    calls = model.predict(whole)
    found = tried = 0
    for reading, labels, _ in patient.made[:TRIED]:
        large = {one.level for one in labels if one.bone_quality != "normal" and one.volume_cm3 >= LARGE_CM3}
        calls_made = zip(reading.stacks, model.predict(reading.stacks), strict=True)
        called = [call for stack, call in calls_made if stack.level in large]
        tried += len(called)
        found += sum(call.label("bone_quality") != "normal" for call in called)
    normal = sum(call.label("bone_quality") == "normal" for call in calls)
    return [patient.name, len(calls), normal, _unsure(calls), tried, found]


def _unsure(calls: Sequence[VertebraCall]) -> int:
    return sum(call.doubt is not None for call in calls)


def _hard_phantoms() -> Iterator[tuple[str, list[SliceStack]]]:
    """Healthy vertebrae of phantoms under a very smooth kernel, and with very little bone."""
    slices = recipe("builtin").model.slices
    cases = [draw_case(SEED, "validation", number) for number in TRIED_PHANTOMS]

    def healthy(anatomy_of: dict[str, float]) -> list[SliceStack]:
        stacks = []
        for case in cases:
            anatomy: PatientAnatomy = replace(case.anatomy, **anatomy_of)
            changes = {level: [] for level in case.changes}
            reading, _ = read_case(replace(case, anatomy=anatomy, changes=changes, lesions={}), slices)
            levels = {row["level"] for row in case.truth}
            stacks += [stack for stack in reading.stacks if stack.level in levels]
        return stacks

    sigma = (0.0, BLUR_MM / slices.pixel_mm, BLUR_MM / slices.pixel_mm)
    blurred = [
        replace(stack, hu_NHW=np.rint(gaussian_filter(stack.hu_NHW.astype(np.float32), sigma)).astype(np.int16))
        for stack in healthy({})
    ]
    yield f"phantoms, blurred by {BLUR_MM:g} mm", blurred
    yield f"phantoms, bone of {DARK_HU:g} HU", healthy({"trabecular_hu": DARK_HU})
