"""The components of the Spinal Instability Neoplastic Score (Fisher et al., Spine 2010) that classification gives."""

from dataclasses import dataclass

from spinemet.anatomy import sins_location_points

BONE_POINTS = {"blastic": 0, "mixed": 1, "lytic": 2}
POSTEROLATERAL_POINTS = {"none": 0, "unilateral": 1, "bilateral": 3}
MOST_LOCATION_POINTS = 3
MOST_POSTEROLATERAL_POINTS = 3
MOST_UNSEEN_POINTS = 3 + 4 + 3
"""Pain 0-3, alignment 0-4 and body collapse 0-3, which are not read from the image."""


@dataclass(frozen=True)
class SinsPoints:
    """The three known components, their sum, and the bounds of the whole score; None if unknown. Columns `sins_…`."""

    location: int | None = None
    bone: int | None = None
    posterolateral: int | None = None
    partial: int | None = None
    min: int | None = None
    max: int | None = None


def sins_points(level: str, bone_quality: str | None, posterolateral: str | None) -> SinsPoints:
    """The points of one vertebra.

    All None for a vertebra that is normal or not classified: the score is defined for metastases. An unknown component
    (a vertebra without a name, a model without posterolateral involvement) makes the partial sum None and widens the
    bounds by its whole range.
    """
    if bone_quality not in BONE_POINTS:
        return SinsPoints()
    location = sins_location_points(level)
    bone = BONE_POINTS[bone_quality]
    involvement = None if posterolateral is None else POSTEROLATERAL_POINTS[posterolateral]
    least = (location or 0) + bone + (involvement or 0)
    most = bone + MOST_UNSEEN_POINTS
    most += MOST_LOCATION_POINTS if location is None else location
    most += MOST_POSTEROLATERAL_POINTS if involvement is None else involvement
    partial = None if location is None or involvement is None else least
    return SinsPoints(location, bone, involvement, partial, least, most)
