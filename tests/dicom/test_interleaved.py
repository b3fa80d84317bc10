"""Two passes with their slices in turn, which only the pixels show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from spinemet.dicom.interleaved import one_pass
from spinemet.types import Array32, Flag, Volume
from tests.dicom.reader import read
from tests.dicom.writer import formula_error, write_series

SHAPE = (40, 64, 64)
AFFINE = np.array([[0, 0, 1, 5], [0, 1, 0, 6], [1, 0, 0, 7], [0, 0, 0, 1.0]])


def body(z_mm: np.ndarray) -> Array32:
    """(D, H, W) HU of soft tissue whose shapes change along z, with noise."""
    z, y, x = np.meshgrid(z_mm, np.arange(64), np.arange(64), indexing="ij")
    hu_DHW = 60 * np.sin(x / 7 + z / 5) + 40 * np.cos(y / 9 - z / 7) + 40
    return (hu_DHW + np.random.default_rng(0).normal(0, 10, hu_DHW.shape)).astype(np.float32)


def in_turn(first: Array32, second: Array32) -> Volume:
    both = first.copy()
    both[1::2] = second[1::2]
    return Volume(both, AFFINE)


Z = np.arange(40.0)


@pytest.mark.parametrize(
    "second",
    [
        pytest.param(body(Z + 5), id="breathed out"),
        pytest.param(np.roll(body(Z), 20, axis=1), id="moved to the back"),
        pytest.param(body(Z) + 20, id="contrast medium"),
        pytest.param(np.where(body(Z) > 60, body(Z) + 40, body(Z)), id="contrast medium in vessels"),
    ],
)
def test_one_of_two_passes_is_kept_and_the_other_counted(second: Array32) -> None:
    volume = in_turn(body(Z), second)
    kept = one_pass(volume)
    assert np.array_equal(kept.hu_DHW, volume.hu_DHW[::2])
    assert (kept.flags, kept.left_out) == ((Flag.LEFT_OUT,), 20)
    assert np.allclose(kept.to_lps([10, 3, 4]), volume.to_lps([20, 3, 4]))


@pytest.mark.parametrize(
    "hu_DHW",
    [
        pytest.param(body(Z), id="one pass"),
        pytest.param(body(3 * Z), id="thick slices"),
        pytest.param(in_turn(body(Z), body(Z) + np.float32(0.5)).hu_DHW, id="hardly brighter in turn"),
        pytest.param(body(Z) + np.where(Z > 20, 50, 0)[:, None, None].astype(np.float32), id="contrast medium halfway"),
        pytest.param(np.random.default_rng(0).normal(0, 50, SHAPE).astype(np.float32), id="noise alone"),
        pytest.param(np.full(SHAPE, -1000, np.int16), id="air alone"),
        pytest.param(in_turn(body(Z), body(Z + 5)).hu_DHW[:10], id="too few to tell"),
    ],
)
def test_one_stack_stays_whole(hu_DHW: Array32) -> None:
    volume = Volume(hu_DHW, AFFINE)
    assert one_pass(volume) is volume


def test_a_series_without_any_order_is_read_as_one_pass(tmp_path: Path) -> None:
    def second_pass(dataset: Dataset, place: int) -> None:
        if place % 2:
            dataset.RescaleIntercept = -964  # 60 HU brighter

    write_series(tmp_path, count=40, step=(0, 0, 1.5), edit=second_pass)
    volume = read(tmp_path)
    assert (len(volume.hu_DHW), volume.left_out, volume.flags) == (20, 20, (Flag.LEFT_OUT,))
    assert volume.spacing_mm[0] == pytest.approx(3.0)
    assert formula_error(volume.hu_DHW, volume.affine) < 1
