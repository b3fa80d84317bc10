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
        (lambda hu: (hu - hu.mean()) / hu.std(), "too narrow"),
        (lambda hu: np.clip(hu, -1000, 1000) / 1000, "too narrow"),
        (lambda hu: hu / 1000, "too narrow"),
        (lambda hu: as_read(hu / 10), "hardly a value above 200"),
        (lambda hu: as_read((hu - 40) / 10), "hardly a value above 200"),
        (lambda hu: as_read(hu * 10), "hardly a value from -20 to 120"),
        (lambda hu: as_read(hu - 1024), "hardly a value"),
        (lambda hu: np.maximum(hu + 1024, 0), "no value below 0"),
        (lambda hu: np.where(hu < -900, AIR_HU, as_read(hu + 1024)), "1024 higher"),
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


def test_a_small_volume_is_judged_only_by_being_one_value() -> None:
    within_bone = np.random.default_rng(0).normal(300, 50, (10, 40, 40)).astype(np.float32)
    check_hu(within_bone)
    with pytest.raises(StudyExcluded):
        check_hu(np.full_like(within_bone, 300))
