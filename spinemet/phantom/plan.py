"""The plan of a phantom archive, patient by patient and study by study, made before anything is drawn.

Patient n depends on (seed, n) only, so a larger archive begins with the patients of a smaller one.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import TypeVar

import numpy as np
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from spinemet.phantom.body.anatomy import MOBILE, PatientAnatomy, Pose, draw_anatomy, place_spine
from spinemet.phantom.body.tissue import Contrast
from spinemet.phantom.disease.lesions import Disease, draw_diseases
from spinemet.phantom.disease.mimics import Mimic, draw_mimics
from spinemet.phantom.scan import REGIONS, ScanSettings, field_of_view

T = TypeVar("T")

SYNTAXES = {ExplicitVRLittleEndian: 0.25, JPEGLSLossless: 0.4, RLELossless: 0.23, JPEG2000Lossless: 0.12}
"""Transfer syntax -> its share of the studies."""
SPACINGS_MM = {0.75: 0.02, 1.0: 0.05, 1.5: 0.13, 2.0: 0.3, 2.5: 0.26, 3.0: 0.18, 5.0: 0.06}
"""Slice spacing -> its share. Thin slices are rare because they cost time; most archives keep 1.5 to 3 mm."""
SCANNERS: dict[str, tuple[str, str, str]] = {
    # manufacturer: model, soft kernel, bone kernel
    "SIEMENS": ("SOMATOM Phantom", "B30f", "B60s"),
    "GE MEDICAL SYSTEMS": ("LightSpeed Phantom", "STANDARD", "BONEPLUS"),
    "Philips": ("Brilliance Phantom", "B", "YB"),
    "TOSHIBA": ("Aquilion Phantom", "FC08", "FC30"),
}
PHANTOM_KEY = b"phantom patients are nobody"
"""Pseudonym key of phantom patients: everybody gets the same pseudonyms, hence the same split and the same figures."""
METASTATIC_SHARE = 0.5
"""Share of the patients with metastases."""
BONE_GAIN = {100: 1.13, 120: 1.0, 140: 0.93}


@dataclass(frozen=True)
class PatientPlan:
    """One patient: body, names for the headers, disease over time, benign changes."""

    number: int
    patient_id: str
    name: str
    birth_date: date
    anatomy: PatientAnatomy
    diseases: dict[str, Disease]
    mimics: dict[str, tuple[Mimic, ...]]


@dataclass(frozen=True)
class StudyPlan:
    """One study of a patient: when, of what, on which scanner, and how its objects will lie in the archive.

    scans: the axial series; the first is the one that truth, labels and segmentation belong to.
    """

    patient: PatientPlan
    number: int
    seed: int
    day: date
    region: str
    manufacturer: str
    kernels: tuple[str, ...]
    kvp: int
    contrast_agent: str
    scans: tuple[ScanSettings, ...]
    transfer_syntax: str
    zipped: bool
    segmented: bool

    @property
    def age(self) -> int:
        """The patient's age in years on the day of the study."""
        return int((self.day - self.patient.birth_date).days / 365.25)

    @property
    def folder(self) -> str:
        """The study's key below the archive, without an ending."""
        return f"{self.patient.patient_id}/{self.day:%Y%m%d}-{self.number + 1}"

    def uid(self, *parts: object) -> str:
        """A UID under the root of UUIDs that follows from the archive's seed, this study and `parts`."""
        return derived_uid(self.seed, self.patient.number, self.number, *parts)


