"""Readings and calls for the tests of this room: a straight spine with known places, drawn rather than scanned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from spinemet.errors import Reason
from spinemet.types import (
    BONE_QUALITY,
    POSTEROLATERAL,
    Completeness,
    InstanceHeader,
    Method,
    Screened,
    SeriesHeader,
    SliceStack,
    Spine,
    SpineCurve,
    StraightenedViews,
    Vertebra,
    VertebraCall,
)

CHOSEN = SeriesHeader(
    "CT",
    PatientID="DOE-JANE-1",
    StudyInstanceUID="1.2.840.99",
    SeriesInstanceUID="1.2.840.99.1",
    SeriesDescription="Jane Doe thorax",
    Manufacturer="PHANTOM",
    ConvolutionKernel="B30f",
    KVP=120.0,
    instances=(InstanceHeader("DOE/1.dcm", Rows=512, Columns=512, SliceThickness=1.25),),
)
IDENTIFIERS = ("DOE", "Jane", "1.2.840")


def reading_of(levels: list[str], pitch_mm: float = 32.0) -> Screened:
    """A screened study with these vertebrae, the first of them cut."""
    length = round(pitch_mm * len(levels)) + 20
    points = np.stack([np.zeros(length), np.zeros(length), -np.arange(length, dtype=float)], axis=1)
    curve = SpineCurve(points, np.tile(np.eye(3), (length, 1, 1)))
    vertebrae = tuple(
        Vertebra(
            level,
            0.0 if level.startswith("?") else 0.9,
            Completeness.CUT if n == 0 else Completeness.WHOLE,
            (0.0, -26.0, -(18 + n * pitch_mm)),
            np.eye(3),
            pitch_mm * 0.75,
            18 + n * pitch_mm,
            0.95,
            {"trabecular_hu": None if n == 0 else 140.25},
            ("cut_by_field_of_view",) if n == 0 else (),
        )
        for n, level in enumerate(levels)
    )
    generator = np.random.default_rng(0)
    stacks = tuple(
        SliceStack(level, generator.integers(-100, 300, (3, 64, 64)).astype(np.int16), np.float32([3, 0, -3]), 1.5)
        for level in levels
    )
    views = StraightenedViews(np.full((length, 140), 90, np.uint8), np.full((length, 121), 90, np.uint8), 80)
    return Screened(
        chosen=CHOSEN,
        series_seen=((CHOSEN, None), (replace(CHOSEN, Modality="SR"), Reason.NOT_CT)),
        spacing_mm=(1.25, 0.7, 0.7),
        slice_count=300,
        spine=Spine(vertebrae, curve, Method.GEOMETRIC),
        stacks=stacks,
        views=views,
        seconds={"headers": 0.25, "volume": 1.5},
    )


def call_of(quality: str, probability: float = 0.7, side: str = "none") -> VertebraCall:
    """A call of this bone quality with the rest shared evenly."""
    rest = (1 - probability) / 3
    quality_of = {name: probability if name == quality else rest for name in BONE_QUALITY}
    side_of = {name: 0.6 if name == side else 0.2 for name in POSTEROLATERAL}
    blastic, lytic = (quality_of[name] + quality_of["mixed"] for name in ("blastic", "lytic"))
    return VertebraCall(
        {
            "bone_quality": quality_of,
            "posterolateral": side_of,
            "blastic": {"no": 1 - blastic, "yes": blastic},
            "lytic": {"no": 1 - lytic, "yes": lytic},
        }
    )
