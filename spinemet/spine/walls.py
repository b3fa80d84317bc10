"""Finds the bodies' walls in the volume straightened along the canal.

Positions in this file: s in mm along the curve (index of the first axis), p in mm behind the canal, l in mm to the
left of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from spinemet.types import Array, Array32, IndexArray, SpineCurve

P_MM = np.arange(-60, 41)
L_MM = np.arange(-50, 51, 2)
_MIDDLE = np.abs(L_MM) <= 6
_POSTERIOR_MM = (-18, -3)
"""Range of the posterior wall's p: half the canal's depth (7 to 11 mm) in front of the curve, and its error."""
_DEPTH_MM = (12, 42)
"""Depth of a body, from a small woman's third cervical to a large man's fifth lumbar."""
_HALF_WIDTH_MM = (8, 32)
_WIDEST, _MIDDLE_MM = 0.75, 81
"""Largest half width as a share of the depth; 0.55 to 0.7 from C3 to L5 (Panjabi). A wall farther out is a rib's head
or a transverse process. The median of the bodies' middle over the second length then shows which wall is wrong."""
_NECK_HALF_WIDTH_MM = 13
"""Half a cervical body's width is 9 to 12 mm (Panjabi); its transverse processes begin right beside it."""
_SMOOTH_S_MM = 5.0
_STEP_COST = 0.08
"""Cost of 1 mm sideways per mm along the spine, in boneness. With it the walls of the real cases cross disc spaces."""


@dataclass(frozen=True, eq=False)
class Walls:
    """Per millimetre of the curve: the walls' p (anterior, posterior) and l (right, left), (S,) float64 mm."""

    anterior: Array
    posterior: Array
    right: Array
    left: Array

    @property
    def middle_p(self) -> Array:
        """p of the bodies' middle."""
        return (self.anterior + self.posterior) / 2

    @property
    def middle_l(self) -> Array:
        """l of the bodies' middle; not 0 if the vertebra is turned about the canal."""
        return (self.left + self.right) / 2

    @property
    def depth(self) -> Array:
        """Anterior to posterior wall."""
        return self.posterior - self.anterior

    @property
    def half_width(self) -> Array:
        """Half of right to left wall."""
        return (self.left - self.right) / 2

    def middle_mm(self, curve: SpineCurve) -> Array:
        """LPS points (S, 3) of the bodies' middle, smooth along the spine."""
        p, left = (ndimage.gaussian_filter1d(m, 8.0, mode="nearest")[:, None] for m in (self.middle_p, self.middle_l))
        return curve.points_mm + p * curve.frames[:, 1] + left * curve.frames[:, 0]

    def turned(self, curve: SpineCurve) -> SpineCurve:
        """`curve` with its frames turned about it so that anterior points from the canal to the bodies' middle.

        Corrects a patient lying on one side and the turned vertebrae of a scoliosis.
        """
        # The median comes first: a lost wall at the end of the view would turn the spine's end by 40 degrees.
        p, left = (
            ndimage.gaussian_filter1d(ndimage.median_filter(m, _MIDDLE_MM, mode="mirror"), 10.0, mode="mirror")[:, None]
            for m in (self.middle_p, self.middle_l)
        )
        posterior = -(p * curve.frames[:, 1] + left * curve.frames[:, 0])
        posterior /= np.linalg.norm(posterior, axis=1, keepdims=True)
        up = curve.frames[:, 2]
        return SpineCurve(curve.points_mm, np.stack([np.cross(posterior, up), posterior, up], axis=1))


