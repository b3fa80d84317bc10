"""Which series is chosen, and the reason for each other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spinemet.config import SelectConfig
from spinemet.dicom.headers import read_series
from spinemet.dicom.select import explain, kernel_sharpness, select_series
from spinemet.errors import Reason, StudyExcluded
from spinemet.storage.archive import open_study, study_at
from spinemet.types import InstanceHeader, SeriesHeader

CT = "1.2.840.10008.5.1.4.1.1.2"
CONFIG = SelectConfig()


def series(count: int = 100, spacing: float = 2.0, name: str = "", **changes: Any) -> SeriesHeader:
    """An axial series with slices of `spacing` mm; `changes` go to the series or to each slice, by attribute name."""
    of_series = {key: value for key, value in changes.items() if key in SeriesHeader.__dataclass_fields__}
    of_slice = {key: value for key, value in changes.items() if key not in of_series}
    first = InstanceHeader(
        name=name,
        SOPClassUID=CT,
        ImageType=("ORIGINAL", "PRIMARY", "AXIAL"),
        ImageOrientationPatient=(1, 0, 0, 0, 1, 0),
        PixelSpacing=(0.7, 0.7),
        Rows=512,
        Columns=512,
    )
    slices = [replace(first, **{"ImagePositionPatient": (0.0, 0.0, n * spacing), **of_slice}) for n in range(count)]
    return SeriesHeader(**{"Modality": "CT", "SeriesDescription": name, **of_series}, instances=tuple(slices))


COS, SIN = float(np.cos(np.deg2rad(40))), float(np.sin(np.deg2rad(40)))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"SOPClassUID": ""}, None),
        ({"ImageType": ("DERIVED", "SECONDARY", "AXIAL")}, None),
        ({"ImageOrientationPatient": (1, 0, 0, 0, 0.94, -0.34)}, None),
        ({"Modality": "MR"}, Reason.NOT_CT),
        ({"Modality": "SEG", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4"}, Reason.NOT_CT),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.67"}, Reason.NOT_CT),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, Reason.SECONDARY_CAPTURE),
        ({"ImageType": ("DERIVED", "SECONDARY", "DOSE_INFO")}, Reason.SECONDARY_CAPTURE),
        ({"ImageType": ("ORIGINAL", "PRIMARY", "LOCALIZER")}, Reason.LOCALIZER),
        ({"ImageType": ("DERIVED", "PRIMARY", "MPR")}, Reason.DERIVED),
        ({"ImageType": ("DERIVED", "SECONDARY")}, Reason.DERIVED),
        ({"has_pixels": False}, Reason.NO_PIXELS),
        ({"ImageOrientationPatient": None}, Reason.NO_GEOMETRY),
        ({"ImagePositionPatient": None}, Reason.NO_GEOMETRY),
        ({"PixelSpacing": None}, Reason.NO_GEOMETRY),
        ({"ImageOrientationPatient": (1, 0, 0, 0, COS, -SIN)}, Reason.NOT_AXIAL),
        ({"ImageOrientationPatient": (1, 0, 0, 0, 0, -1)}, Reason.NOT_AXIAL),
        ({"NumberOfFrames": 8}, Reason.UNSUPPORTED_PIXELS),
        ({"Rows": 100_000}, Reason.UNSUPPORTED_PIXELS),
        ({"TransferSyntaxUID": "1.2.840.10008.1.2.4.55"}, Reason.UNSUPPORTED_PIXELS),
        ({"count": 10}, Reason.TOO_FEW_SLICES),
        ({"ImagePositionPatient": (0.0, 0.0, 0.0)}, Reason.TOO_FEW_SLICES),
        ({"spacing": 7.0}, Reason.TOO_THICK),
        ({"count": 30, "spacing": 1.0}, Reason.FIELD_OF_VIEW),
    ],
)
def test_each_rule_has_its_reason(changes: dict[str, Any], reason: Reason | None) -> None:
    item = series(**changes)
    assert explain([item], CONFIG) == ((item, reason),)
    if reason is not None:
        with pytest.raises(StudyExcluded) as caught:
            select_series([item], CONFIG)
        assert caught.value.reason is reason


def test_lossy_is_read_unless_the_configuration_forbids_it() -> None:
    item = series(lossy=True)
    assert select_series([item], CONFIG).chosen is item
    assert explain([item], SelectConfig(allow_lossy=False))[0][1] is Reason.LOSSY


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({"count": 200}, {"count": 100}),
        ({"spacing": 1.0, "count": 200}, {"spacing": 5.0, "count": 40}),
        ({"spacing": 1.0, "count": 200}, {"spacing": 0.5, "count": 400}),
        ({"ConvolutionKernel": "B30f"}, {"ConvolutionKernel": "B70f"}),
        ({"ConvolutionKernel": ""}, {"ConvolutionKernel": "BONE"}),
        ({"PixelSpacing": (0.5, 0.5)}, {"PixelSpacing": (0.9, 0.9)}),
        (
            {"spacing": 2.0, "count": 100, "ConvolutionKernel": "B70f"},
            {"spacing": 5.0, "ConvolutionKernel": "B30f", "count": 41},
        ),
    ],
)
def test_the_better_series_is_chosen_whatever_the_order(better: dict[str, Any], worse: dict[str, Any]) -> None:
    good, bad = series(**better), series(**worse)
    for order in ([good, bad], [bad, good]):
        choice = select_series(order, CONFIG)
        assert choice.chosen is good
        assert choice.rejected == ((bad, Reason.NOT_PREFERRED),)


def test_the_most_telling_reason_stands_for_the_study() -> None:
    items = [series(Modality="MR"), series(spacing=8.0), series(ImageType=("ORIGINAL", "PRIMARY", "LOCALIZER"))]
    with pytest.raises(StudyExcluded) as caught:
        select_series(items, CONFIG)
    assert caught.value.reason is Reason.TOO_THICK
    with pytest.raises(StudyExcluded) as nothing:
        select_series([], CONFIG)
    assert nothing.value.reason is Reason.NO_SERIES


@pytest.mark.parametrize(
    ("kernel", "sharpness"),
    [("B30f", 0), ("Br38f 3", 0), ("I70f 2", 2), ("FC08", 0), ("FC51", 2), ("STANDARD", 0), ("BONEPLUS", 2),
     ("LUNG", 2), ("B", 0), ("L", 2), ("", 1), ("XYZ", 1)],
)  # fmt: skip
def test_kernels(kernel: str, sharpness: int) -> None:
    assert kernel_sharpness(kernel) == sharpness


def test_a_real_study_with_localizers_and_screens(realct: Path) -> None:
    place = realct / "conformance" / "gantry-tilt" / "In" / "Philips"
    with open_study(study_at(place)) as objects:
        verdicts = explain(read_series(objects).series, SelectConfig(min_slices=6, min_coverage_mm=10))
    reasons = [reason for _, reason in verdicts]
    assert reasons.count(Reason.LOCALIZER) == 2
    assert reasons.count(Reason.SECONDARY_CAPTURE) == 3
    assert reasons.count(None) == 1
    (chosen,) = (item for item, reason in verdicts if reason is None)
    assert len(chosen.instances) == 12
