"""Which series is chosen, and the reason against each other one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spinemet.archive.listing import open_study, study_at
from spinemet.config import SelectConfig
from spinemet.dicom.geometry import arrange, even_runs
from spinemet.dicom.headers import read_series
from spinemet.dicom.image_kind import with_doubts
from spinemet.dicom.select import explain, kernel_sharpness, select_series
from spinemet.errors import Reason, StudyExcluded
from spinemet.types import Flag, InstanceHeader, SeriesHeader, StoredPixels

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
        ({"TransferSyntaxUID": "1.2.840.10008.1.2.4.56"}, Reason.UNSUPPORTED_PIXELS),
        ({"count": 10}, Reason.TOO_FEW_SLICES),
        ({"ImagePositionPatient": (0.0, 0.0, 0.0)}, Reason.TOO_FEW_SLICES),
        ({"spacing": 7.0}, Reason.TOO_THICK),
        ({"count": 30, "spacing": 1.0}, Reason.FIELD_OF_VIEW),
        ({"BodyPartExamined": "KNEE"}, Reason.BODY_PART),
        ({"BodyPartExamined": "HEAD", "count": 200}, None),
        ({"BodyPartExamined": "SHOULDER"}, None),
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
    assert select_series([item], CONFIG) is item
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
        ({"ImageType": ("ORIGINAL", "PRIMARY", "AXIAL")}, {"ImageType": ("DERIVED", "PRIMARY", "AXIAL")}),
        (
            {"spacing": 2.0, "count": 100, "ConvolutionKernel": "B70f"},
            {"spacing": 5.0, "ConvolutionKernel": "B30f", "count": 41},
        ),
    ],
)
def test_the_better_series_is_chosen_in_any_order(better: dict[str, Any], worse: dict[str, Any]) -> None:
    good, bad = series(**better), series(**worse)
    for order in ([good, bad], [bad, good]):
        assert select_series(order, CONFIG) is good
        verdicts = {id(item): reason for item, reason in explain(order, CONFIG)}
        assert verdicts == {id(good): None, id(bad): Reason.NOT_PREFERRED}


def test_the_study_gets_the_reason_of_the_series_that_came_closest() -> None:
    items = [series(Modality="MR"), series(spacing=8.0), series(ImageType=("ORIGINAL", "PRIMARY", "LOCALIZER"))]
    with pytest.raises(StudyExcluded) as caught:
        select_series(items, CONFIG)
    assert caught.value.reason is Reason.TOO_THICK
    with pytest.raises(StudyExcluded) as nothing:
        select_series([], CONFIG)
    assert nothing.value.reason is Reason.NO_SERIES


def at(places: list[float], **changes: Any) -> SeriesHeader:
    """An axial series with slices at `places` in mm."""
    whole = series(count=len(places), **changes)
    slices = [
        replace(item, ImagePositionPatient=(0.0, 0.0, z)) for item, z in zip(whole.instances, places, strict=True)
    ]
    return replace(whole, instances=tuple(slices))


def test_a_series_with_a_gap_is_divided_and_its_best_stretch_read() -> None:
    below, above = [2.0 * n for n in range(40)], [2.0 * n for n in range(50, 110)]
    ((chosen, reason),) = explain([at(above + below)], CONFIG)
    assert (reason, chosen.divided) == (None, True)
    assert [item.ImagePositionPatient[2] for item in chosen.instances if item.ImagePositionPatient] == above
    # One missing slice does not divide a series, nor is a stretch read that breaks a rule.
    assert not explain([at([z for z in above if z != 150])], CONFIG)[0][0].divided
    assert explain([at([*range(15), *range(30, 45)])], CONFIG)[0][1] is Reason.GAPS


def test_a_series_of_two_spacings_is_divided_between_them() -> None:
    thin, thick = [4.0 * n for n in range(20)], [76 + 7.0 * n for n in range(1, 30)]
    ((chosen, reason),) = explain([at(thin + thick)], CONFIG)
    assert (reason, len(chosen.instances)) == (None, 20)


@pytest.mark.parametrize(
    ("image_type", "rescale_type", "reason"),
    [
        (("DERIVED", "PRIMARY", "AXIAL"), "MGML", Reason.NOT_HU),
        (("DERIVED", "PRIMARY", "AXIAL"), "Z_EFF", Reason.NOT_HU),
        (("DERIVED", "PRIMARY", "AXIAL"), "ED", Reason.NOT_HU),
        (("DERIVED", "PRIMARY", "AXIAL", "MAT_SPECIFIC"), "", Reason.NOT_HU),
        (("DERIVED", "PRIMARY", "AXIAL", "ELECTRON_DENSITY"), "HU", Reason.NOT_HU),
        (("ORIGINAL", "PRIMARY", "AXIAL", "CBCT"), "", Reason.NOT_HU),
        (("DERIVED", "PRIMARY", "AXIAL", "Z EFFECTIVE"), "", Reason.NOT_HU),
        (("DERIVED", "PRIMARY", "AXIAL", "IODINE-WATER"), "", Reason.NOT_HU),
        (("DERIVED", "PRIMARY", "AXIAL", "VMI"), "HU", None),
        (("ORIGINAL", "PRIMARY", "AXIAL"), "Hounsfield Units", None),
        (("ORIGINAL", "PRIMARY", "AXIAL"), "US", None),
        (("ORIGINAL", "PRIMARY", "AXIAL"), "hu", None),
    ],
)
def test_a_series_must_be_in_hu(image_type: tuple[str, ...], rescale_type: str, reason: Reason | None) -> None:
    one = series()
    stored = replace(one.instances[0].stored or StoredPixels(), RescaleType=rescale_type)
    slices = tuple(replace(item, ImageType=image_type, stored=stored) for item in one.instances)
    assert explain([replace(one, instances=slices)], CONFIG)[0][1] is reason


def test_a_monoenergetic_series_ranks_behind_the_usual_one() -> None:
    usual, other = series(SeriesInstanceUID="1.2"), series(SeriesInstanceUID="1.1")
    mono = replace(
        other, instances=tuple(replace(i, ImageType=("DERIVED", "PRIMARY", "AXIAL", "VMI")) for i in other.instances)
    )
    assert select_series([mono, usual], CONFIG) is usual
    assert select_series([mono], CONFIG) is mono


def doubted(changes: dict[str, Any], *others: SeriesHeader) -> SeriesHeader:
    return with_doubts([series(**changes), *others])[0]


@pytest.mark.parametrize(
    ("changes", "doubts"),
    [
        ({"SeriesDescription": "WB CTAC 3.75"}, (Flag.ATTENUATION_CT,)),
        ({"SeriesDescription": "CT AC  5.0 HD_FoV"}, (Flag.ATTENUATION_CT,)),
        ({"SeriesDescription": "AC CT Ganzkoerper"}, (Flag.ATTENUATION_CT,)),
        ({"SeriesDescription": "CT Atten Cor"}, (Flag.ATTENUATION_CT,)),
        ({"ImageType": ("ORIGINAL", "PRIMARY", "AXIAL", "CT_AC")}, (Flag.ATTENUATION_CT,)),
        ({"SeriesDescription": "Spine CBCT 2mm"}, (Flag.CONE_BEAM,)),
        ({"ManufacturerModelName": "O-arm O2", "SeriesDescription": "Spine"}, (Flag.CONE_BEAM,)),
        ({"SeriesDescription": "5s DynaCT Head"}, (Flag.CONE_BEAM,)),
        ({"SeriesDescription": "CT THORAX ACUTE"}, ()),
        ({"SeriesDescription": "AC JOINT 1.0 B60"}, ()),
        ({"Modality": "PT", "SeriesDescription": "PET AC CTAC"}, ()),
    ],
)
def test_words_raise_doubts_about_a_ct(changes: dict[str, Any], doubts: tuple[Flag, ...]) -> None:
    assert doubted(changes).doubts == doubts


@pytest.mark.parametrize(("modality", "doubts"), [("PT", 1), ("NM", 1), ("MR", 0)])
def test_beside_a_pet_any_ct_may_be_for_attenuation_correction(modality: str, doubts: int) -> None:
    nuclear = series(Modality=modality)
    assert len(doubted({}, nuclear).doubts) == doubts
    # Not if another one says that it is.
    assert doubted({}, nuclear, series(SeriesDescription="CTAC")).doubts == ()


def test_a_doubted_series_is_read_only_if_there_is_no_other() -> None:
    doubtful, diagnostic = doubted({"SeriesDescription": "CTAC", "count": 300}), series()
    assert select_series([doubtful, diagnostic], CONFIG) is diagnostic
    assert select_series([doubtful], CONFIG) is doubtful


@pytest.mark.parametrize("spacing", [0.625, 0.33, 0.9375, 1.25, 0.7])
def test_positions_rounded_to_a_tenth_are_even(spacing: float) -> None:
    ((chosen, reason),) = explain([at([round(n * spacing, 1) for n in range(300)])], CONFIG)
    assert (reason, len(chosen.instances)) == (None, 300)
    grid = arrange(chosen.instances)
    assert (grid.count, grid.missing) == (300, ())
    assert grid.spacing_mm == pytest.approx(spacing, rel=1e-3)


@pytest.mark.parametrize("spacing", [1.25, 1.5, 1.75, 2.5, 3.3])
@pytest.mark.parametrize("to_whole", [round, int])
def test_positions_rounded_to_whole_millimetres_are_even(spacing: float, to_whole: Callable[[float], int]) -> None:
    ((chosen, reason),) = explain([at([float(to_whole(n * spacing)) for n in range(100)])], CONFIG)
    grid = arrange(chosen.instances)
    assert (reason, grid.count, grid.missing) == (None, 100, ())
    assert grid.spacing_mm == pytest.approx(spacing, rel=5e-3)


@pytest.mark.parametrize(("lacking", "places"), [([30], 100), ([30, 31], None), ([20, 60], None), (range(3, 9), None)])
def test_whole_millimetres_hide_no_missing_slice(lacking: Iterable[int], places: int | None) -> None:
    series = at([float(n) for n in range(100) if n not in lacking])
    if places is None:
        with pytest.raises(StudyExcluded) as caught:
            arrange(series.instances)
        assert caught.value.reason is Reason.GAPS
    else:
        assert (arrange(series.instances).count, arrange(series.instances).missing) == (places, tuple(lacking))


@pytest.mark.parametrize("moved", [0.4, -0.4, 1.25])
def test_a_slice_off_its_place_is_a_gap(moved: float) -> None:
    places = [2.5 * n for n in range(60)]
    places[30] += moved
    with pytest.raises(StudyExcluded) as caught:
        arrange(at(places).instances)
    assert caught.value.reason is Reason.GAPS


def test_a_whole_series_wins_over_an_equally_long_stretch_of_another() -> None:
    whole = at([2.0 * n for n in range(60)])
    gapped = at([2.0 * n for n in [*range(60), *range(70, 100)]])
    assert select_series([whole, gapped], CONFIG) is whole


def test_usable_series_of_several_studies_are_not_mixed() -> None:
    one, other = series(StudyInstanceUID="1.2"), series(StudyInstanceUID="1.3")
    with pytest.raises(StudyExcluded) as caught:
        select_series([one, other], CONFIG)
    assert caught.value.reason is Reason.SEVERAL_STUDIES
    scout = series(StudyInstanceUID="1.3", Modality="MR")
    reasons = [reason for _, reason in explain([one, scout, other], CONFIG)]
    assert reasons == [Reason.SEVERAL_STUDIES, Reason.NOT_CT, Reason.SEVERAL_STUDIES], "none was preferred"
    # An unusable series of another study does not matter, nor does one without StudyInstanceUID.
    assert select_series([one, series(StudyInstanceUID="1.3", Modality="MR")], CONFIG) is one
    assert select_series([one, series()], CONFIG) is one


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 8), st.sampled_from([0.6, 1.0, 3.0, 40.0])), min_size=1, max_size=6))
def test_stretches_are_even_and_hold_every_even_neighbour(pieces: list[tuple[int, float]]) -> None:
    places = np.cumsum([0.0, *(step for count, step in pieces for _ in range(count))]).round(1).tolist()
    for run in even_runs(at(places).instances):
        assert len(run) >= 2
        with suppress(StudyExcluded):
            assert arrange(run).count in {len(run), len(run) + 1}
    if len({step for _, step in pieces}) == 1:
        assert [len(run) for run in even_runs(at(places).instances)] == [len(places)]


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
        found = read_series(objects).series
    verdicts = explain(found, SelectConfig(min_slices=6, min_coverage_mm=10))
    assert [reason for _, reason in verdicts].count(Reason.BODY_PART) == 2  # of a head
    verdicts = explain(found, SelectConfig(min_slices=6, min_coverage_mm=10, skip_body_parts=()))
    reasons = [reason for _, reason in verdicts]
    assert reasons.count(Reason.LOCALIZER) == 2
    assert reasons.count(Reason.SECONDARY_CAPTURE) == 3
    assert reasons.count(None) == 1
    (chosen,) = (item for item, reason in verdicts if reason is None)
    assert len(chosen.instances) == 12
