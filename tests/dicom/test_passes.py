"""Passes of the scanner, told apart by the order in which their slices were taken."""

from __future__ import annotations

import random

import pytest

from spinemet.dicom.passes import Moment, passes

RANGE = [2.0 * n for n in range(20)]
BETWEEN = [z + 1 for z in RANGE]
TWO_PASSES = [(20, 0), (20, 0)]
ONE_STACK = [(40, 0)]
"""Of which the pixels show whether it is two passes (interleaved.py)."""


def found(along: list[float], moments: list[Moment], acquisitions: list[int | None]) -> list[tuple[int, int]]:
    """(slices, left out) of each pass, which must not depend on the order of the files."""
    results = []
    for seed in range(3):
        order = random.Random(seed).sample(range(len(along)), len(along))
        parts = passes([along[n] for n in order], [acquisitions[n] for n in order], [moments[n] for n in order])
        results.append([(len(part), left_out) for part, left_out in parts])
    assert results[0] == results[1] == results[2]
    return results[0]


def numbered(numbers: list[int], time: str = "") -> list[Moment]:
    return [(time, number, None) for number in numbers]


@pytest.mark.parametrize("acquisition", [None, 1])
@pytest.mark.parametrize(
    ("along", "moments", "expected"),
    [
        pytest.param(RANGE + BETWEEN, numbered([*range(40)]), ONE_STACK, id="half a step apart"),
        pytest.param(RANGE + BETWEEN[::-1], numbered([*range(40)]), ONE_STACK, id="there and back"),
        pytest.param(RANGE + RANGE, numbered([*range(40)]), TWO_PASSES, id="the same places"),
        pytest.param(RANGE + BETWEEN, numbered([*range(20)] * 2), ONE_STACK, id="both numbered from one"),
        pytest.param(
            RANGE + BETWEEN[:16],
            numbered([*range(20), *range(16)]),
            [(20, 0), (16, 0)],
            id="one shorter than the other",
        ),
        pytest.param(RANGE, [("", 1, n % 8) for n in range(20)], [(20, 0)], id="three objects of one concatenation"),
        pytest.param(RANGE, [("", 1, n % 8) for n in range(20)][::-1], [(20, 0)], id="the same downwards"),
        pytest.param(RANGE, numbered([1] * 15 + [2] * 5), [(20, 0)], id="two numbers"),
        pytest.param(
            RANGE + BETWEEN, numbered([1] * 20, "101500") + numbered([1] * 20, "101700.5"), TWO_PASSES, id="two times"
        ),
        pytest.param(
            RANGE + BETWEEN,
            numbered([*range(0, 40, 2)], "101500") + numbered([*range(1, 40, 2)], "101700"),
            TWO_PASSES,
            id="two times, numbered by place",
        ),
        pytest.param(
            RANGE + BETWEEN, [("", 1, frame) for frame in range(40)], ONE_STACK, id="frames of one Enhanced object"
        ),
        pytest.param(RANGE[:12] + RANGE[7:], numbered([*range(25)]), [(20, 5)], id="five slices overlap"),
        pytest.param(RANGE[12:] + RANGE[:12], numbered([*range(20)]), [(20, 0)], id="upper half first"),
        pytest.param(RANGE, numbered([*range(20)]), [(20, 0)], id="one pass"),
        pytest.param(RANGE[::-1], numbered([*range(20)]), [(20, 0)], id="one pass downwards"),
        pytest.param(RANGE, numbered([1] * 20), [(20, 0)], id="one number"),
        pytest.param(RANGE, [("", None, None)] * 20, [(20, 0)], id="no number"),
        pytest.param(RANGE, numbered([3, 2, 1, 0, *range(4, 20)]), [(20, 0)], id="a rotation backwards"),
        pytest.param(RANGE, numbered(random.Random(0).sample(range(20), 20)), [(20, 0)], id="renamed at random"),
        pytest.param(RANGE, [(f"1015{n:02}", n, None) for n in range(20)], [(20, 0)], id="a time per slice"),
    ],
)
def test_the_order_tells_passes_apart(
    along: list[float], moments: list[Moment], expected: list[tuple[int, int]], acquisition: int | None
) -> None:
    assert found(along, moments, [acquisition] * len(along)) == expected


@pytest.mark.parametrize("rotation", [1, 2, 4])
def test_numbers_that_alternate_in_one_even_stack_do_not_divide_it(rotation: int) -> None:
    alternating: list[int | None] = [n // rotation % 2 for n in range(20)]
    assert found(RANGE, numbered([*range(20)]), alternating) == [(20, 0)]
    assert found(RANGE, numbered([*range(20)][::-1], "101500"), alternating) == [(20, 0)]


@pytest.mark.parametrize("spacing", [0.95, 0.9, 0.8, 0.625])
@pytest.mark.parametrize("rotation", [100, 10, 4])
def test_positions_rounded_to_whole_millimetres_make_no_grid_of_1_mm(spacing: float, rotation: int) -> None:
    rounded = [float(round(n * spacing)) for n in range(100)]
    parts = found(rounded, numbered([*range(100)]), [n // rotation for n in range(100)])
    assert parts == [(100, 0)]  # with different slices at one position, which are rejected


@pytest.mark.parametrize("overlap", [0, 2, 5])
def test_passes_1_mm_apart_are_joined_all_the_same(overlap: int) -> None:
    along = [float(z) for z in [*range(30), *range(30 - overlap, 60)]]
    assert found(along, numbered([*range(len(along))]), [1] * len(along)) == [(60, overlap)]


@pytest.mark.parametrize(
    "numbers",
    [
        [*range(0, 40, 2), *range(1, 40, 2)],
        [*range(20), *range(20, 40)],
        [*range(20)] * 2,
        [1] * 40,
    ],
)
@pytest.mark.parametrize("time", ["", "101500"])
def test_one_number_that_alternates_in_an_even_stack_does_not_divide_it(numbers: list[int], time: str) -> None:
    assert found(RANGE + BETWEEN, numbered(numbers, time), [1] * 40) == ONE_STACK
    assert found(RANGE + BETWEEN, numbered([1] * 40, time), numbers) == ONE_STACK


def test_a_second_number_or_the_time_confirms_a_pass_half_a_step_apart() -> None:
    by_pass = [1] * 20 + [2] * 20
    assert found(RANGE + BETWEEN, numbered([*range(40)]), by_pass) == TWO_PASSES
    assert found(RANGE + BETWEEN, [(f"10150{n}", 1, None) for n in by_pass], [1] * 40) == TWO_PASSES
    assert found(RANGE + [z + 0.6 for z in RANGE], numbered([*range(40)]), [1] * 40) == TWO_PASSES


def test_without_an_order_the_acquisitions_decide() -> None:
    assert found(RANGE + RANGE, numbered([1] * 40), [1] * 20 + [2] * 20) == TWO_PASSES
    assert found(RANGE, numbered([1] * 20), [1] * 12 + [2] * 8) == [(20, 0)]
