"""Values that are HU, and values that only look like it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from spinemet.dicom.hounsfield import check_hu
from spinemet.errors import Reason, StudyExcluded
from spinemet.types import AIR_HU, Array, Array32

SHAPE = (20, 80, 80)
CUT = "cut off at"
NARROW = "less than the noise"
PEAK = "many values near"


def body(air: bool = True) -> Array:
    """(D, H, W) HU of fat, muscle and bone with noise; `air`: a third of it is air, as around a patient."""
    rng = np.random.default_rng(1)
    across = np.indices(SHAPE)[2]
    hu_DHW = np.select([across < 40, across < 72], [-100.0, 50.0], rng.normal(400, 200, SHAPE))
    hu_DHW[..., :27] = -1000 if air else -90
    return hu_DHW + rng.normal(0, 20, SHAPE)


def as_read(hu_DHW: Array) -> Array32:
    """As a reader hands it over: whole HU, nothing below AIR_HU."""
    return np.maximum(np.rint(hu_DHW), AIR_HU).astype(np.float32)


@pytest.mark.parametrize("air", [True, False])
def test_a_body_in_hu_passes_with_and_without_air_around_it(air: bool) -> None:
    check_hu(as_read(body(air)))
    check_hu(as_read(body(air)).astype(np.int16))


def test_archives_that_cut_at_a_thousand_pass() -> None:
    check_hu(as_read(np.clip(body(), -1000, 1000)))


def test_padding_air_and_metal_change_nothing() -> None:
    hu_DHW = as_read(body())
    hu_DHW[:, :10] = AIR_HU
    hu_DHW[5:8, 40:45, 40:45] = 3071
    check_hu(hu_DHW)


@pytest.mark.parametrize(
    ("spoil", "oddity"),
    [
        (lambda hu: (hu - hu.mean()) / hu.std(), NARROW),
        (lambda hu: (hu - hu.mean()) / hu.std() * 20, "too narrow"),
        (lambda hu: np.clip(hu, -1000, 1000) / 1000, NARROW),
        (lambda hu: hu / 1000, NARROW),
        (lambda hu: as_read(hu / 10), "hardly a value above 200"),
        (lambda hu: as_read((hu - 40) / 10), "hardly a value above 200"),
        (lambda hu: as_read(hu * 10), "hardly a value from -20 to 120"),
        (lambda hu: as_read(hu - 1024), "hardly a value"),
        (lambda hu: np.maximum(hu + 1024, 0), "no value below 0"),
        (lambda hu: np.where(hu < -900, AIR_HU, as_read(hu + 1024)), "1024 higher"),
        (lambda hu: as_read(hu * 2), PEAK),
        (lambda hu: as_read(hu * 3), PEAK),
        (lambda hu: as_read(hu - 200), PEAK),
        (lambda hu: as_read(hu / 2), PEAK),
        (lambda hu: as_read(hu * 0.7), PEAK),
        (lambda hu: as_read(hu + 400), PEAK),
        (lambda hu: as_read(-hu), "more values above 800"),
        (lambda hu: np.full_like(hu, -1000), "one value -1000"),
        (np.zeros_like, "one value 0"),
        (lambda hu: as_read(hu * 0 + np.random.default_rng(0).normal(-1000, 10, hu.shape)), "as a body has"),
        (lambda hu: as_read(np.clip(hu, -160, 240)), CUT),
        (lambda hu: np.where(hu < -1010, AIR_HU, np.clip(hu, -160, 240)), CUT),
        (lambda hu: np.clip(hu, -1000, 400), CUT),
        (lambda hu: np.clip(hu, -450, 1050), CUT),
    ],
)
def test_other_values_are_refused_with_the_oddity(spoil: Callable[[Array], Array], oddity: str) -> None:
    with pytest.raises(StudyExcluded, match=oddity) as caught:
        check_hu(spoil(body()).astype(np.float32))
    assert caught.value.reason is Reason.NOT_HU


def test_lung_without_air_beside_it_and_fat_of_a_low_energy_pass() -> None:
    lung = as_read(body(air=False))
    lung[..., :27] = np.random.default_rng(2).normal(-780, 35, lung[..., :27].shape)
    check_hu(lung)
    low_energy = body()
    low_energy[(low_energy < -20) & (low_energy > -500)] -= 80
    check_hu(as_read(low_energy))  # air at -1000 shows that the factor is right


def test_a_small_volume_is_judged_only_by_the_width_of_its_range() -> None:
    within_bone = np.random.default_rng(0).normal(300, 50, (10, 40, 40)).astype(np.float32)
    check_hu(within_bone)
    for spoiled in (np.full_like(within_bone, 300), within_bone / 1000, (within_bone - 300) / 50):
        with pytest.raises(StudyExcluded):
            check_hu(spoiled)
