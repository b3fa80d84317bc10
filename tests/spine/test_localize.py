"""Which method finds the spine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from spinemet.errors import Reason, StudyExcluded, StudyFailed
from spinemet.spine.localize import localize
from spinemet.types import LabelMap, Volume


def test_labels_win_over_geometry(patch: Volume, patch_labels: LabelMap) -> None:
    spine = localize(patch, patch_labels, "auto")
    assert spine.method == "masks"
    assert [v.level for v in spine.vertebrae] == ["L2", "L3", "L4"]


def test_geometry_is_used_without_labels_or_on_request(patch: Volume, patch_labels: LabelMap) -> None:
    assert localize(patch, None, "auto").method == "geometric"
    assert localize(patch, patch_labels, "geometric").method == "geometric"


def test_masks_without_labels_is_excluded(patch: Volume) -> None:
    with pytest.raises(StudyExcluded, match="segmentation") as raised:
        localize(patch, None, "masks")
    assert raised.value.reason is Reason.NO_SPINE


def test_unusable_labels_are_flagged_or_rejected(patch: Volume, patch_labels: LabelMap) -> None:
    numbers = np.unique(patch_labels.labels_DHW)[1:]
    table = np.zeros(256, np.uint8)
    table[numbers] = numbers[::-1]
    upside_down = replace(patch_labels, labels_DHW=table[patch_labels.labels_DHW])
    spine = localize(patch, upside_down, "auto")
    assert spine.method == "geometric"
    assert all("labels_unusable" in v.flags for v in spine.vertebrae)
    with pytest.raises(StudyFailed) as raised:
        localize(patch, upside_down, "masks")
    assert raised.value.reason is Reason.BAD_SEGMENTATION
