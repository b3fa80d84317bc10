"""The vertebrae of a volume, by whichever method the configuration asks for."""

from __future__ import annotations

from dataclasses import replace

from spinemet.config import Localizer
from spinemet.errors import Reason, StudyExcluded
from spinemet.spine.geometric import geometric_spine
from spinemet.spine.masks import spine_from_labels
from spinemet.spine.totalsegmentator import segment
from spinemet.types import LabelMap, Spine, Volume


def localize(volume: Volume, labels: LabelMap | None = None, method: Localizer = "auto") -> Spine:
    """The spine of `volume`: its vertebrae, cranial to caudal, and the curve they sit on.

    `auto` takes the labels where there are any, else the geometric localizer. Raises StudyExcluded(NO_SPINE) where
    nothing is found, or where `masks` is asked for and the study has none; StudyFailed(BAD_SEGMENTATION) where the
    labels contradict themselves; BadInput where `totalsegmentator` is asked for and not installed.
    """
    if method == "totalsegmentator":
        return replace(spine_from_labels(volume, segment(volume)), method="totalsegmentator")
    if labels is not None and method != "geometric":
        return spine_from_labels(volume, labels)
    if method == "masks":
        raise StudyExcluded(Reason.NO_SPINE, "expected a vertebra segmentation in the study, found none")
    return geometric_spine(volume)
