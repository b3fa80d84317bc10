"""Studies repeated under new UIDs are other studies with the same pixels."""

from __future__ import annotations

import io

import numpy as np
import pydicom

from spinemet.phantom.dicom import ct_series, encode_one
from spinemet.phantom.plan import plan_patient
from spinemet.types import Volume
from tests.bench.fullsize import renamed, study_uids


def test_a_copy_has_its_own_uids_and_the_same_pixels() -> None:
    plan = plan_patient(0, 0, 32)[0]
    hu_DHW = np.random.default_rng(0).integers(-900, 900, (2, 32, 32)).astype(np.int16)
    contents = [encode_one(image) for image in ct_series(plan, 0, Volume(hu_DHW, np.eye(4)))]
    uids = study_uids(contents[0])
    copies = [renamed(content, uids, number) for number in (0, 7) for content in contents]
    datasets = [pydicom.dcmread(io.BytesIO(content)) for content in copies]
    assert len({each.StudyInstanceUID for each in datasets}) == len({each.SeriesInstanceUID for each in datasets}) == 2
    for original, copy in zip(contents * 2, datasets, strict=True):
        one = pydicom.dcmread(io.BytesIO(original))
        assert copy.StudyInstanceUID != one.StudyInstanceUID
        np.testing.assert_array_equal(copy.pixel_array, one.pixel_array)
