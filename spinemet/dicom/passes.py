"""Passes of the scanner within one series, by where their slices lie and in which order they were taken.

AcquisitionNumber may count contrast phases, passes, mere rotations, or alternate from slice to slice, so it never
divides a series by itself. The order of AcquisitionTime and InstanceNumber shows how often the scanner ran through the
range. If there is no such order, as with InstanceNumber 1 on every slice, AcquisitionNumber stands in for it.
A number alone may alternate within one stack. So parts that make one even stack together are one, unless the time or a
second number tells them apart; the pixels show whether they alternate (interleaved.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from spinemet.dicom.geometry import SAME_POSITION_MM, STEP_TOLERANCE

Moment = tuple[str, int | None, int | None]
"""AcquisitionTime as text, InstanceNumber, and the frame of an Enhanced object."""

MOST_OVERLAP = 0.5
"""A pass continues another one if at most this share of its length lies beside it; otherwise it repeats it."""
LEAST_SWEEP = 3
"""An order with shorter sweeps is no order of the scanner, for example that of renamed files."""

ROUNDING_MM = 0.06
"""A position rounded to 0.1 mm may lie so far from its place."""
SHORTER_STEP = 0.6
"""A pass that begins within half a step of where the last one ended moves by a smaller share of the usual step."""


def passes(
    along: Sequence[float], acquisitions: Sequence[int | None], moments: Sequence[Moment]
) -> list[tuple[list[int], int]]:
    """(slices by their index, how many it leaves out) of each pass; passes that continue each other are one.

    along: place of each slice, mm. Of two passes that overlap by at most MOST_OVERLAP, the earlier keeps its slices.
    """
    sweeps = _sweeps(along, moments)
    parts = sweeps or _by_number(acquisitions)
    is_confirmed = _differ(parts, [time for time, _, _ in moments]) or (sweeps and _differ(parts, acquisitions))
    if _are_rounded(along, parts) or (_are_even(along) and not is_confirmed):
        return [(list(range(len(along))), 0)]
    found: list[tuple[list[int], int]] = []
    for part in parts:
        for place, (earlier, left_out) in enumerate(found):
            beyond = _beyond(along, part, earlier)
            if len(part) - len(beyond) <= MOST_OVERLAP * len(part):
                found[place] = earlier + beyond, left_out + len(part) - len(beyond)
                break
        else:
            found.append((part, 0))
    # One slice per acquisition is a bolus-tracking series, not several phases.
    if max(len(part) for part, _ in found) == 1:
        return [(list(range(len(along))), 0)]
    return [(sorted(part), left_out) for part, left_out in found]


def _differ(parts: Sequence[Sequence[int]], values: Sequence[object]) -> bool:
    """Whether no two parts have a value in common."""
    sets = [{values[n] for n in part} for part in parts]
    return len(set().union(*sets)) == sum(map(len, sets))


def _are_even(along: Sequence[float]) -> bool:
    """Whether the slices lie one by one on evenly spaced places."""
    at = np.sort(np.asarray(along))
    if len(at) < LEAST_SWEEP or float(np.diff(at).min()) <= SAME_POSITION_MM:
        return False
    line = np.linspace(at[0], at[-1], len(at))
    return bool(np.abs(at - line).max() <= max(STEP_TOLERANCE * (line[1] - line[0]), ROUNDING_MM))


def _are_rounded(along: Sequence[float], parts: Sequence[Sequence[int]]) -> bool:
    """Whether parts meet in one place because positions below 1 mm apart were rounded to whole ones.

    Their true spacing is unknown: together they have different slices at one position, which volume.py rejects.
    """
    places = [np.rint([along[n] for n in part]).astype(int).tolist() for part in parts]
    at = sorted({place for part in places for place in part})
    meet = any(len(set(one) & set(next_one)) == 1 for one, next_one in pairwise(places))
    is_whole = bool(np.abs(np.asarray(along) - np.rint(along)).max() < SAME_POSITION_MM)
    return is_whole and meet and len(at) > 1 and float(np.median(np.diff(at))) == 1.0


def _by_number(acquisitions: Sequence[int | None]) -> list[list[int]]:
    numbers = [number or 0 for number in acquisitions]
    return [[n for n in range(len(numbers)) if numbers[n] == number] for number in sorted(set(numbers))]


def _sweeps(along: Sequence[float], moments: Sequence[Moment]) -> list[list[int]]:
    """The slices of each run through the range, in the scanner's order; none if the headers hold no such order."""
    for with_time in (True, False):
        keys = [(time if with_time else "", number or 0, frame or 0) for time, number, frame in moments]
        if len(set(keys)) == 1:
            continue
        # A number that stands in each of several passes: the passes lie in the order of their places.
        seen: Counter[tuple[str, int, int]] = Counter()
        order = []
        for n in np.argsort(along, kind="stable").tolist():
            order.append((keys[n][0], seen[keys[n]], *keys[n][1:], n))
            seen[keys[n]] += 1
        sweeps = _monotone(along, [n for *_, n in sorted(order)])
        if min(map(len, sweeps)) >= LEAST_SWEEP:
            return sweeps
    return []


def _monotone(along: Sequence[float], order: Sequence[int]) -> list[list[int]]:
    """`order` divided wherever the place stays, turns back, or moves by much less than before."""
    sweeps = [[order[0]]]
    before = 0.0
    for n in order[1:]:
        step = along[n] - along[sweeps[-1][-1]]
        if abs(step) > SAME_POSITION_MM and step * before >= 0 and abs(step) > SHORTER_STEP * abs(before):
            sweeps[-1].append(n)
            before = step
        else:
            sweeps.append([n])
            before = 0.0
    return sweeps


def _beyond(along: Sequence[float], part: list[int], earlier: list[int]) -> list[int]:
    """The slices of `part` that lie outside the range of `earlier`, or in a gap of it."""
    taken = np.sort([along[n] for n in earlier])
    step = float(np.median(np.diff(taken))) if len(taken) > 1 else 0.0
    beyond = []
    for n in part:
        nearest = float(np.abs(taken - along[n]).min())
        outside = not taken[0] - SAME_POSITION_MM <= along[n] <= taken[-1] + SAME_POSITION_MM
        if (outside and nearest > SAME_POSITION_MM) or nearest > max(step, SAME_POSITION_MM) * 0.75:
            beyond.append(n)
    return beyond