def body_walls(bone_SPL: Array32, neck: int = 0) -> Walls:
    """The walls with the greatest sum of bone edges along the spine that move slowly from millimetre to millimetre.

    bone_SPL: boneness on s x P_MM x L_MM. neck: number of rows, from the first, that are neck. There the edge of air is
    no wall, because throat against muscle is a sharper edge than a cervical body's; nor is an edge as far out as the
    transverse processes. In the trunk the edge of fat in front of dark bodies helps: without it 0.5 % fewer of
    them were found in 54 phantoms.
    """
    midline = ndimage.gaussian_filter(bone_SPL[:, :, _MIDDLE].mean(axis=2), (3.0, 0.7))
    edge = _edge(midline, 3)
    window = np.arange(_POSTERIOR_MM[0], _POSTERIOR_MM[1])
    posterior = window[_ridge(-edge[:, window - P_MM[0]], _STEP_COST)]
    solid_SPL = np.concatenate([np.maximum(bone_SPL[:neck, :, _MIDDLE], 0), bone_SPL[neck:, :, _MIDDLE]])
    edge = _edge(ndimage.gaussian_filter(solid_SPL.mean(axis=2), (_SMOOTH_S_MM, 0.7)), 3)
    depths = np.arange(*_DEPTH_MM)
    anterior = posterior - depths[_ridge(at_depths(edge, posterior[:, None] - depths), _STEP_COST)]
    right, left = _sides(bone_SPL, (anterior + posterior) / 2, neck)
    middle = _usual((left + right) / 2)
    widest = _WIDEST * ndimage.gaussian_filter1d((posterior - anterior).astype(float), _SMOOTH_S_MM, mode="nearest")
    right, left = np.maximum(right, middle - widest), np.minimum(left, middle + widest)
    return Walls(anterior.astype(float), posterior.astype(float), right, left)


def at_depths(image_SP: Array32, p_mm: npt.ArrayLike) -> Array32:
    """The values (S, n, …) of `image_SP` (S, P_MM, …) nearest to `p_mm` (S, n)."""
    place = np.clip(np.round(np.asarray(p_mm)).astype(int) - P_MM[0], 0, len(P_MM) - 1)
    return image_SP[np.arange(len(image_SP))[:, None], place]


def _sides(bone_SPL: Array32, middle_p: Array, neck: int) -> tuple[Array, Array]:
    """l of the right and left walls at the bodies' mid depth."""
    coronal = at_depths(bone_SPL, middle_p[:, None] + np.arange(-6, 7, 2)).mean(axis=1)
    edge = _edge(ndimage.gaussian_filter(coronal, (_SMOOTH_S_MM, 0.5)), 1)
    cells = np.arange(_HALF_WIDTH_MM[0] // 2, _HALF_WIDTH_MM[1] // 2)
    center = len(L_MM) // 2
    for side in (center + cells, center - cells):
        edge[:neck, side[2 * cells > _NECK_HALF_WIDTH_MM]] = 0.0
    left = 2 * cells[_ridge(-edge[:, center + cells], _STEP_COST)]
    right = -2 * cells[_ridge(edge[:, center - cells], _STEP_COST)]
    return right.astype(float), left.astype(float)


def _usual(middle: Array) -> Array:
    """The median over _MIDDLE_MM, at the ends over the outermost _MIDDLE_MM: a wall lost there is not the usual one."""
    if len(middle) <= _MIDDLE_MM:
        return np.full(len(middle), np.median(middle))
    half = _MIDDLE_MM // 2
    return np.pad(ndimage.median_filter(middle, _MIDDLE_MM)[half:-half], half, mode="edge")


def _edge(image: Array32, reach: int) -> Array32:
    """Along the second axis: boneness `reach` cells on minus `reach` cells back."""
    edge = np.zeros_like(image)
    edge[:, reach:-reach] = image[:, 2 * reach :] - image[:, : -2 * reach]
    return edge


def _ridge(gain: Array32, step_cost: float) -> IndexArray:
    """The column (S,) of the path with the greatest sum of `gain` (S, N) that moves at most one column per row."""
    came = np.zeros(gain.shape, np.int8)
    padded = np.full(gain.shape[1] + 2, -np.inf)
    best = padded[1:-1]
    best[:] = gain[0]
    options = np.empty((3, gain.shape[1]))
    for s in range(1, len(gain)):
        options[0] = best
        np.subtract(padded[:-2], step_cost, out=options[1])
        np.subtract(padded[2:], step_cost, out=options[2])
        came[s] = options.argmax(axis=0)
        np.add(options.max(axis=0), gain[s], out=best)
    column = int(best.argmax())
    path = np.empty(len(gain), np.intp)
    for s in range(len(gain) - 1, -1, -1):
        path[s] = column
        column += (0, -1, 1)[int(came[s, column])]
    return path
