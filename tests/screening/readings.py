"""Hand-made study readings: a chest and upper-lumbar CT with four vertebrae."""

from __future__ import annotations

import numpy as np

from spinemet.errors import Reason
from spinemet.types import (
    BONE_QUALITY,
    POSTEROLATERAL,
    Completeness,
    Flag,
    InstanceHeader,
    Method,
    ObjectRef,
    Screened,
    SeriesHeader,
    SliceStack,
    Spine,
    SpineCurve,
    StraightenedViews,
    StudyRef,
    Vertebra,
    VertebraCall,
)

SECRETS = ("SECRET-PATIENT", "1.2.3.STUDY", "1.2.3.SERIES", "SECRET DESCRIPTION", "/secret/archive", "secret-study")
REF = StudyRef("/secret/archive", "secret-study", "prefix", (ObjectRef("secret-study/a", 10), ObjectRef("b", 20)))
SERIES = SeriesHeader(
    Modality="CT",
    PatientID="SECRET-PATIENT",
    PatientSex="F",
    age_years=93.4,
    StudyInstanceUID="1.2.3.STUDY",
    StudyDate="20240229",
    SeriesInstanceUID="1.2.3.SERIES",
    SeriesDescription="SECRET DESCRIPTION",
    Manufacturer="  ACME   Medical ",
    ManufacturerModelName="Ring 5",
    ConvolutionKernel="B60f",
    KVP=120.0,
    ContrastBolusAgent="Iodine for Mrs SECRET-PATIENT",
    instances=(InstanceHeader("secret-study/a"),),
)
LEVELS = ("T11", "T12", "L1", "?1")


def vertebra(level: str, number: int) -> Vertebra:
    """The vertebra `number` from the top, 30 mm high; the first is cut."""
    return Vertebra(
        level=level,
        level_confidence=0.0 if level.startswith("?") else 0.9,
        completeness=Completeness.CUT if number == 0 else Completeness.WHOLE,
        center_mm=(1.0, 2.0, -30.0 * number),
        axes=np.eye(3),
        height_mm=24.0,
        canal_mm=15.0 + 30 * number,
        confidence=0.95,
        measures={"trabecular_hu": 150.0 if number else None},
        flags=(Flag.DISC_UNCLEAR,) if number == 2 else (),
    )


def stack(level: str, slices: int = 3) -> SliceStack:
    """A stack of `slices` slices of 8 x 8 pixels."""
    offsets = np.linspace(5, -5, slices, dtype=np.float32) if slices else np.zeros(0, np.float32)
    return SliceStack(level, np.full((slices, 8, 8), 100, np.int16), offsets, 1.0)


def reading(**changes: object) -> Screened:
    """A screened reading of LEVELS."""
    curve = SpineCurve(np.zeros((2, 3)), np.zeros((2, 3, 3)))
    values: dict[str, object] = {
        "chosen": SERIES,
        "series_seen": ((SERIES, Reason.LOCALIZER), (SERIES, Reason.NOT_PREFERRED)),
        "spacing_mm": (1.5, 0.7, 0.8),
        "slice_count": 120,
        "spine": Spine(tuple(vertebra(level, n) for n, level in enumerate(LEVELS)), curve, Method.GEOMETRIC),
        "stacks": tuple(stack(level) for level in LEVELS),
        "views": StraightenedViews(np.zeros((40, 30), np.uint8), np.full((40, 20), 7, np.uint8), 12),
        "flags": (Flag.DESKEWED, Flag.LOSSY),
        "seconds": {"headers": 0.5, "volume": 1.5, "unheard_of": 9.0},
    }
    return Screened(**(values | changes))  # type: ignore[arg-type]


def call(bone_quality: str, posterolateral: str = "none", slices: int = 3) -> VertebraCall:
    """A call that is fairly sure of the given classes."""
    bone = {name: 0.7 if name == bone_quality else 0.1 for name in BONE_QUALITY}
    involved = {name: 0.8 if name == posterolateral else 0.1 for name in POSTEROLATERAL}
    blastic, lytic = bone["blastic"] + bone["mixed"], bone["lytic"] + bone["mixed"]
    return VertebraCall(
        {
            "blastic": {"no": 1 - blastic, "yes": blastic},
            "lytic": {"no": 1 - lytic, "yes": lytic},
            "bone_quality": bone,
            "posterolateral": involved,
        },
        {"posterolateral": np.tile(np.float32([*involved.values()]), (slices, 1))},
    )


CALLS = (call("normal"), call("lytic", "bilateral"), call("mixed", "unilateral"), call("blastic"))
