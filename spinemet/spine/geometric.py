"""The geometric localizer: vertebrae from HU alone, without labels, weights or a network.

Canal (ring.py), up to the skull (skull.py) -> straightened volume (canal.py) -> walls (walls.py) -> discs (discs.py) ->
bodies (bodies.py) -> names from anchors (naming.py). All thresholds are relative to the HU of soft tissue and bone in
the volume itself.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import ndimage

from spinemet.errors import Reason, StudyExcluded
from spinemet.spine.bodies import Body, bodies_between, body_frames
from spinemet.spine.canal import build_curve, position_on, straightened
from spinemet.spine.discs import disc_chain, disc_evidence
from spinemet.spine.measures import completeness, measured_vertebra
from spinemet.spine.naming import level_names
from spinemet.spine.ribs import outward_reach
from spinemet.spine.ring import GRID_MM, Tissue, find_canal, tissue_levels
from spinemet.spine.sacrum import find_sacrum
from spinemet.spine.sampling import in_view, resample_lps
from spinemet.spine.skull import foramen_magnum
from spinemet.spine.walls import L_MM, P_MM, Walls, body_walls
from spinemet.types import Array, Array32, Completeness, Flag, Method, Spine, SpineCurve, Vertebra, Volume

_OUTSIDE_HU = -5000.0
_KNOT_MM = 10.0
"""Distance between the canal points that define the curve; each is the mean of the points around it."""
_EXTEND_MM = 20.0
"""The curve continues beyond the last canal slice, because the planes through the bodies are slanted."""
_TURNED_MM, _TURNS = 1.5, 3
"""If the bodies lie farther beside the canal than this on average (4 degrees), the walls are searched again in turned
frames, at most so many times: at first a far wall may be outside the window, which hides part of the turn."""
_LEAST_CANAL_MM = 25.0
"""About one vertebra; any joint has shorter rings of bone."""
_LEAST_COVERED = 0.3
"""Bodies must cover at least this share of the canal's visible length, unless a sacrum is found: a skull base and a
few edges are not a spine."""
_AXIS_MM = 34.0
"""No disc lies within this distance below the foramen magnum, only the dens in the ring of the atlas and the upper part
of the axis. The first disc of phantoms lies at 47 mm on average, 39 to 56."""
_NECK_MM = 140.0
"""From the foramen magnum to C7."""
_INSIDE_MM, _MOST_INSIDE = 4, 0.2
"""Largest mean boneness within the first distance of the canal's middle. It is below 0.05 in the real cases and in
phantoms, with screws or without; 0.3 to 0.7 between the bones of a hip."""
_ENDPLATE_MM = 3.0
"""An end body whose outer endplate is not seen counts as cut if the border is nearer to it than this: the heights of
neighbours differ by so much."""
_LEAST_RING, _LEAST_LONG_RING, _LONG_MM = 0.8, 0.65, 150.0
"""Least mean ring score of a spine, and of a canal longer than the third value. Real cases score 0.95 to 1.2, phantoms
with bodies as dark as muscle or with screws 0.7 to 0.8."""


def geometric_spine(volume: Volume) -> Spine:
    """The vertebrae of `volume`, cranial to caudal, with the curve in their canal.

    Raises StudyExcluded(NO_SPINE) if no canal is found, or no disc or body along it.
    """
    grid = resample_lps(volume, GRID_MM)
    tissue = tissue_levels(grid.hu_DHW)
    curve, foramen = _canal(grid, tissue)
    skull = None if foramen is None else float(position_on(curve, foramen)[0])
    neck = 0 if skull is None else round(skull + _NECK_MM)
    for turn in range(1 + _TURNS):
        hu = straightened(volume, curve, P_MM, L_MM, outside=_OUTSIDE_HU)
        beyond = hu == np.float32(_OUTSIDE_HU)
        # Soft tissue beyond the volume, so that its border does not look like a wall.
        bone_SPL = tissue.boneness(np.where(beyond, np.float32(tissue.soft), hu), -0.6, 1.5)
        walls = body_walls(bone_SPL, neck)
        if turn == _TURNS or np.abs(walls.middle_l).mean() <= _TURNED_MM:
            break
        curve = walls.turned(curve)
    middle = walls.middle_mm(curve)
    arc = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(middle, axis=0), axis=1))])
    spine = np.arange(len(middle)) >= (-np.inf if skull is None else skull + _AXIS_MM)
    quarter = walls.depth[:, None] / 4 * curve.frames[:, 1]
    depths = [in_view(volume, middle + side * quarter) for side in (-1, 0, 1)]
    seen = np.logical_and.reduce(depths) & spine
    evidence = disc_evidence(bone_SPL, beyond, walls, seen)
    discs = disc_chain(evidence, walls.depth, arc)
    if len(discs) == 0:
        raise StudyExcluded(Reason.NO_SPINE, "expected discs along the spinal canal, found none")
    bodies = bodies_between(discs, evidence, walls, np.logical_or.reduce(depths) & spine)
    sacrum, anchor = find_sacrum(bone_SPL, walls, evidence, middle, bodies)
    covered = bodies[-1].bottom - bodies[0].top if bodies else 0.0
    bodies = bodies[:sacrum]
    if not bodies or (not anchor and covered < _LEAST_COVERED * seen.sum()) or _inside(bone_SPL, bodies) > _MOST_INSIDE:
        raise StudyExcluded(Reason.NO_SPINE, "expected vertebral bodies along the spinal canal, found none")
    centers, axes = body_frames(curve, walls, bodies)
    names = level_names(bodies, anchor, outward_reach(grid, tissue, curve, walls, bodies), skull)
    found = zip(bodies, names.levels, centers, axes, strict=True)
    vertebrae = tuple(_vertebra(volume, walls, arc, *one) for one in found)
    return Spine(vertebrae, curve, Method.GEOMETRIC, (Flag.TRANSITIONAL,) if names.transitional else ())


def _canal(grid: Volume, tissue: Tissue) -> tuple[SpineCurve, Array | None]:
    """The curve in the spinal canal, and the foramen magnum if it is in view."""
    canal, ring = find_canal(grid, tissue)
    length = len(canal) * GRID_MM
    if length >= _LEAST_CANAL_MM and ring >= (_LEAST_RING if length < _LONG_MM else _LEAST_LONG_RING):
        foramen = foramen_magnum(grid, tissue, canal)
        if foramen is not None:
            canal = canal[canal[:, 2] < foramen[2]]
        if len(canal) * GRID_MM >= _LEAST_CANAL_MM:
            smooth = ndimage.gaussian_filter1d(canal, 4.0, axis=0, mode="nearest")
            knots = np.linspace(0, len(canal) - 1, max(2, round(len(canal) * GRID_MM / _KNOT_MM)))
            return build_curve(smooth[knots.round().astype(int)], extend_mm=_EXTEND_MM), foramen
    raise StudyExcluded(Reason.NO_SPINE, "expected a spinal canal in the volume, found none")


def _inside(bone_SPL: Array32, bodies: list[Body]) -> float:
    core = bone_SPL[:, np.abs(P_MM) <= _INSIDE_MM][:, :, np.abs(L_MM) <= _INSIDE_MM].mean(axis=(1, 2))
    return float(np.concatenate([core[body.rows] for body in bodies]).mean())


def _vertebra(
    volume: Volume, walls: Walls, arc: Array, body: Body, name: tuple[str, float], center: Array, axes: Array
) -> Vertebra:
    top, bottom = np.interp((body.top, body.bottom), np.arange(len(arc)), arc)
    half_width, depth = float(walls.half_width[body.rows].mean()), float(walls.depth[body.rows].mean())
    half = (half_width, depth / 2, float(bottom - top) / 2)
    level, sure = name
    seen = [score for score in (body.disc_above, body.disc_below) if np.isfinite(score)]
    likely = float(np.clip(1 / (1 + np.exp(-1.5 * float(np.mean(seen)) - 0.5)), 0.02, 0.99))
    flags = (Flag.DISC_UNCLEAR,) if min(seen) < 0 else ()
    vertebra = measured_vertebra(
        volume, level, center, axes, half, level_confidence=sure, canal_mm=body.middle, confidence=likely, flags=flags
    )
    unseen = len(seen) < 2  # the far endplate is where the neighbour's height puts it
    if body.cut or (
        unseen and completeness(volume, center, axes, (*half[:2], half[2] + _ENDPLATE_MM)) is Completeness.CUT
    ):
        return replace(vertebra, completeness=Completeness.CUT)
    return vertebra
