"""The vertebrae of a volume, by whichever method the configuration asks for."""

from __future__ import annotations

from spinemet.config import Localizer
from spinemet.errors import Reason, StudyExcluded
from spinemet.spine.geometric import geometric_spine
from spinemet.spine.masks import spine_from_labels
from spinemet.types import LabelMap, Spine, Volume


def localize(volume: Volume, labels: LabelMap | None = None, method: Localizer = "auto") -> Spine:
    """The spine of `volume`: its vertebrae, cranial to caudal, and the curve they sit on.

    `auto` takes the labels where there are any, else the geometric localizer. Raises StudyExcluded(NO_SPINE) where
    nothing is found, or where `masks` is asked for and the study has none.
    """
    if labels is not None and method in ("auto", "masks"):
        return spine_from_labels(volume, labels)
    if method in ("auto", "geometric"):
        return geometric_spine(volume)
    raise StudyExcluded(Reason.NO_SPINE, "expected a vertebra segmentation in the study, found none")
