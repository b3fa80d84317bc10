"""Measures of each kind of scan: groups agree with the vertebrae in them, and groups of few are marked."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from spinemet.evaluation.groups import GROUPS, group_measures, scan_groups
from spinemet.model.tasks import TASKS
from spinemet.types import BONE_QUALITY, InstanceHeader
from tests.readings import SERIES, reading, vertebra

QUALITY = next(task for task in TASKS if task.name == "bone_quality")


def test_a_study_is_grouped_by_what_its_headers_say() -> None:
    found = scan_groups(reading())
    assert found == {
        "scanner": "ACME Medical Ring 5",
        "kernel": "B60f",
        "slice_thickness": "1 to 2 mm",
        "bone_density": "110 to 160 HU",
        "contrast": "yes",
    }
    bare = replace(SERIES, Manufacturer="", ManufacturerModelName="", ConvolutionKernel=" ", instances=())
    silent = replace(reading(cut=["T11", "T12", "L1", "?1"]), chosen=replace(bare, ContrastBolusAgent=""))
    assert set(scan_groups(silent).values()) == {"unknown"}


@pytest.mark.parametrize(
    ("thickness", "band"), [(0.6, "up to 1 mm"), (1.0, "up to 1 mm"), (5.0, "3 to 5 mm"), (7.5, "over 5 mm")]
)
def test_thickness_falls_into_bands(thickness: float, band: str) -> None:
    one = reading()
    chosen = replace(one.chosen, instances=(InstanceHeader("a", SliceThickness=thickness),))
    assert scan_groups(replace(one, chosen=chosen))["slice_thickness"] == band


def test_bone_density_is_the_median_of_the_whole_vertebrae() -> None:
    one = reading()
    hu = (40.0, 90.0, 700.0)
    bones = [replace(vertebra(f"L{n + 1}", n), measures={"trabecular_hu": value}) for n, value in enumerate(hu)]
    spine = replace(one.spine, vertebrae=tuple(bones))
    assert scan_groups(replace(one, spine=spine))["bone_density"] == "50 to 110 HU"


def table(groups: dict[str, list[tuple[str, str, float]]], each: int) -> pd.DataFrame:
    """Per kernel, (patient, truth, probability of normal), `each` times; the rest of the probability is lytic."""
    rows = [
        {"patient": patient, **dict.fromkeys(GROUPS, "unknown"), "kernel": kernel, "bone_quality_true": truth}
        | {f"bone_quality_p_{name}": {"normal": normal, "lytic": 1 - normal}.get(name, 0.0) for name in BONE_QUALITY}
        for kernel, cases in groups.items()
        for patient, truth, normal in cases
        for _ in range(each)
    ]
    return pd.DataFrame(rows)


def test_each_group_has_its_own_measures() -> None:
    sharp = [(f"p{n}", "blastic" if n % 2 else "normal", 0.2 if n % 2 else 0.9) for n in range(12)]
    soft = [(f"q{n}", "normal", 0.1 if n < 3 else 0.7) for n in range(12)]
    rows = group_measures(table({"sharp": sharp, "soft": soft}, 2), [QUALITY]).set_index(
        ["group", "value_of_group", "measure"]
    )
    # A blastic vertebra called lytic is a lesion that was found.
    assert rows.loc[("kernel", "sharp", "sensitivity"), "value"] == 1
    assert rows.loc[("kernel", "sharp", "sensitivity"), "n"] == 12
    assert rows.loc[("kernel", "sharp", "auc"), "value"] == 1
    assert rows.loc[("kernel", "soft", "specificity"), "value"] == pytest.approx(9 / 12)
    assert rows.loc[("kernel", "soft", "expected_share"), "value"] == pytest.approx((3 * 0.9 + 9 * 0.3) / 12)
    assert rows.loc[("kernel", "soft", "observed_share"), "value"] == 0
    assert rows.loc[("contrast", "unknown", "specificity"), "n"] == 12 + 24


def test_groups_of_few_are_marked_for_the_kind_that_lacks() -> None:
    one_patient = [("p", "normal", 0.9)] * 30
    few = [(f"q{n}", "normal", 0.9) for n in range(9)]
    enough = [(f"r{n}", "normal", 0.9) for n in range(10)]
    cases = {"one": one_patient, "nine": few, "ten": enough}
    rows = group_measures(table(cases, 1), [QUALITY]).set_index(["group", "value_of_group", "measure"])["few"]
    assert rows["kernel", "one", "specificity"]
    assert rows["kernel", "nine", "specificity"]
    assert not rows["kernel", "ten", "specificity"]
    assert rows["kernel", "ten", "sensitivity"]
    assert rows["kernel", "ten", "auc"]
    assert not rows["kernel", "ten", "expected_share"]
