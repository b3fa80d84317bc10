"""Every compression of real slices is decoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate, generate_frames

from spinemet.errors import Reason, StudyFailed
from spinemet.types import AIR_HU, Volume
from tests.dicom.reader import read

LOSSLESS = (
    "dcm_BigEndian",
    "dcm_Deflated",
    "2000LosslessOnly",
    "JPEGLSLossless",
    "Process14SV1",
    "Process14Transfer",
    "LittleEndianExplicit",
    "LittleEndianImplicit",
    "RLE",
)


def test_every_lossless_form_of_one_slice_gives_the_same_volume(tmp_path: Path, realct: Path) -> None:
    folder = realct / "conformance" / "transfer-syntaxes"
    reference = one_slice_volume(tmp_path / "reference", folder / "CTImage.dcm")
    assert reference.hu_DHW.min() == AIR_HU
    assert reference.hu_DHW.max() == 2402 - 1024
    for part in LOSSLESS:
        (path,) = (path for path in folder.iterdir() if part in path.name)
        volume = one_slice_volume(tmp_path / part, path)
        np.testing.assert_array_equal(volume.hu_DHW, reference.hu_DHW, err_msg=part)


def test_high_throughput_jpeg_2000_is_decoded(tmp_path: Path, realct: Path) -> None:
    volume = one_slice_volume(tmp_path, realct / "conformance" / "transfer-syntaxes" / "htj2k.dcm")
    assert volume.hu_DHW.shape == (2, 512, 512)
    assert (volume.hu_DHW.min(), volume.hu_DHW.max()) == (-1000, 1493)


@pytest.mark.parametrize("process", ["Process2_4", "Process6_8", "Process10_12"])
def test_lossy_jpeg_of_twelve_bits_is_decoded_unless_truncated(tmp_path: Path, realct: Path, process: str) -> None:
    folder = realct / "conformance" / "transfer-syntaxes"
    (path,) = (path for path in folder.iterdir() if process in path.name)
    (exact,) = (path for path in folder.iterdir() if "LittleEndianExplicit" in path.name)
    volume, expected = one_slice_volume(tmp_path / "lossy", path), one_slice_volume(tmp_path / "exact", exact)
    assert volume.flags == ("lossy",)
    assert np.abs(volume.hu_DHW.astype(int) - expected.hu_DHW).max() < 40
    dataset = pydicom.dcmread(path)
    code = next(generate_frames(dataset.PixelData, number_of_frames=1))
    dataset.PixelData = encapsulate([code[: len(code) // 4 * 2]])
    dataset.save_as(tmp_path / "half.dcm")
    with pytest.raises(StudyFailed) as caught:
        one_slice_volume(tmp_path / "half", tmp_path / "half.dcm")
    assert caught.value.reason is Reason.UNDECODABLE


def one_slice_volume(folder: Path, path: Path) -> Volume:
    """The slice and a copy 5 mm above it: the same object with another position and unchanged pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "1").write_bytes(path.read_bytes())
    dataset = pydicom.dcmread(path)
    dataset.ImagePositionPatient[2] += 5
    dataset.save_as(folder / "2")
    volume = read(folder)
    np.testing.assert_array_equal(volume.hu_DHW[0], volume.hu_DHW[1])
    return volume