def derived_uid(*parts: object) -> str:
    """A valid UID (PS3.5 annex B.2, root 2.25) that follows from `parts`."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def plan_patient(seed: int, number: int, matrix: int) -> list[StudyPlan]:
    """The one to three studies of patient `number`, oldest first."""
    rng = np.random.default_rng([seed, number])
    anatomy = draw_anatomy(rng)
    count = int(rng.choice([1, 2, 3], p=[0.55, 0.33, 0.12]))
    first_day = date(2017, 1, 9) + timedelta(days=int(rng.integers(0, 2200)))
    patient = PatientPlan(
        number=number,
        patient_id=f"PH-{number + 1:04d}",
        name=f"PHANTOM^{number + 1:04d}",
        birth_date=first_day - timedelta(days=int(365.25 * anatomy.age + rng.integers(10, 350))),
        anatomy=anatomy,
        diseases=draw_diseases(rng, MOBILE, count, *_disease_of(seed, number)),
        mimics=draw_mimics(rng, anatomy, MOBILE),
    )
    region = str(rng.choice(list(REGIONS), p=[0.4, 0.3, 0.23, 0.07]))
    studies, day = [], first_day
    for n in range(count):
        studies.append(_plan_study(rng, patient, n, seed, day, region, matrix))
        day += timedelta(days=int(rng.integers(60, 260)))
        if rng.random() < 0.2:
            region = str(rng.choice(["lumbosacral", "thoracolumbar", "thoracic"]))
    return studies


def _disease_of(seed: int, number: int) -> tuple[bool, str]:
    """Whether patient `number` has metastases, and of which kind most of them are.

    Two coordinates of a low-discrepancy sequence (Roberts' R2) from a random start: any run of patients has its share
    of each, which independent draws would miss in a small archive.
    """
    start = np.random.default_rng(seed).random(2)
    first, second = (start + (number + 1) * np.array([0.7548776662466927, 0.5698402909980532])) % 1.0
    return bool(first < METASTATIC_SHARE), ("lytic", "blastic", "mixed")[int(second * 3)]


def _plan_study(
    rng: np.random.Generator, patient: PatientPlan, number: int, seed: int, day: date, region: str, matrix: int
) -> StudyPlan:
    manufacturer = str(rng.choice(list(SCANNERS)))
    _, soft, bone = SCANNERS[manufacturer]
    sharp = rng.random() < 0.22
    kvp = int(rng.choice([100, 120, 140], p=[0.2, 0.7, 0.1]))
    contrast = _contrast(rng)
    first = _scan(rng, place_spine(patient.anatomy), region, matrix, sharp, BONE_GAIN[kvp], contrast)
    scans, kernels = [first], [bone if sharp else soft]
    if rng.random() < 0.27:
        scans.append(_second(rng, first, sharp))
        kernels.append(bone if scans[1].edge > 0 else soft)
    return StudyPlan(
        patient=patient,
        number=number,
        seed=seed,
        day=day,
        region=region,
        manufacturer=manufacturer,
        kernels=tuple(kernels),
        kvp=kvp,
        contrast_agent="IOHEXOL 300" if contrast.aorta > 60 else "",
        scans=tuple(scans),
        transfer_syntax=_choose(rng, SYNTAXES),
        zipped=bool(rng.random() < 0.2),
        segmented=bool(rng.random() < 0.7),
    )


def _contrast(rng: np.random.Generator) -> Contrast:
    phase = rng.random()
    if phase < 0.6:
        return Contrast()
    if phase < 0.9:  # portal venous
        blood = rng.uniform(120, 190)
        return Contrast(aorta=blood, vein=blood - 10, kidney=rng.uniform(140, 210), liver=rng.uniform(95, 125))
    return Contrast(aorta=rng.uniform(240, 340), vein=rng.uniform(50, 90), kidney=rng.uniform(110, 170), liver=70.0)


def _scan(
    rng: np.random.Generator,
    poses: tuple[Pose, ...],
    region: str,
    matrix: int,
    sharp: bool,
    bone_gain: float,
    contrast: Contrast,
) -> ScanSettings:
    """The first series: a spine field of view of 200 to 260 mm, or, in a quarter of the studies, the whole trunk."""
    low, high = field_of_view(poses, region, (float(rng.uniform(-0.6, 0.9)), float(rng.uniform(-0.4, 0.7))))
    spacing = _choose(rng, SPACINGS_MM)
    body = rng.random() < 0.25
    width = rng.uniform(320, 390) if body else rng.uniform(200, 260)
    pixel = float(np.round(width / matrix, 6))
    middle = np.mean([pose.center for pose in poses if low <= pose.center[2] <= high], axis=0)
    # Spine reconstructions are centred on the canal; those of the trunk on the trunk, well in front of it.
    ahead = -55.0 if body else rng.uniform(0, 18)
    return ScanSettings(
        center_mm=(float(middle[0] + rng.uniform(-8, 8)), float(middle[1] + ahead), (low + high) / 2),
        shape=(round((high - low) / spacing), matrix, matrix),
        spacing=(spacing, pixel, pixel),
        thickness=spacing * (1.33 if spacing < 3 and rng.random() < 0.3 else 1.0),
        # Soft kernels: half of them blur by less than 0.7 mm, one in ten by more than 1.6.
        blur_mm=float(rng.uniform(0.42, 0.5) if sharp else 0.5 + 1.5 * rng.random() ** 3),
        edge=float(rng.uniform(0.8, 1.4)) if sharp else 0.0,
        noise_hu=float(rng.uniform(26, 44) if sharp else rng.uniform(9, 24)),
        noise_seed=int(rng.integers(2**31)),
        bone_gain=bone_gain,
        contrast=contrast,
    )


def _second(rng: np.random.Generator, first: ScanSettings, sharp: bool) -> ScanSettings:
    """Another reconstruction of the same acquisition: thick slices, or the other kernel."""
    seed = int(rng.integers(2**31))
    if first.spacing[0] <= 2.5 and rng.random() < 0.5:
        thick = max(round(5.0 / first.spacing[0]), 2) * first.spacing[0]
        return replace(first, spacing=(thick, *first.spacing[1:]), thickness=thick, noise_seed=seed)
    blur, edge, noise = (0.7, 0.0, 14.0) if sharp else (0.45, 1.2, 34.0)
    return replace(first, blur_mm=blur, edge=edge, noise_hu=noise, noise_seed=seed)


def _choose(rng: np.random.Generator, choices: Mapping[T, float]) -> T:
    shares = np.array(list(choices.values()))
    return list(choices)[int(rng.choice(len(choices), p=shares / sum(shares)))]
