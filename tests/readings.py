"""Readings and calls made by hand: a straight spine with known places, drawn rather than scanned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from spinemet.config import SliceConfig
from spinemet.errors import Reason
from spinemet.reading import Screened, VertebraCall
from spinemet.types import (
    BONE_QUALITY,
    POSTEROLATERAL,
    Completeness,
    Flag,
    InstanceHeader,
    Method,
    ObjectRef,
    SeriesHeader,
    SliceStack,
    Spine,
    SpineCurve,
    StraightenedViews,
    StudyRef,
    Vertebra,
)

SLICES = SliceConfig(size_px=32, pixel_mm=3.5, step_mm=3.0)
LEVELS = ("T11", "T12", "L1", "?1")
PATIENT = "SECRET-PATIENT"
REF = StudyRef("/secret/archive", "secret-study", "prefix", (ObjectRef("secret-study/a", 10), ObjectRef("b", 20)))
SERIES = SeriesHeader(
    Modality="CT",
    PatientID=PATIENT,
    PatientSex="F",
    age_years=93.4,
    StudyInstanceUID=f"9.{PATIENT}",
    StudyDate="20240229",
    SeriesInstanceUID="1.2.3.SERIES",
    SeriesDescription="SECRET DESCRIPTION",
    Manufacturer="  ACME   Medical ",
    ManufacturerModelName="Ring 5",
    ConvolutionKernel="B60f",
    KVP=120.0,
    left_out=3,
    ContrastBolusAgent=f"Iodine for Mrs {PATIENT}",
    instances=(InstanceHeader("secret-study/a", Rows=512, Columns=512, SliceThickness=1.25),),
)
SECRETS = (PATIENT, "1.2.3.SERIES", "SECRET DESCRIPTION", "/secret/archive", "secret-study")


def vertebra(level: str, number: int, *, is_cut: bool = False, pitch_mm: float = 30.0) -> Vertebra:
    """The vertebra `number` from the top, which lies at the height 0; without HU and with a flag if it is cut."""
    return Vertebra(
        level=level,
        level_confidence=0.0 if level.startswith("?") else 0.9,
        completeness=Completeness.CUT if is_cut else Completeness.WHOLE,
        center_mm=(1.0, 2.0, -pitch_mm * number),
        axes=np.eye(3),
        height_mm=0.75 * pitch_mm,
        canal_mm=18 + pitch_mm * number,
        confidence=0.95,
        measures={"trabecular_hu": None if is_cut else 150.0},
        flags=(Flag.DISC_UNCLEAR,) if is_cut else (),
    )


def stack(level: str, slices: int = 3, patient: str = PATIENT, hu: int = 200) -> SliceStack:
    """Slices of noise around `hu`, which differs between patients, levels and slices."""
    rng = np.random.default_rng([*patient.encode(), *level.encode()])
    noise = rng.normal(hu, 20, (slices, SLICES.size_px, SLICES.size_px))
    offsets_mm = (np.arange(slices, dtype=np.float32) - slices // 2) * -SLICES.step_mm
    return SliceStack(level, noise.astype(np.int16), offsets_mm, SLICES.pixel_mm)


def reading(
    patient: str = PATIENT,
    levels: Sequence[str] = LEVELS,
    study: str = "",
    *,
    cut: Sequence[str] = (),
    hu: int = 200,
    slices: int = 3,
    pitch_mm: float = 30.0,
) -> Screened:
    """A study with the vertebrae `levels`, cranial first; `cut` names those that the field of view cuts."""
    chosen = replace(SERIES, PatientID=patient, StudyInstanceUID=study or f"9.{patient}")
    length = round(pitch_mm * len(levels)) + 20
    points_mm = np.stack([np.zeros(length), np.zeros(length), 18 - np.arange(length, dtype=float)], axis=1)
    vertebrae = [vertebra(level, n, is_cut=level in cut, pitch_mm=pitch_mm) for n, level in enumerate(levels)]
    return Screened(
        chosen=chosen,
        series_seen=((chosen, None), (replace(chosen, Modality="SR"), Reason.NOT_CT)),
        spacing_mm=(1.5, 0.7, 0.8),
        slice_count=120,
        spine=Spine(tuple(vertebrae), SpineCurve(points_mm, np.tile(np.eye(3), (length, 1, 1))), Method.GEOMETRIC),
        stacks=tuple(stack(level, slices, patient, hu) for level in levels),
        views=StraightenedViews(np.full((length, 140), 90, np.uint8), np.full((length, 121), 7, np.uint8), 80),
        flags=(Flag.DESKEWED, Flag.LOSSY),
        seconds={"headers": 0.5, "volume": 1.5, "unheard_of": 9.0},
    )


def call(bone_quality: str, posterolateral: str = "none", *, probability: float = 0.7) -> VertebraCall:
    """A call whose bone quality has this probability, and the others equal parts of the rest."""
    bone = {name: probability if name == bone_quality else (1 - probability) / 3 for name in BONE_QUALITY}
    involved = {name: 0.8 if name == posterolateral else 0.1 for name in POSTEROLATERAL}
    blastic, lytic = bone["blastic"] + bone["mixed"], bone["lytic"] + bone["mixed"]
    return VertebraCall(
        {
            "blastic": {"no": 1 - blastic, "yes": blastic},
            "lytic": {"no": 1 - lytic, "yes": lytic},
            "bone_quality": bone,
            "posterolateral": involved,
        },
        {"posterolateral": np.tile(np.float32([*involved.values()]), (3, 1))},
    )


READING = reading(cut=LEVELS[:1])
CALLS = (call("normal"), call("lytic", "bilateral"), call("mixed", "unilateral"), call("blastic"))
