"""The vertebrae of a volume, by the configured method."""

from __future__ import annotations

from dataclasses import replace

from spinemet.config import Localizer
from spinemet.errors import Reason, StudyExcluded, StudyProblem
from spinemet.spine.agreement import checked, flagged
from spinemet.spine.geometric import geometric_spine
from spinemet.spine.masks import spine_from_labels
from spinemet.spine.totalsegmentator import segment
from spinemet.types import Flag, LabelMap, Method, Spine, Volume


def localize(volume: Volume, labels: LabelMap | None = None, method: Localizer = "auto") -> Spine:
    """The spine of `volume`: its vertebrae, cranial to caudal, and the curve they sit on.

    `auto` uses the labels if they are usable, else the geometric localizer; it flags every vertebra LABELS_UNUSABLE if
    the labels were not usable. Raises StudyExcluded(NO_SPINE) if nothing is found, or for `masks` without labels;
    StudyFailed(BAD_SEGMENTATION) for `masks` if the labels contradict themselves or the CT; BadInput for
    `totalsegmentator` if it is not installed.
    """
    if method == "totalsegmentator":
        return replace(spine_from_labels(volume, segment(volume)), method=Method.TOTALSEGMENTATOR)
    if method == "masks":
        if labels is None:
            raise StudyExcluded(Reason.NO_SPINE, "expected a vertebra segmentation in the study, found none")
        return checked(volume, spine_from_labels(volume, labels))
    if labels is None or method == "geometric":
        return geometric_spine(volume)
    try:
        return checked(volume, spine_from_labels(volume, labels))
    except StudyProblem:
        return flagged(geometric_spine(volume), Flag.LABELS_UNUSABLE)
